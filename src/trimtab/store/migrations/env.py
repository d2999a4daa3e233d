"""Alembic's entry: it is only ever run by `trimtab.store.migrate`, which hands over the open engine."""

from alembic import context
from sqlalchemy import text

from trimtab.store import alignment, changeovers, documents, schema

assert documents.documents.metadata is alignment.versions.metadata is schema.metadata  # one schema
assert changeovers.changeovers.metadata is schema.metadata

engine = context.config.attributes["engine"]
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=schema.metadata, render_as_batch=True)
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # Two processes that start on one database: the second waits here, and then finds nothing left to do.
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": int.from_bytes(b"tt-make", "big")})
        context.run_migrations()
