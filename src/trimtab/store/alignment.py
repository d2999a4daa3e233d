"""Tables of the alignment: what was decided about feedback, which versions there are, and which of them answers.

A version's files lie in the registry's folder; here is what must change in one transaction. `serving` has one row.
`promotions` is append-only: how the serving version came to be, with the evidence it was let through on.
`version_rows` says which feedback shaped which version; it keeps the owner's id, so that deleting a person's feedback
still finds the versions it shaped. `second_answers` and `replays` quote what people were answered, and go with the
feedback they are about.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Float, ForeignKey, Integer, String, Table, Text

from .schema import metadata

curation = Table(
    "curation",
    metadata,
    Column("feedback_id", String(40), primary_key=True),
    Column("decision", String(16), nullable=False),  # include, exclude
    Column("reason", Text, nullable=False),
    Column("decided_by", String(40), nullable=False),
    Column("decided_at", Float, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(120), nullable=False, unique=True),
    Column("parent_id", String(40)),
    Column("kind", String(16), nullable=False),  # base, adapter
    Column("status", String(16), nullable=False),  # candidate, held, ready, retired
    Column("digest", String(64), nullable=False),
    Column("manifest", JSON, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("retired_at", Float),
)

version_rows = Table(
    "version_rows",
    metadata,
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
    Column("feedback_id", String(40), primary_key=True),
    Column("owner_id", String(40), nullable=False, index=True),
)

serving = Table(
    "serving",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("version_id", ForeignKey("versions.id"), nullable=False),
    Column("previous_id", String(40)),
    Column("canary_id", String(40)),
    Column("canary_share", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
)

promotions = Table(
    "promotions",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("version_id", String(40), nullable=False),
    Column("previous_id", String(40)),
    Column("action", String(16), nullable=False),  # promote, rollback, canary, auto-rollback
    Column("by", String(120), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_autoincrement=True,
)

second_answers = Table(
    "second_answers",
    metadata,
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
    Column("feedback_id", ForeignKey("feedback.id", ondelete="CASCADE"), primary_key=True),
    Column("text", Text, nullable=False),
    Column("at", Float, nullable=False),
)

replays = Table(
    "replays",
    metadata,
    Column("feedback_id", ForeignKey("feedback.id", ondelete="CASCADE"), primary_key=True),
    Column("blame", String(16), nullable=False),  # model, retrieval, tool
    Column("why", Text, nullable=False),
    Column("context", Text, nullable=False),  # what the model was given this time
    Column("answers", JSON, nullable=False),
    Column("score", Float, nullable=False),  # 0 to 1, the mean of its answers
    Column("at", Float, nullable=False),
)
