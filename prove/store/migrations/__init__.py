"""Alembic migrations of the store: one file per revision, applied by `prove db upgrade`."""
