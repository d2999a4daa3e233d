"""The composition root: the only place that knows every wing.

`Trimtab` holds one of each part and offers what the faces need: post a question, follow its events, stop it, decide
an approval. The HTTP API is a thin layer over it, and so is using Trimtab from Python:

    async with Trimtab.open() as trimtab:
        async for event in trimtab.ask("What is 15% of 80?"):
            print(event)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool
from sqlalchemy import Connection

from trimtab.align.jobs import Jobs
from trimtab.auditing import Audit
from trimtab.changeover import Changeover, in_force, prepare
from trimtab.connect.standing import read_only
from trimtab.connect.toolbox import Toolbox
from trimtab.domain import events as ev
from trimtab.domain.errors import InvalidInput, NotFound, TooLarge, TrimtabError
from trimtab.domain.model import Embedder, Profile
from trimtab.domain.ownership import FolderLock
from trimtab.domain.tool import Effect, ToolInfo
from trimtab.gathering import Reading
from trimtab.orchestrator.best_of import MOST
from trimtab.orchestrator.calls import Toolset
from trimtab.orchestrator.event_writer import Written
from trimtab.orchestrator.hub import Hub, Logged
from trimtab.orchestrator.policy import Wish
from trimtab.orchestrator.runner import Runner
from trimtab.orchestrator.shortlist import Shortlist
from trimtab.orchestrator.state import Turn
from trimtab.orchestrator.turn import Limits, Orchestrator, Search
from trimtab.own_connectors import open_imports, open_servers, open_toolbox
from trimtab.own_database import LOCAL_USER, open_database
from trimtab.own_models import open_embedder, open_library_on, serving_options
from trimtab.registry.registry import Registry
from trimtab.replays import Replays
from trimtab.reward import RewardModels
from trimtab.second_answers import SecondAnswers
from trimtab.settings import Settings
from trimtab.store import changeovers, consents, people, runners, threads, turns
from trimtab.store.database import Database
from trimtab.store.encoding import whole
from trimtab.store.history import Histories
from trimtab.store.once import forget_old, once
from trimtab.training import Trainings
from trimtab.versions import Versions, Voice

if TYPE_CHECKING:
    from trimtab.llm.served import Served
    from trimtab.retrieval.library import Library

_log = logging.getLogger(__name__)

SWEEP_SECONDS = 30.0
STOP_SECONDS = 0.5
"""How often a process looks whether another was asked to stop one of its turns."""


@dataclass(frozen=True)
class Ask:
    """How one question is to be answered."""

    documents: str = "auto"
    """``auto`` (when they help), ``only`` (nothing else), ``off``."""
    tools: bool = True
    can_approve: bool = True
    best_of: int | None = None
    """Answers to write, of which the best by the reward model is given; None is the setting, where there is one."""
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def stored(self) -> dict[str, Any]:
        several = {"best_of": self.best_of} if self.best_of is not None else {}
        asked = {"documents": self.documents, "tools": self.tools, "can_approve": self.can_approve}
        return {**asked, **several, **self.sampling}


class StoredLog:
    """The orchestrator's `Log` over our database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, turn: Mapping[str, Any], batch: Sequence[ev.Event]) -> asyncio.Future[Written]:
        return self._database.submit(self._append, turn, batch)

    def _append(self, connection: Connection, turn: Mapping[str, Any], batch: Sequence[ev.Event]) -> Written:
        if self._database.shared:
            turns.ensure_owned(connection, turn)
        return turns.append(connection, turn, batch)

    async def events(self, turn_id: str, after: int = 0) -> Written:
        return await self._database.read(turns.log, turn_id, after=after, limit=100_000)

    async def wait_if_undecided(self, turn: Mapping[str, Any]) -> bool:
        return await self._database.write(self._wait_if_undecided, turn)

    def _wait_if_undecided(self, connection: Connection, turn: Mapping[str, Any]) -> bool:
        if self._database.shared:
            turns.ensure_owned(connection, turn)
        return turns.wait_if_undecided(connection, turn["id"])


class Permits:
    """The orchestrator's `Policy`: badges as the toolbox sees them, and what people have remembered."""

    def __init__(self, database: Database, toolbox: Toolbox) -> None:
        self._database = database
        self._toolbox = toolbox

    async def refusal(self, info: ToolInfo) -> str:
        if info.effect is Effect.READ:
            return ""
        try:
            status = await asyncio.to_thread(self._toolbox.connector, info.connector)
        except NotFound:  # a tool of the caller's own, which no connector stands behind
            return ""
        if status.standing.vouched:
            return ""
        dotted = next((tool.name for tool in status.tools if tool.info.name == info.name), info.name)
        return read_only(status.name, dotted, info.effect, status.standing).message

    async def remembered(self, wish: Wish) -> str:
        call = consents.Asked(wish.connector, wish.tool, wish.definition, wish.arguments)
        return await self._database.write(
            consents.claim, wish.owner, call, turn=wish.turn, tainted=wish.tainted, used=wish.used
        )


class Trimtab:
    """One running installation. Make it with `Trimtab.open`."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        model: BaseChatModel,
        profile: Profile,
        *,
        toolbox: Toolbox,
        library: Library | None = None,
        embedder: Embedder | None = None,
        served: Served | None = None,
        search: Search | None = None,
        given: Settings | None = None,
    ) -> None:
        self.settings = settings
        self.database = database
        self.model = model
        self.profile = profile
        self.toolbox = toolbox
        self.mcp = open_servers(settings, toolbox)
        self.imports = open_imports(settings, toolbox)
        self.library = library
        self.embedder = embedder
        self.served = served
        search = search or _within(library, settings.collections)
        self.hub = Hub()
        self.audit = Audit(database)
        self._histories = Histories()
        self.rewards = RewardModels(Jobs(settings.jobs_dir), database, settings.logs_dir)
        self.orchestrator = Orchestrator(
            model,
            profile,
            tools=self.tools,
            search=search,
            count_tokens=served.count if served else None,
            limits=Limits(
                steps=settings.tool_steps,
                passages=settings.passages,
                passage_floor=settings.passage_floor,
                sentence_floor=settings.sentence_floor,
                approval_seconds=settings.approval_hours * 3600,
                deadline=settings.turn_seconds,
            ),
            prefer=self.rewards,
            policy=Permits(database, toolbox),
            shortlist=Shortlist(embedder),
        )
        self.runner = Runner(self.orchestrator, StoredLog(database), self.hub)
        voice = Voice("", profile.name, model, served.bare if served else model, profile)
        registry = Registry(settings.versions_dir)
        # Twice the longest turn: a comparison of versions is no turn and has no deadline of its own.
        self.versions = Versions(
            database, registry, served, voice, warm=self._warm, longest_turn=2 * settings.turn_seconds
        )
        self.changeover = Changeover(
            given or settings, settings, database, self.versions, self.runner, self._served_anew, self._serve_through,
            lambda: self.served.engine if self.served else None,
        )  # fmt: skip
        self.trainings = Trainings(settings, database, registry)
        self.planning = self.trainings.planning
        reading = Reading(self.profile, self.orchestrator.count)
        self.second_answers = SecondAnswers(database, self.versions, reading, lambda: self.runner.running > 0)
        self.replays = Replays(database, self.versions, search)
        self._answering_again: asyncio.Task[int] | None = None
        self._orchestrators: dict[str, Orchestrator] = {"": self.orchestrator}
        self.owner = database.write_sync(people.ensure_user, LOCAL_USER)
        self._sweeper: asyncio.Task[None] | None = None
        self._heart: asyncio.Task[None] | None = None
        self._taking_up: dict[str, asyncio.Task[None]] = {}
        """Turns whose row says running and whose task is about to begin: neither stuck nor to be stopped yet."""

    # ------------------------------------------------------------------ opening and closing

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings | None = None,
        *,
        model: BaseChatModel | None = None,
        profile: Profile | None = None,
        toolbox: Toolbox | None = None,
        retrieval: bool = True,
    ) -> AsyncIterator[Trimtab]:
        """Start every part, and stop them again at the end.

        With `model` no engine is started: that model is used (a `ScriptedModel` in tests, or any LangChain chat
        model). `retrieval=False` leaves the document library closed.

        Raises:
            ModelFileError: a model file is missing or damaged; the message says how to fetch it.
            Unavailable: another process owns the library or the database.
        """
        settings = settings or Settings.load()
        async with contextlib.AsyncExitStack() as stack:
            database = await asyncio.to_thread(open_database, settings)
            stack.callback(database.close)
            if not database.shared:
                # Two processes over one SQLite file would each take the other's running turns for abandoned.
                stack.callback(FolderLock(settings.home, "Trimtab's data").release)
            library: Library | None = None
            embedder: Embedder | None = None
            if not retrieval and model is None:
                embedder = await asyncio.to_thread(open_embedder, settings)
            if retrieval:
                opened = await asyncio.to_thread(open_library_on, settings, database)
                library, embedder = opened
                stack.callback(opened[0].close)
                stack.callback(opened[1].close)
            served, given = None, settings
            if model is None:
                from trimtab.llm.served import serve

                settings = in_force(settings, await database.read(changeovers.latest))
                if settings is not given:
                    await asyncio.to_thread(prepare, settings)
                served = await serve(serving_options(settings), embedder)
                stack.push_async_callback(served.aclose)
                model, profile = served.model, served.profile
            toolbox = toolbox or open_toolbox(settings)
            stack.push_async_callback(toolbox.aclose)
            self = cls(
                settings,
                database,
                model,
                profile or Profile(name="given model", tools="native", grounding="write"),
                toolbox=toolbox,
                library=library,
                embedder=embedder,
                served=served,
                given=given,
            )
            stack.push_async_callback(self.changeover.aclose)
            stack.push_async_callback(self._stop)
            await self._start()
            yield self

    async def _served_anew(self, settings: Settings) -> Served:
        from trimtab.llm.served import serve

        return await serve(serving_options(settings), self.embedder)

    def _serve_through(self, served: Served) -> None:
        self.served, self.model, self.profile = served, served.model, served.profile

    async def _start(self) -> None:
        await self._close_abandoned()
        self.rewards.open()
        await self.versions.open()
        await self.database.write(forget_old)
        self._sweeper = asyncio.create_task(self._sweep(), name="expire approvals")
        if self.database.shared:
            self._heart = asyncio.create_task(self._beat(), name="say that we are alive")

    async def _stop(self) -> None:
        await _ended(self._sweeper)
        await _ended(self._answering_again)
        await self.runner.close()
        await self.rewards.aclose()
        await _ended(self._heart)  # only now: while turns were ending this process was alive
        if self.database.shared:
            with contextlib.suppress(TrimtabError):
                await self.database.write(runners.leave, self.runner.id)

    async def _close_abandoned(self) -> None:
        """Mark the turns as interrupted whose process is gone. On SQLite that is every process but this one."""

        def close(connection: Connection) -> list[str]:
            if not self.database.shared:
                return turns.interrupt_abandoned(connection, [self.runner.id])
            runners.beat(connection, self.runner.id)
            return turns.interrupt_abandoned(connection, runners.alive(connection))

        if closed := await self.database.write(close):
            _log.warning("%d turns were cut off when Trimtab last stopped; they are marked as interrupted", len(closed))

    async def _beat(self) -> None:
        """Where processes share a database: say that this one is alive, and stop what others were asked to stop."""
        last = 0.0
        while True:
            await asyncio.sleep(STOP_SECONDS)
            try:
                if time.monotonic() - last >= runners.BEAT_SECONDS:
                    last = time.monotonic()
                    await self.database.write(runners.beat, self.runner.id)
                if mine := self.runner.turns():
                    unwanted = await self.database.read(turns.to_stop, mine)
                    await asyncio.gather(*(self.runner.cancel(turn_id) for turn_id in unwanted))
            except Exception:
                _log.exception("could not tell the database that this process is alive; trying again")

    async def _sweep(self) -> None:
        while True:
            try:
                if self.database.shared:
                    await self._close_abandoned()
                await self.versions.refresh()
                await self.versions.watch_ratings()
                if self._answering_again is None or self._answering_again.done():
                    self._answering_again = asyncio.create_task(self.second_answers.go_on(), name="answer again")
                await self.database.write(turns.expire)
                ours = [*self.runner.turns(), *self._taking_up]
                await self.database.write(turns.close_orphans, self.runner.id, ours)
                for turn in await self.database.read(turns.decided):
                    await self._publish(turn)
                    await self._go_on(turn)
            except Exception:
                _log.exception("could not expire approvals; trying again in %g s", SWEEP_SECONDS)
            await asyncio.sleep(SWEEP_SECONDS)

    # ------------------------------------------------------------------ conversation

    def tools(self) -> Sequence[BaseTool]:
        """What the assistant may call now."""
        return self.toolbox.tools()

    def _warm(self, model: BaseChatModel) -> None:
        """Do ahead what the first question to a model would otherwise wait for."""
        if warm := getattr(model, "warm", None):
            warm(self.tools())
        if self.profile.tools == "native" and self.orchestrator.shortlist is not None:
            self.orchestrator.shortlist.warm(self.tools())

    def speaking(self, thread_id: str | None = None) -> Orchestrator:
        """The orchestrator with the version of the model that answers in this thread."""
        voice = self.versions.voice(thread_id)
        known = self._orchestrators.get(voice.version)
        if known is None or known.model is not voice.model:
            known = self._orchestrators[voice.version] = self.orchestrator.speaking(voice.model, voice.profile)
        return known

    async def ask(
        self, question: str, *, thread: str | None = None, owner: str | None = None, how: Ask = Ask()
    ) -> AsyncGenerator[ev.Event, None]:
        """Ask and follow: the turn's events as they happen. Without `thread` a new one is made."""
        owner = owner or self.owner
        if thread is None:
            thread = (await self.database.write(threads.create, owner))["id"]
        with self.hub.watch(thread) as watcher:  # from before the turn begins, so that nothing needs to be read back
            row = await self.post(owner, thread, question, how=how)
            async for _, _, wire in self.runner.tail(row["id"], watcher=watcher):
                yield ev.from_wire(wire)

    async def post(
        self,
        owner: str,
        thread_id: str,
        text: str,
        *,
        how: Ask = Ask(),
        parent: str | None = None,
        key: str | None = None,
    ) -> dict[str, Any]:
        """Store a question and start answering it. It is on disk when this returns the turn.

        Raises:
            Conflict: the thread is still answering, or `key` was used for something else.
            MissingExtra, NotFound: several answers are to be compared, and there is no reward model for it.
        """
        text = whole(text)
        self._check_text(text)
        self.runner.ensure_room()
        how = await self.several(how)
        options = how.stored()

        def start(connection: Connection) -> dict[str, Any]:
            return turns.start(
                connection, owner, thread_id, text, runner=self.runner.id, options=options, parent=parent
            )

        return await self._open_turn(owner, key, ["turn", thread_id, text, parent, options], start, how)

    async def regenerate(
        self, owner: str, message_id: str, *, how: Ask | None = None, key: str | None = None
    ) -> dict[str, Any]:
        """Another answer to the question that `message_id` answers, asked as before unless `how` says otherwise."""
        self.runner.ensure_room()
        asked = how if how is not None else await self.database.read(_how_of_message, owner, message_id)
        asked = await self.several(asked)
        options = asked.stored()

        def start(connection: Connection) -> dict[str, Any]:
            return turns.regenerate(connection, owner, message_id, runner=self.runner.id, options=options)

        return await self._open_turn(owner, key, ["regenerate", message_id, options], start, asked)

    async def several(self, how: Ask) -> Ask:
        """`how`, with as many answers as will be compared.

        Raises:
            InvalidInput, MissingExtra, NotFound: so many were asked for, and that cannot be.
        """
        if how.best_of is None:
            wanted = self.settings.best_of
            there = wanted > 1 and (await self.rewards.about())["available"]
            return replace(how, best_of=wanted) if there else how
        if not 1 <= how.best_of <= MOST:
            raise InvalidInput(f"The best of 1 to {MOST} answers can be given, not of {how.best_of}.")
        if how.best_of > 1:
            await self.rewards.ensure()
        return how

    async def decide(
        self,
        owner: str,
        approval_id: str,
        decision: str,
        *,
        digest: str,
        arguments: Mapping[str, Any] | None = None,
        remember: consents.Remember | None = None,
    ) -> dict[str, Any]:
        """Approve or reject a call that waits; the turn goes on. Returns the turn.

        With `remember` calls like it run unasked from now on, as far as `store.consents` says.

        Raises:
            Conflict, NotFound: it was decided, has expired, is not what was shown, or is somebody else's.
            InvalidInput: the arguments do not fit, or it cannot be remembered like this.
        """
        if decision not in ("approve", "reject"):
            raise InvalidInput(f"A decision is 'approve' or 'reject', not {decision!r}.")
        if remember is not None and decision != "approve":
            raise InvalidInput("Only an approval can be remembered.")
        definition = ""
        if arguments is not None or remember is not None:
            pending = await self.database.read(turns.approval, owner, approval_id)
            toolset = Toolset(self.tools())
            if arguments is not None and (fault := toolset.fault(pending["tool"], arguments)):
                raise InvalidInput(fault)
            definition = toolset.definition(pending["tool"])
        turn = await self.database.write(
            turns.decide,
            owner,
            approval_id,
            decision,
            digest=digest,
            arguments=arguments,
            remember=remember,
            definition=definition,
        )
        await self._publish(turn)
        await self._go_on(turn)
        return await self.database.read(turns.get, owner, turn["id"])

    async def approvals(self, owner: str | None = None) -> list[dict[str, Any]]:
        """Calls that wait for this person, each with the `digest` that `decide` wants."""
        return await self.database.read(turns.pending_approvals, owner or self.owner)

    async def cancel(self, owner: str, turn_id: str) -> dict[str, Any]:
        """Stop a turn. Stopping one that has ended changes nothing."""
        turn = await self.database.read(turns.get, owner, turn_id)
        if beginning := self._taking_up.get(turn_id):
            await asyncio.wait({beginning})
        if not await self.runner.cancel(turn_id):
            if turn["status"] == ev.TurnStatus.RUNNING and self.database.shared:
                turn = await self._stopped_elsewhere(turn)
            if await self.database.write(turns.cancel_idle, turn, self.runner.id):
                await self._publish(turn)
            else:  # a decision came in just now and set it going
                await self.runner.cancel(turn_id)
        return await self.database.read(turns.get, owner, turn_id)

    async def _stopped_elsewhere(self, turn: dict[str, Any]) -> dict[str, Any]:
        """Ask the process that runs a turn to stop it, and give it a few seconds. Returns the turn as it is then."""
        await self.database.write(turns.ask_to_stop, turn["id"])
        for _ in range(50):
            if turn["status"] != ev.TurnStatus.RUNNING:
                break
            await asyncio.sleep(0.1)
            turn = await self.database.read(turns.get, turn["owner_id"], turn["id"])
        return turn

    def follow(self, turn_id: str, after: int = 0) -> AsyncIterator[Logged]:
        """A turn's logged events after `after`, to its end. The caller has checked the owner."""
        return self.runner.tail(turn_id, after)

    # ------------------------------------------------------------------ inside

    async def _open_turn(
        self, owner: str, key: str | None, request: Any, start: Callable[[Connection], dict[str, Any]], how: Ask
    ) -> dict[str, Any]:
        """Store a turn and begin it, once for each key.

        It begins while its row is being committed. Nothing of it is shown before that is on disk, and nothing done that
        changes anything outside: events are writes, so is taking up a remembered approval, and writes keep their order.
        """
        fresh: list[Turn] = []

        def write(connection: Connection) -> dict[str, Any]:
            row = start(connection)
            fresh.append(self._turn_of(connection, row, how, ()))
            return row

        def begin(row: dict[str, Any]) -> None:
            if fresh:
                self.runner.start(row, fresh[-1], self.speaking(row["thread_id"]))

        def settle(stored: asyncio.Future[dict[str, Any]]) -> None:
            if fresh and stored.exception() is not None:
                self.runner.drop(fresh[-1].id)

        # Callbacks, and shielded: a client that hangs up just now must not leave a stored turn that nobody runs.
        stored = self.database.submit_ahead(begin, once, owner, key, request, write)
        stored.add_done_callback(settle)
        row = await asyncio.shield(stored)
        return row if fresh else await self.database.read(turns.get, owner, row["id"])

    async def _go_on(self, turn: Mapping[str, Any]) -> None:
        """Take up a waiting turn whose approval was decided."""
        # Shielded: whoever asked may hang up, and a turn that was taken up must be run.
        turn_id = turn["id"]
        if turn_id not in self._taking_up:
            self._taking_up[turn_id] = asyncio.create_task(self._take_up(turn))
            self._taking_up[turn_id].add_done_callback(lambda _: self._taking_up.pop(turn_id))
        await asyncio.shield(self._taking_up[turn_id])

    async def _take_up(self, turn: Mapping[str, Any]) -> None:
        turn_id = turn["id"]
        if await self.database.write(turns.resume, turn_id, self.runner.id):
            so_far = [ev.from_wire(wire) for _, wire in await self.database.read(turns.log, turn_id, limit=100_000)]
            row = await self.database.read(turns.get, turn["owner_id"], turn_id)
            turn_now = await self.database.read(self._turn_of, row, _how(row["options"]), so_far)
            self.runner.start(row, turn_now, self.speaking(row["thread_id"]))

    async def _publish(self, turn: Mapping[str, Any]) -> None:
        """Tell watchers about events that were logged outside the runner. They skip what they have seen."""
        for seq, wire in await self.database.read(turns.log, turn["id"], limit=100_000, deltas=False):
            self.hub.publish((turn["id"], turn["thread_id"], turn["owner_id"]), (seq, turn["id"], wire))

    def _turn_of(self, connection: Connection, row: Mapping[str, Any], how: Ask, so_far: Sequence[ev.Event]) -> Turn:
        said = threads.said(connection, row["question_id"])
        if said is None:
            raise NotFound(f"The question of turn {row['id']} is gone: its thread was deleted.")
        before, _, question = said
        return Turn(
            id=row["id"],
            owner=row["owner_id"],
            question=question,
            history=self._histories.line(connection, row["thread_id"], before),
            documents=how.documents,  # type: ignore[arg-type]
            tools=how.tools,
            can_approve=how.can_approve,
            best_of=how.best_of or 1,
            sampling=how.sampling,
            so_far=tuple(so_far),
        )

    def _check_text(self, text: str) -> None:
        if not text.strip():
            raise InvalidInput("The question is empty. Write something.")
        if len(text) > self.settings.max_prompt_chars:
            raise TooLarge(
                f"The question has {len(text)} characters; the most is {self.settings.max_prompt_chars}. Shorten it, "
                "or add the long text as a document."
            )


async def _ended(task: asyncio.Task[Any] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _how(options: Mapping[str, Any]) -> Ask:
    named = {name: options[name] for name in ("documents", "tools", "can_approve", "best_of") if name in options}
    return Ask(**named, sampling={k: v for k, v in options.items() if k not in named})


def _how_of_message(connection: Connection, owner: str, message_id: str) -> Ask:
    message = threads.message_of(connection, owner, message_id)
    if not message["turn_id"]:
        return Ask()
    return _how(turns.get(connection, owner, message["turn_id"])["options"])


def _within(library: Library | None, collections: Sequence[str]) -> Search | None:
    if library is None or not collections:
        return library
    from trimtab.retrieval.library import Within

    return Within(library, collections)
