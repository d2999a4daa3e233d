"""From one form of the served model to another while people are being answered: applying a plan, and taking it back.

The new engine is started beside the old one and takes over all versions that answer; only then is it written down that
the plan is in force, and new questions go to it. Whoever was being answered is answered to the end by the old one,
which is stopped after the last of them. Whatever fails before that leaves everything as it was. What was written down
last is what the next start serves, unless its settings name a `variant`, another model or a server elsewhere.

Where several processes share a database, the others follow at their next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from trimtab.deploy.machine import free_memory
from trimtab.deploy.plan import Deployment, Targets
from trimtab.deploy.variant import variant
from trimtab.domain.errors import Conflict, ImpossibleBudget, InvalidInput, ModelFileError
from trimtab.orchestrator.runner import Runner
from trimtab.settings import Settings
from trimtab.store import changeovers
from trimtab.store.database import Database
from trimtab.versions import Versions

if TYPE_CHECKING:
    from trimtab.llm.engine import Engine
    from trimtab.llm.served import Served

_log = logging.getLogger(__name__)

STATE = ("variant", "context", "parallel", "threads", "batch")
"""The settings that a plan decides."""
MB = 1_000_000

Start = Callable[[Settings], Awaitable["Served"]]


class Changeover:
    """One for an installation whose model runs on this machine.

    Args:
        settings: as they were given, without any plan that was applied.
        now: as they are in force.
        start: brings up an engine for settings.
        changed: hears of the model that is served from now on.
        engine: the one that serves now.
        free: bytes of memory that can be had; 0 when nobody says.
    """

    def __init__(
        self,
        settings: Settings,
        now: Settings,
        database: Database,
        versions: Versions,
        runner: Runner,
        start: Start,
        changed: Callable[[Served], None],
        engine: Callable[[], Engine | None],
        *,
        free: Callable[[], int] = free_memory,
    ) -> None:
        self._given, self._now = settings, now
        self._database, self._versions, self._runner = database, versions, runner
        self._start, self._changed, self.served, self.free = start, changed, engine, free
        self._served: Served | None = None
        """What was started here; None while that serves which was started with everything else."""
        self._one = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def leaving(self) -> int:
        """Engines that serve only those who were being answered when another took over."""
        return len(self._leaving)

    @property
    def settings(self) -> Settings:
        """What is served, as settings."""
        return self._now

    @property
    def variant(self) -> str:
        """What is served, by the name that plans know it by; empty where it is served elsewhere."""
        engine = self.served() if self._versions.adaptable else None
        return served_name(self._now, engine.kind) if engine is not None else ""

    async def apply(self, plan: Deployment, *, by: str, reason: str = "") -> dict[str, Any]:
        """Serve what a plan has chosen, from the next question on. Returns what is written down about it.

        Raises:
            InvalidInput: nothing is chosen in it, or a setting says otherwise.
            Conflict: it is for another model, is served already, or another change is under way.
            ImpossibleBudget: this machine lacks what it demands, or has no room for both engines.
            ModelFileError, EngineError: the variant is damaged or does not start; the old one serves on.
        """
        return await self._alone(self._apply(plan, by, reason))

    async def undo(self, *, by: str, reason: str = "") -> dict[str, Any]:
        """Serve what was served before the last change. Done twice, it is as it was. Raises as `apply` does."""
        return await self._alone(self._undo(by, reason))

    async def aclose(self) -> None:
        for task in list(self._leaving):
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        if self._served is not None:
            await self._served.aclose()

    # ------------------------------------------------------------------ inside

    async def _alone(self, work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
        # Shielded: whoever asked may hang up, and an engine that was started must be put to use or stopped.
        task = asyncio.ensure_future(self._locked(work))
        return await asyncio.shield(task)

    async def _locked(self, work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
        async with self._one:
            return await work

    async def _apply(self, plan: Deployment, by: str, reason: str) -> dict[str, Any]:
        self._ensure_ours()
        line = await asyncio.to_thread(applied, self._given, plan, state_of(self._now), self.variant)
        last = await self._database.read(changeovers.latest)
        return await self._change(line | {"by": by, "reason": reason}, last["seq"] if last else 0)

    async def _undo(self, by: str, reason: str) -> dict[str, Any]:
        self._ensure_ours()
        line, seq = await self._database.read(undone, self._given, self._now)
        await asyncio.to_thread(_prepare, self._given, line["after"])
        return await self._change(line | {"by": by, "reason": reason}, seq)

    def _ensure_ours(self) -> None:
        if not self._versions.adaptable:
            raise Conflict("This model is served elsewhere, so there is no variant of it to choose here.")

    async def _change(self, line: dict[str, Any], seq: int) -> dict[str, Any]:
        wanted = with_state(self._given, line["after"])
        _ensure_change(line, wanted, self._now)
        _ensure_same_model(line)
        await asyncio.to_thread(self._ensure_room, wanted, line["after_variant"])
        served = await self._start(wanted)
        kept: list[dict[str, Any]] = []

        async def keep() -> None:
            kept.append(await self._database.write(changeovers.keep, line, after=seq))

        try:
            old = await self._versions.speak_through(served, keep)
        except BaseException:
            await served.aclose()
            raise
        self._now, self._served = wanted, served
        self._changed(served)
        self._see_off(old)
        return kept[0]

    def _ensure_room(self, wanted: Settings, name: str) -> None:
        free, needed = self.free(), memory_of(wanted, name)
        if name.startswith("llamacpp/"):
            needed *= 1 + self._versions.adapters  # llama.cpp has an engine for each
        if free and needed > free:
            raise ImpossibleBudget(
                f"{name} needs {needed / MB:.0f} MB beside what is served now, until the last answer of that is "
                f"written, and {free / MB:.0f} MB are free. Free some, or stop Trimtab and start it with the plan: "
                "trimtab up --plan deployment.toml",
                needed_mb=round(needed / MB),
                free_mb=round(free / MB),
            )

    def _see_off(self, old: Any) -> None:
        """Stop an engine when nobody is being answered any more who was when another took over."""
        turns, others = self._runner.under_way(), self._versions.asked_now()
        task = asyncio.create_task(self._stopped_after(old, turns, others), name="stop the engine before")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _stopped_after(self, old: Any, turns: set[asyncio.Task[None]], others: list[asyncio.Event]) -> None:
        try:
            if turns:
                await asyncio.wait(turns)
            for other in others:
                await other.wait()
        finally:
            await old.aclose()


# ---------------------------------------------------------------------- what is in force, as settings


def state_of(settings: Settings) -> dict[str, Any]:
    """What a plan decides, as these settings have it; empty when they name no variant."""
    return {name: getattr(settings, name) for name in STATE} if settings.variant else {}


def with_state(settings: Settings, state: Mapping[str, Any]) -> Settings:
    """Settings with that in force; an empty state leaves them to themselves."""
    return settings.model_copy(update=dict(state))


def in_force(settings: Settings, last: Mapping[str, Any] | None) -> Settings:
    """What a start with these settings serves, after what was applied last.

    Raises:
        InvalidInput: the setting `engine` names another engine than the plan in force.
    """
    if not last or not last["after"] or settings.variant or settings.base_url or settings.model != last["model"]:
        return settings
    _ensure_engine(settings, last["after_variant"])
    return with_state(settings, last["after"])


def prepare(settings: Settings) -> None:
    """See that the variant in force is whole, before an engine is spent on it.

    Raises:
        ModelFileError: it is damaged, or cannot be written.
    """
    try:
        _prepare(settings, state_of(settings))
    except ModelFileError as error:
        raise ModelFileError(f"{error.message} Or go back to what was served before: trimtab plan undo") from error


def served_name(settings: Settings, engine: str) -> str:
    """The variant that these settings serve, by the name that plans know it by."""
    if settings.variant:
        return settings.variant
    return "openvino/int8" if engine == "openvino" else "llamacpp/q8_0"


def memory_of(settings: Settings, name: str) -> int:
    """Bytes that an engine takes: measured, where it was, else estimated."""
    from trimtab.deployment import Deploying

    targets = Targets(users=settings.parallel, context=settings.context)
    plan = Deployment(model=settings.model, targets=targets)
    return Deploying(settings, plan).fits((variant(name),))[0].memory


def applied(settings: Settings, plan: Deployment, before: Mapping[str, Any], serves: str) -> dict[str, Any]:
    """What is to be written down when a plan is put in force, its variant written and whole.

    Args:
        before, serves: what is served until then.

    Raises: as `Changeover.apply` does.
    """
    from trimtab.deployment import Deploying

    if settings.base_url:
        raise Conflict("This model is served elsewhere, so there is no variant of it to choose here.")
    if _weights(settings, plan.model) != _weights(settings, settings.model):
        raise Conflict(
            f"The plan is for the model {plan.model}, and {settings.model} is served. Set `model` to that one, or "
            "start Trimtab with the plan: trimtab up --plan deployment.toml"
        )
    if plan.chosen.variant is not None:
        _ensure_engine(settings, plan.chosen.variant.name)
    chosen = Deploying(settings, plan).chosen()
    after = with_state(settings, {name: chosen[name] for name in STATE})
    return {
        "action": changeovers.APPLY,
        "model": settings.model,
        "plan": plan.model_dump(mode="json"),
        "plan_digest": plan.digest,
        "before_variant": serves,
        "after_variant": after.variant,
        "before": dict(before),
        "after": state_of(after),
    }


def undone(connection: Connection, settings: Settings, now: Settings) -> tuple[dict[str, Any], int]:
    """What is to be written down when the last change is taken back, and that one's number.

    Raises:
        Conflict: nothing was applied, or it was for another model.
    """
    last = changeovers.latest(connection)
    if last is None:
        raise Conflict("No plan was applied here, so there is nothing to take back.")
    if last["model"] != settings.model:
        raise Conflict(f"The last plan was for the model {last['model']}, and {settings.model} is served.")
    line = {
        "action": changeovers.UNDO,
        "model": settings.model,
        "before_variant": last["after_variant"],
        "after_variant": last["before_variant"],
        "before": state_of(now),
        "after": last["before"],
    }
    return line | changeovers.plan_before(connection, last["before"]), last["seq"]


def apply_at_rest(database: Database, settings: Settings, plan: Deployment, *, by: str, reason: str) -> dict[str, Any]:
    """Put a plan in force while Trimtab does not run: the next start serves it. Raises as `Changeover.apply` does."""
    last = database.read_sync(changeovers.latest)
    now = in_force(settings, last)
    engine = now.variant.partition("/")[0] or _engine(settings)
    line = applied(settings, plan, state_of(now), served_name(now, engine))
    _ensure_change(line, with_state(settings, line["after"]), now)
    return database.write_sync(changeovers.keep, line | {"by": by, "reason": reason}, after=last["seq"] if last else 0)


def undo_at_rest(database: Database, settings: Settings, *, by: str, reason: str) -> dict[str, Any]:
    """Take the last change back while Trimtab does not run. The variant is looked at when it is started."""
    last = database.read_sync(changeovers.latest)
    line, seq = database.read_sync(undone, settings, with_state(settings, last["after"] if last else {}))
    return database.write_sync(changeovers.keep, line | {"by": by, "reason": reason}, after=seq)


def _engine(settings: Settings) -> str:
    """The engine that the next start would take."""
    from trimtab.llm.served import engine_for
    from trimtab.own_models import serving_options

    return engine_for(_weights(settings, settings.model), serving_options(settings)).engine


def _ensure_same_model(line: Mapping[str, Any]) -> None:
    """Versions are of one model: a student has none of those that answer now."""
    before, after = (variant(str(line[name])).student for name in ("before_variant", "after_variant"))
    if before != after:
        raise Conflict(
            f"{line['after_variant']} is another model than {line['before_variant']}, which the versions that answer "
            "are made of. Stop Trimtab and apply it then, or start with the plan: trimtab up --plan deployment.toml"
        )


def _ensure_change(line: Mapping[str, Any], wanted: Settings, now: Settings) -> None:
    if state_of(wanted) == state_of(now):
        raise Conflict(f"{line['after_variant']} is served like that already.")


def _ensure_engine(settings: Settings, name: str) -> None:
    if settings.engine not in ("auto", name.partition("/")[0]):
        raise InvalidInput(
            f"The plan in force serves {name}, and the setting `engine` says {settings.engine}. Set `engine` to auto, "
            "or take the plan back: trimtab plan undo"
        )


def _prepare(settings: Settings, state: Mapping[str, Any]) -> None:
    from trimtab.variants import Variants

    if state:
        Variants(settings.model, settings.models_dir, settings.home / "variants").prepare(variant(state["variant"]))


def _weights(settings: Settings, model: str) -> Any:
    """The file of a model; its name where it has none here."""
    from trimtab.llm.catalogue import DEFAULT_CHAT
    from trimtab.llm.served import is_hosted
    from trimtab.llm.shelf import resolve_model

    return (
        model if is_hosted(model) else resolve_model(DEFAULT_CHAT if model == "default" else model, settings.models_dir)
    )
