"""What is checked in every iteration, before the optimiser moves a weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from prove.errors import ProveError


class Diverged(Exception):
    """A loss is not finite.

    Attributes:
        terms: names of the losses that are not finite.
        iteration: the first iteration, from 1, in which it happened.
    """

    def __init__(self, terms: list[str], iteration: int) -> None:
        super().__init__(f"{', '.join(terms)} not finite at iteration {iteration}")
        self.terms = terms
        self.iteration = iteration


class NotFinite(ProveError):
    """What the model puts out is not finite, so that a loss can't even be computed."""


class WiringError(Exception):
    """The model does not minimise the objective that was asked for.

    Attributes:
        problems: what does not hold, one sentence each.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def is_loss(name: str) -> bool:
    """Whether MMEngine adds an entry of a model's losses to the total (it looks for the word)."""
    return "loss" in name and name != "loss"


def install_guard(model: Any, keys: frozenset[str], iteration: Callable[[], int]) -> None:
    """Check every step's losses between their computation and the backward pass.

    Args:
        keys: names of all losses that the wiring proof saw; a step must have exactly these.
        iteration: tells the present iteration, counted from 0.

    Raises (in training):
        Diverged: the total is not finite.
        WiringError: a term has gone missing, or one has appeared.
    """
    original: Callable[[Mapping[str, Any]], tuple[Tensor, Mapping[str, Tensor]]] = model.parse_losses

    def parse_losses(losses: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Tensor]]:
        total, entries = original(losses)
        present = frozenset(filter(is_loss, entries))
        if present != keys:
            raise WiringError(
                [
                    f"iteration {iteration() + 1}: {name} is no longer among the losses"
                    for name in sorted(keys - present)
                ]
                + [
                    f"iteration {iteration() + 1}: {name} has appeared among the losses"
                    for name in sorted(present - keys)
                ]
            )
        if not torch.isfinite(total):
            bad = [name for name in sorted(present) if not torch.isfinite(entries[name]).all()]
            raise Diverged(bad or ["the total"], iteration() + 1)
        return total, entries

    model.parse_losses = parse_losses
