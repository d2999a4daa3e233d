"""Characters that are not text: controls, direction overrides, zero-width marks, tags.

They hide instructions, reorder what a person reads or break terminals. `clean` removes them and keeps everything one
can see, and the two joiners where a script needs them (Persian, Indic, emoji families).
"""

from __future__ import annotations

import re

_HIDDEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 (but tab and newline) and C1
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"  # zero-width, direction marks and overrides, isolates
    "\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb"
    "\U000e0000-\U000e0fff"  # tags and the selectors after them
    "\U0001d173-\U0001d17a"
)
# A joiner means something only between two characters beyond ASCII; anywhere else it is just invisible.
_LONE_JOINER = "(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f\u200c\u200d])"
_BAD = re.compile(f"[{_HIDDEN}]|{_LONE_JOINER}")
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """`text` without invisible characters; line ends become ``\\n``, half characters become ``\\ufffd``."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    return _BAD.sub("", _SURROGATE.sub("\ufffd", text))


def hidden(text: str) -> int:
    """How many characters `clean` takes out."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    return len(_BAD.findall(_SURROGATE.sub("\ufffd", text)))
