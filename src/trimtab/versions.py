"""Which version of the model answers: promoting, rolling back, trying one on a share of the conversations.

The database says which (one transaction), the registry holds the files (verified before they are used), the engine
holds the adapters. What is being written is finished by the version that began it; the next turn, and one that goes on
after an approval, takes the new. The version before stays loaded, so going back is instant; older ones are let go
when nobody can be asking them any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from langchain_core.language_models import BaseChatModel
from sqlalchemy import Connection

from trimtab.domain.errors import Conflict, TrimtabError
from trimtab.domain.model import Profile
from trimtab.registry.registry import Registry, Version
from trimtab.store import versions
from trimtab.store.database import Database

_log = logging.getLogger(__name__)

ENOUGH_RATINGS = 20
"""Thumbs each version needs before a fall in them rolls back by itself."""


@dataclass(frozen=True)
class Voice:
    """A version ready to be asked."""

    version: str
    name: str
    model: BaseChatModel
    """With help for tools."""
    bare: BaseChatModel
    profile: Profile


class Base(Protocol):
    """The model as it was installed."""

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...


class Spoken(Protocol):
    @property
    def model(self) -> BaseChatModel: ...
    @property
    def bare(self) -> BaseChatModel: ...
    @property
    def profile(self) -> Profile: ...


class Speaker(Protocol):
    """What can answer with an adapter: a served model."""

    @property
    def base(self) -> Base | None:
        """None where the weights are not ours to know: a hosted model."""
        ...

    async def voice(self, version: str, adapter: Path | None, adapter_gguf: Path | None = None) -> Spoken:
        """The model with this adapter, loaded if it was not. Without one: the base."""
        ...

    async def release(self, version: str) -> None:
        """This version is not needed any more."""
        ...


class Versions:
    """One for an installation. `open` before the first question."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        speaker: Speaker | None,
        given: Voice,
        *,
        warm: Callable[[BaseChatModel], None] = lambda model: None,
        longest_turn: float = 600.0,
    ) -> None:
        self.database = database
        self.registry = registry
        self._speaker = speaker
        self._given = given
        self._warm = warm
        self._voices: dict[str, Voice] = {}
        self._asking: set[asyncio.Event] = set()
        """Set when whoever asks outside of a turn has finished."""
        self._asked_at: dict[str, float] = {}
        """When each voice was last handed out, by the monotonic clock."""
        self.longest_turn = longest_turn
        """Seconds after which nobody asks a voice that was handed out to them."""
        self._now: Mapping[str, Any] = {}
        self._changing = asyncio.Lock()
        self._loading = asyncio.Lock()
        self.fault = ""
        """Why the version that should answer does not; empty when it does."""

    @property
    def adaptable(self) -> bool:
        """Whether versions other than the base can answer here."""
        return self._speaker is not None and self._speaker.base is not None

    @property
    def loaded(self) -> frozenset[str]:
        """The versions that are ready to be asked."""
        return frozenset(self._voices)

    async def open(self) -> None:
        """Make the base known and the serving version ready. A version whose files are damaged does not answer: the
        base does, and `fault` says why."""
        await asyncio.to_thread(self.registry.tidy)
        if not self.adaptable:
            await asyncio.to_thread(self._warm, self._given.model)
            return
        base = self._base()
        await self.database.write(
            versions.ensure_base, base_id(base), base.name, {"base": base.name, "base_sha256": base.sha256}, base.sha256
        )
        self._voices[base_id(base)] = await self._made(base_id(base), base.name, None)
        await self.refresh()

    async def refresh(self) -> None:
        """Follow what the database says: another process may have promoted. Lets go of what is not needed any more."""
        if not self.adaptable:
            return
        async with self._changing:
            now = await self.database.read(versions.current)
            if now != self._now:
                self.fault = ""
                for wanted in (now["version_id"], now["canary_id"]):
                    if wanted:
                        await self._ready(wanted)
                self._now = now
            await self._let_go()

    def voice(self, thread_id: str | None = None) -> Voice:
        """Who answers in this thread. A canary gets its share of the threads, the same ones each time; it answers
        nobody outside of threads."""
        now = self._now
        if not now:
            return self._given
        canary = now["canary_id"]
        if thread_id and canary in self._voices and _share_of(thread_id) < now["canary_share"]:
            return self._handed_out(self._voices[canary])
        return self._handed_out(self._voices.get(now["version_id"]) or self._voices[base_id(self._base())])

    async def promote(self, version: str, *, by: str, reason: str = "", anyway: bool = False) -> dict[str, Any]:
        """Let a version answer from the next turn on.

        Raises:
            NotFound, Conflict: see `store.versions.promote`; also when the adapter fits another base.
            ModelFileError: its files are missing or were changed.
        """
        await self._check(version)
        done = await self.database.write(versions.promote, version, by=by, reason=reason, anyway=anyway)
        await self.refresh()
        return done

    async def roll_back(self, *, by: str, reason: str = "") -> dict[str, Any]:
        """Let the version before answer again, from the next turn on."""
        before = (await self.database.read(versions.current))["previous_id"]
        if before:
            await self._check(before)
        done = await self.database.write(versions.roll_back, by=by, reason=reason)
        await self.refresh()
        return done

    async def canary(self, version: str | None, share: float, *, by: str, reason: str = "") -> None:
        """Let a version answer a share of the threads; None ends it."""
        if version is not None:
            await self._check(version)
        await self.database.write(versions.set_canary, version, share, by=by, reason=reason)
        await self.refresh()

    async def watch_ratings(self) -> str:
        """Go back by itself when people like the serving version surely less than the one before. Returns why, or
        nothing."""
        if not self._now or not self._now["previous_id"]:
            return ""

        def roll_back(connection: Connection) -> str:
            reason = _why_go(connection)  # once more: somebody may have changed it since
            if reason:
                versions.roll_back(connection, by="trimtab", reason=reason, action=versions.AUTO_ROLLBACK)
            return reason

        # Counting thumbs reads all of them: nobody who writes waits for that unless there is something to do.
        reason = await self.database.read(_why_go) and await self.database.write(roll_back)
        if reason:
            _log.warning("rolled back: %s", reason)
            await self.refresh()
        return reason

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """For whoever asks a voice outside of a turn: what it speaks through is not stopped before this ends."""
        ended = asyncio.Event()
        self._asking.add(ended)
        try:
            yield
        finally:
            self._asking.discard(ended)
            ended.set()

    def asked_now(self) -> list[asyncio.Event]:
        """Who is asking outside of a turn: one for each, set when it has finished."""
        return list(self._asking)

    @property
    def adapters(self) -> int:
        """How many adapters whoever speaks must have loaded."""
        return len(self._needed() & set(self._voices)) - 1 if self.adaptable and self._now else 0

    async def speak_through(self, speaker: Speaker, keep: Callable[[], Awaitable[object]]) -> Speaker:
        """Let all versions speak through another engine with the same base, from the next question on. Returns the one
        before, which those that are being answered still ask.

        Args:
            keep: called when all that serves is loaded; when it raises, nothing has changed.

        Raises:
            Conflict: it has another base.
            InvalidInput, EngineError: it cannot take an adapter that serves.
        """
        async with self._changing, self._loading:
            old, base = self._speaker, self._base()
            if old is None or speaker.base is None or speaker.base.sha256 != base.sha256:
                raise Conflict(f"{base.name} is served, and that is another model. Start Trimtab with it to use it.")
            voices: dict[str, Voice] = {}
            for version_id in self._needed() & set(self._voices):
                row = await self.database.read(versions.get, version_id)
                voices[version_id] = await self._made(row["id"], row["name"], await self._files(row), speaker)
            await keep()
            self._speaker, self._voices = speaker, voices
            self._asked_at = dict.fromkeys(voices, time.monotonic())
            return old

    async def answer_of(self, version: str) -> Voice:
        """A version to compare with, whether or not it serves."""
        row = await self._check(version)
        return await self._ready_voice(row)

    # ------------------------------------------------------------------ inside

    def _base(self) -> Base:
        if self._speaker is None or self._speaker.base is None:
            raise Conflict("This model's weights are not on this machine, so no other version of it can answer here.")
        return self._speaker.base

    async def _check(self, version: str) -> dict[str, Any]:
        """The version's row, if it could answer here."""
        base = self._base()
        row = await self.database.read(versions.get, version)
        if row["manifest"].get("base_sha256") != base.sha256:
            raise Conflict(
                f"{row['name']} was trained on {row['manifest'].get('base')}, and {base.name} is served. Start Trimtab "
                "with that model to use it."
            )
        await self._ready_voice(row)
        return row

    async def _ready(self, version_id: str) -> None:
        """Load a version; what cannot be loaded is a fault, and the base answers."""
        try:
            await self._ready_voice(await self.database.read(versions.get, version_id))
        except TrimtabError as error:
            self.fault = (
                f"Version {version_id} cannot answer, so the model as installed does. {error.message} To mend it: "
                "trimtab models rollback, or promote another version."
            )
            _log.error("%s", self.fault)

    async def _ready_voice(self, row: Mapping[str, Any]) -> Voice:
        async with self._loading:  # two that want the same version at once must not load it twice
            found = self._voices.get(row["id"])
            if found is None:
                found = self._voices[row["id"]] = await self._made(row["id"], row["name"], await self._files(row))
            return self._handed_out(found)

    def _handed_out(self, voice: Voice) -> Voice:
        self._asked_at[voice.version] = time.monotonic()
        return voice

    async def _let_go(self) -> None:
        """Release what neither serves nor may serve again at once, if it was handed out so long ago that whoever got
        it has finished."""
        assert self._speaker is not None
        needed, before = self._needed(), time.monotonic() - self.longest_turn
        for version in [v for v in self._voices if v not in needed and self._asked_at[v] < before]:
            del self._voices[version], self._asked_at[version]
            await self._speaker.release(version)

    def _needed(self) -> set[str]:
        """The base, what serves, what may serve again at once, and what is tried."""
        return {base_id(self._base()), *(self._now[name] for name in ("version_id", "previous_id", "canary_id"))}

    async def _files(self, row: Mapping[str, Any]) -> Version | None:
        """Raises ModelFileError when they are missing or were changed; None for the base."""
        return None if row["kind"] == "base" else await asyncio.to_thread(self.registry.verified, row["id"])

    async def _made(self, version_id: str, name: str, version: Version | None, speaker: Speaker | None = None) -> Voice:
        speaker = speaker or self._speaker
        assert speaker is not None
        adapter, as_gguf = (version.adapter, version.adapter_gguf) if version else (None, None)
        spoken = await speaker.voice(version_id, adapter, as_gguf)
        await asyncio.to_thread(self._warm, spoken.model)
        return Voice(version_id, name, spoken.model, spoken.bare, spoken.profile)


def base_id(base: Base) -> str:
    return f"base_{base.sha256[:24]}"


def _share_of(thread_id: str) -> float:
    """A number in [0, 1) that a thread keeps."""
    return int.from_bytes(hashlib.sha256(thread_id.encode()).digest()[:8]) / 2**64


def _why_go(connection: Connection) -> str:
    """Why the serving version should make way for the one before; empty when it should not."""
    now = versions.current(connection)
    if not now["previous_id"] or versions.history(connection, 1)[0]["action"] != "promote":
        return ""  # somebody rolled back by hand: what they want stands
    return _fallen(versions.ratings(connection, now["version_id"]), versions.ratings(connection, now["previous_id"]))


def _fallen(new: tuple[int, int], old: tuple[int, int]) -> str:
    """Why the new version should go, by (ups, thumbs) of both: the 95 % intervals of their shares lie apart."""
    if min(new[1], old[1]) < ENOUGH_RATINGS:
        return ""
    from trimtab.align.statistics import wilson

    now, before = wilson(*new), wilson(*old)
    if now.high >= before.low:
        return ""
    return f"{now.mean:.0%} of {new[1]} ratings were up, and {before.mean:.0%} of {old[1]} for the version before"
