"""What Alembic runs to reach the database; called by `prove.store.schema.migrate`."""

from alembic import context
from sqlalchemy import create_engine

from prove.store.tables import metadata

engine = create_engine(context.config.attributes["url"])
with engine.connect() as link:
    # SQLite alters a table by copying it (batch mode).
    context.configure(connection=link, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
