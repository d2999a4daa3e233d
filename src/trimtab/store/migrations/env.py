"""Alembic's entry: it is only ever run by `trimtab.store.migrate`, which hands over the open engine."""

from alembic import context

from trimtab.store import documents, schema

assert documents.documents.metadata is schema.metadata  # both files' tables are one schema

engine = context.config.attributes["engine"]
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=schema.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
