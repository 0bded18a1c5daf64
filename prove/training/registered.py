"""Importing this registers everything that a run's ``config.py`` names."""

from prove.training.stack import load_stack

load_stack()

from prove.training import augment, dataset, dinov3, mask2former, metric, objective, runner  # noqa: E402

__all__ = ["augment", "dataset", "dinov3", "mask2former", "metric", "objective", "runner"]
