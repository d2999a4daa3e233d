"""The tables. Documents and chunks are in `documents.py`, on the same `metadata`.

Indexes are few on purpose: every turn writes to each of them, and the pages it touches are what a commit costs.
Times are Unix seconds (REAL). JSON columns hold what `domain` values turn into on the wire. `events` is append-only:
rows are inserted, and go only when the person who owns them deletes the thread.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

users = Table(
    "users",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(120), nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", String(120), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("hint", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
)

threads = Table(
    "threads",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("owner_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("title", String(200), nullable=False),
    Column("head_id", String(40)),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)

messages = Table(
    "messages",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("thread_id", ForeignKey("threads.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("parent_id", String(40)),
    Column("turn_id", String(40)),
    Column("role", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("text_digest", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("citations", JSON, nullable=False),
    Column("usage", JSON, nullable=False),
    Column("timing", JSON, nullable=False),
    Column("lineage", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
)

turns = Table(
    "turns",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("thread_id", ForeignKey("threads.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("owner_id", String(40), nullable=False),
    Column("question_id", String(40), nullable=False),
    Column("answer_id", String(40), nullable=False),
    Column("status", String(16), nullable=False),
    Column("options", JSON, nullable=False),
    Column("runner", String(40), nullable=False),
    Column("stop_at", Float),  # somebody asked the process that runs it to stop it
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
)

# Which processes are alive, where several share one database; see `runners.py`.
runners = Table(
    "runners",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("seen_at", Float, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("turn_id", ForeignKey("turns.id", ondelete="CASCADE"), nullable=False),
    Column("at", Float, nullable=False),
    Column("type", String(32), nullable=False),
    Column("data", Text, nullable=False),
    Index("ix_events_turn_seq", "turn_id", "seq"),
    sqlite_autoincrement=True,
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("turn_id", ForeignKey("turns.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("owner_id", String(40), nullable=False, index=True),
    Column("call_id", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("connector", Text, nullable=False),
    Column("effect", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("decided_at", Float),
)

# Approvals that a person remembered for calls like one they approved; see `consents.py`.
consents = Table(
    "consents",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("owner_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("connector", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("definition", String(64), nullable=False),  # what the tool said of itself then
    Column("effect", String(16), nullable=False),
    Column("fixed", JSON, nullable=False),  # arguments that must be the same, by name
    Column("free", JSON, nullable=False),  # names of those that may be anything
    Column("when_tainted", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("revoked_at", Float),
    Column("used_at", Float),
    Column("uses", Integer, nullable=False),
)

# Every call of a tool, each row with the digest of the row before it; see `audit.py`. No row is ever changed or
# deleted (triggers see to it), also when the thread or the person is: it holds no text of theirs.
audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("owner_id", String(40), nullable=False),
    Column("via", String(16), nullable=False),
    Column("turn_id", String(40), nullable=False),
    Column("call_id", String(120), nullable=False),
    Column("connector", String(120), nullable=False),
    Column("tool", String(200), nullable=False),
    Column("arguments_digest", String(64), nullable=False),
    Column("effect", String(16), nullable=False),
    Column("approval_id", String(40), nullable=False),
    Column("status", String(16), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("digest", String(64), nullable=False),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("owner_id", String(40), nullable=False),
    Column("message_id", ForeignKey("messages.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("value", Integer),
    Column("reason", Text, nullable=False),
    Column("other_id", String(40), nullable=False),
    Column("text", Text, nullable=False),
    Column("generation_digest", String(64), nullable=False),
    Column("label", String(40), nullable=False, server_default="helpful"),  # what a thumb is about
    Column("consent", Integer, nullable=False, server_default="1"),  # may it train a model?
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    UniqueConstraint("owner_id", "message_id", "kind", "other_id", "label", name="uq_feedback_once"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("owner_id", String(40), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("request_digest", String(64), nullable=False),
    Column("response", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
)
