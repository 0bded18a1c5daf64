"""Revisions, oldest first; the newest must equal `prove.store.tables`, which a test checks."""
