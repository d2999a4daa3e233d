"""Recordings of what a service answered, kept as readable files and served again without a network.

tape = Tape.new("weather.forecast", {"place": "Paris"})
toolbox = Toolbox(recording(tape))          # asks the real service and writes down what comes
tape.save(path)                             # refuses while a secret is left in it

toolbox = Toolbox(replaying(load(folder)))  # the same client and the same guard; nothing is opened
"""

from .playing import NotRecorded, Player, Recorder, recording, replaying
from .scrub import Scrubber, suspicious
from .tape import Exchange, Tape, load

__all__ = [
    "Exchange",
    "NotRecorded",
    "Player",
    "Recorder",
    "Scrubber",
    "Tape",
    "load",
    "recording",
    "replaying",
    "suspicious",
]
