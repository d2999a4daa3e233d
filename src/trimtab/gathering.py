"""From what people said to what training reads: the store's records become judgements, judgements a dataset.

The only place that knows both the store and the alignment's data.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from trimtab.align import dataset
from trimtab.align.blame import Happened, Verdict, blame, of_reason
from trimtab.align.curation import Curated, Decision, Rules, curate
from trimtab.align.splits import Shares
from trimtab.domain import events as ev
from trimtab.domain.errors import ModelFileError, NotFound
from trimtab.domain.judgement import Blame, Judgement, Kind, Source
from trimtab.domain.model import Profile, TokenCounter
from trimtab.orchestrator.answer import NOT_FOUND
from trimtab.store import judgements, versions
from trimtab.store.database import Database
from trimtab.store.judgements import Answer, Record
from trimtab.store.schema import users
from trimtab.store.threads import text_digest

from .given import Given, given
from .settings import Settings

DEMONSTRATION = ":demonstration"
"""Behind the id of an edit, which gives two judgements."""


def roughly(texts: Any) -> list[int]:
    """Tokens, where no tokenizer is at hand: what the orchestrator falls back to."""
    return [len(text) // 3 + 1 for text in texts]


@dataclass(frozen=True)
class Reading:
    """How the model that gave the answers is asked, which decides what it was shown.

    The default is that of a small local model, such as the default one.
    """

    profile: Profile = field(default_factory=lambda: Profile(name="default"))
    count: TokenCounter = roughly


def reading_of(settings: Settings) -> Reading:
    """How the model of these settings is asked, without starting it. Where its file is not on this machine, as a small
    local model is."""
    from trimtab.llm.catalogue import DEFAULT_CHAT
    from trimtab.llm.profile import profile_for
    from trimtab.llm.shelf import resolve_model
    from trimtab.llm.tokens import counter_for

    name = DEFAULT_CHAT if settings.model == "default" else settings.model
    try:
        if settings.base_url or (":" in name and "/" not in name and not name.endswith(".gguf")):
            found, count = profile_for(name, slot_context=settings.context), counter_for(None)
        else:
            file = resolve_model(name, settings.models_dir)
            found, count = profile_for(file, slot_context=settings.context), counter_for(file)
    except ModelFileError:
        found, count = Profile(name=name, context_tokens=settings.context), counter_for(None)
    return Reading(replace(found, sampling=replace(found.sampling, max_tokens=settings.max_tokens)), count)


def judgements_of(records: Iterator[Record] | list[Record], how: Reading = Reading()) -> list[Judgement]:
    """Every record as one judgement; an edit as two."""
    return [row for record in records for row in _rows(record, how)]


def _rows(record: Record, how: Reading) -> Iterator[Judgement]:
    row, about = record.feedback, _about(record)
    first = given(record.answer, how.profile, how.count)
    match row["kind"]:
        case "thumb":
            yield _judgement(record, Kind.LABEL, first, about, completion=_text(record.answer), value=int(row["value"]))
        case "preference" if record.other is not None:
            second = given(record.other, how.profile, how.count)
            texts = {"completion": _text(record.answer), "rejected": _text(record.other)}
            yield _judgement(record, Kind.PREFERENCE, _of_both(first, second), about, **texts)
        case "demonstration":
            yield _judgement(record, Kind.DEMONSTRATION, first, about, completion=_text(record.answer))
        case "edit":
            texts = {"completion": str(row["text"]), "rejected": _text(record.answer)}
            yield _judgement(record, Kind.PREFERENCE, first, about, **texts)
            wanted = {"id": row["id"] + DEMONSTRATION, "completion": str(row["text"])}
            yield _judgement(record, Kind.DEMONSTRATION, first, about, **wanted)


def _judgement(record: Record, kind: Kind, known: Given, about: dict[str, str], **fields: Any) -> Judgement:
    row, message = record.feedback, record.answer.message
    if not record.answer.origin and row["generation_digest"] != text_digest(_text(record.answer)):
        known = Given(known.prompt, "the answer is not the one that was judged", known.tainted)
    verdict = _blamed(record)
    if verdict.why:
        about = {**about, "blame": verdict.why}
    if known.composed:
        about = {**about, "composed": known.composed}
    lineage = message["lineage"] or {}
    reviewed = record.decision is not None and record.decision["decision"] == judgements.INCLUDE
    made = {
        "id": row["id"],
        "kind": kind,
        "prompt": known.prompt,
        "label": row["label"],
        "source": Source(about.get("imported", Source.PERSON)),
        "person": "" if "imported" in about else row["owner_id"],
        "version": str(lineage.get("version") or lineage.get("model") or ""),
        "at": float(row["created_at"]),
        "consent": record.consent,
        "ours": not known.composed and "origin" not in about,
        "tainted": known.tainted,
        "reviewed": reviewed,
        "blame": verdict.blame,
        "about": about,
    }
    return Judgement(**{**made, **fields})


def _blamed(record: Record) -> Verdict:
    """Of a thumb down by what was said, what a replay showed, and what happened; of anything else only by what was
    said."""
    reason = str(record.feedback["reason"])
    if record.feedback["kind"] != "thumb" or record.feedback["value"]:
        said = of_reason(reason) if record.feedback["kind"] != "thumb" else None
        return blame(Happened(), reason) if said else Verdict(Blame.MODEL)
    if record.replay is not None and of_reason(reason) is None:
        return Verdict(Blame(record.replay["blame"]), str(record.replay["why"]))
    seen = record.answer.events
    failed = dict.fromkeys(e.tool for e in seen if isinstance(e, ev.ToolFinished) and e.status is ev.CallStatus.ERROR)
    passages = any(e.used for e in seen if isinstance(e, ev.PassagesFound))
    return blame(Happened(passages, passages and NOT_FOUND in _text(record.answer), tuple(failed)), reason)


def _about(record: Record) -> dict[str, str]:
    row, message = record.feedback, record.answer.message
    about = {"feedback": row["id"], "message": row["message_id"], "thread": message["thread_id"]}
    if row["other_id"]:
        about["other"] = row["other_id"]
    if row["kind"] == "edit":
        about["edit"] = "yes"
    if row["reason"]:
        about["reason"] = row["reason"]
    if origin := record.answer.origin:
        about |= {"origin": str(origin["source"]), "file": str(origin.get("file", ""))}
        if row["owner_id"] == message["owner_id"]:  # said by the file itself, not by somebody who read it here
            about["imported"] = str(origin["source"])
    return about


def _of_both(first: Given, second: Given) -> Given:
    composed = first.composed or second.composed
    if not composed and first.prompt != second.prompt:
        composed = "the two answers were given to different prompts"
    return Given(first.prompt, composed, first.tainted or second.tainted)


def _text(answer: Answer) -> str:
    return str(answer.message["text"])


# ---------------------------------------------------------------------- the whole way


@dataclass(frozen=True)
class Gathered:
    """All feedback as judgements, and what people decided about rows."""

    rows: tuple[Judgement, ...]
    decisions: Mapping[str, Decision]


def gather(connection: Connection, how: Reading = Reading()) -> Gathered:
    """Everybody's feedback."""
    rows = judgements_of(judgements.records(connection), how)
    return Gathered(tuple(rows), _decisions(connection))


def _decisions(connection: Connection) -> dict[str, Decision]:
    decided = judgements.decisions(connection)
    return {key: Decision(str(row["decision"]), str(row["reason"])) for key, row in decided.items()}


@dataclass(frozen=True)
class Outcome:
    """What becomes of one judgement. `rule` and `why` are empty when it trains."""

    row: Judgement
    owner: str
    """The id of who gave it."""
    by: str
    """Their name."""
    rule: str = ""
    why: str = ""
    decision: str | None = None
    """What somebody decided about it by hand."""


def outcomes(connection: Connection, rules: Rules, how: Reading = Reading()) -> list[Outcome]:
    """Of everybody's feedback, the latest first."""
    records = judgements.records(connection)
    rows = judgements_of(records, how)
    found = curate(rows, rules, _decisions(connection))
    left_out = {dropped.row.id: dropped for dropped in found.dropped}
    givers = {record.feedback["id"]: record for record in records}
    told = []
    for row in rows:
        record = givers[row.about["feedback"]]
        dropped = left_out.get(row.id)
        why = (dropped.rule, dropped.reason) if dropped else ("", "")
        decided = record.decision["decision"] if record.decision else None
        told.append(Outcome(row, record.feedback["owner_id"], str(record.feedback["by"] or ""), *why, decided))
    return told[::-1]


class Outcomes:
    """What became of everybody's feedback, worked out once for each state of it: whoever asks often costs nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[Any, list[Outcome]] | None = None

    def of(self, connection: Connection, settings: Settings, how: Reading) -> list[Outcome]:
        """The latest first."""
        rules = rules_of(connection, settings)
        with self._lock:
            at = (judgements.state(connection), rules)
            if self._known is None or self._known[0] != at:
                self._known = (at, outcomes(connection, rules, how))
            return self._known[1]


def rules_of(connection: Connection, settings: Settings) -> Rules:
    """The default rules with the trusted people of these settings."""
    named = connection.execute(select(users.c.id).where(users.c.name.in_(settings.trusted_people))).scalars()
    return Rules(trusted=frozenset(named))


def curated(database: Database, rules: Rules = Rules(), how: Reading = Reading()) -> Curated:
    """Everybody's feedback after curation. Reads the database and changes nothing."""
    found = database.read_sync(gather, how)
    return curate(found.rows, rules, found.decisions)


def curated_by(settings: Settings, database: Database) -> Curated:
    """The same by the rules of these settings, read as their model is asked: what is shown, exported and trained on."""
    return curated(database, database.read_sync(rules_of, settings), reading_of(settings))


def make_dataset(kept: Curated, home: Path, shares: Shares = Shares()) -> dataset.Dataset:
    """What curation left, split and written under `home`.

    Raises:
        InvalidInput: nothing was left.
    """
    return dataset.write(kept.rows, home, shares=shares, about=kept.card())


# ---------------------------------------------------------------------- forgetting


@dataclass(frozen=True)
class Forgotten:
    """What went when a person's data was deleted, and what it had shaped."""

    feedback: int
    datasets: list[str]
    versions: list[dict[str, Any]]
    """Each ``{"id", "name", "status", "rows"}``: versions to train again without it."""


def forget_person(database: Database, datasets: Path, name: str) -> Forgotten:
    """Delete the feedback that a person gave, what others said about the person's conversations, and the datasets that
    any of it is in. Versions stay, and are named.

    Raises:
        NotFound: nobody is called that.
    """
    gone, shaped = database.write_sync(_forget, name)
    return Forgotten(len(gone), dataset.remove_with(datasets, gone), shaped)


def _forget(connection: Connection, name: str) -> tuple[list[str], list[dict[str, Any]]]:
    owner = connection.execute(select(users.c.id).where(users.c.name == name)).scalar()
    if owner is None:
        raise NotFound(f"Nobody is called {name!r}. `trimtab config keys` shows who has a key.")
    gone = judgements.forget(connection, owner)
    shaped = {row["id"]: row for row in versions.shaped_by_person(connection, owner)}
    for feedback_id in gone:
        for version_id in versions.shaped_by_feedback(connection, feedback_id):
            if version_id not in shaped:
                found = versions.get(connection, version_id)
                shaped[version_id] = {**{key: found[key] for key in ("id", "name", "status")}, "rows": 0}
    return gone, list(shaped.values())


def datasets_dir(settings: Settings) -> Path:
    return settings.home / "datasets"
