"""The same worker in a process that has imported all that training needs."""

from pool_worker import main

import prove.training.preloaded  # noqa: F401

__all__ = ["main"]
