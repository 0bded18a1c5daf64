"""Each term's share of the loss and of the gradient while a model trains: what its weight really does.

Measured on the batch of the wiring proof, as the proof measures it. Training is not touched: no parameter has its
gradient changed, and batch-norm statistics, modes, random states and weights of terms are as they were.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from prove.build.objective import HeadPlan
from prove.training.objective import set_progress
from prove.training.seeding import seed_torch
from prove.training.wiring import undisturbed, view_of, watching
from prove.training.wiring_checks import cosine_to_primary, share_of

BUDGET = 0.02
"""Largest part of the time since training began that measurements may take."""

Shares = dict[str, dict[str, dict[str, float | None]]]
"""Head → label of the term → ``loss_share, gradient_share, cosine``."""


def gradient_shares(model: Any, batch: Any, heads: Sequence[HeadPlan], progress: float) -> Shares:
    """What each term of each head has of the loss and of the gradient on a batch.

    Args:
        model: an MMSegmentation segmentor.
        batch: a batch of its training dataloader.
        progress: of training in [0, 1], at which terms with a schedule are weighed.

    Returns:
        Of every term: ``loss_share`` of the total over all heads, ``gradient_share`` of the sum of the gradient norms
        in its head, and ``cosine`` between its gradient and the primary term's (None for the primary term itself, and
        without a gradient). The gradients are those of `prove.training.evidence.TermEvidence`.

    Raises:
        WiringError: the losses can't be evaluated.
    """
    with undisturbed(model):
        set_progress(model, progress)
        model.train()
        seed_torch("wiring")
        views = [view_of(model, plan, progress, None) for plan in heads]
        # The gradients stop at the heads' outputs: nothing has to be kept of what comes before.
        with torch.no_grad(), watching(views):
            model(**model.data_preprocessor(batch, True), mode="loss")
        measured = [view.measured() for view in views]
    total = abs(sum(value for each in measured for value in each.contributions.values()))
    return {
        plan.path: {
            label: {
                "loss_share": each.contributions[label] / total if total else 0.0,
                "gradient_share": share_of(gradient, each.gradients.values()),
                "cosine": cosine_to_primary(label, each.gradients, plan),
            }
            for label, gradient in each.gradients.items()
        }
        for plan, each in zip(heads, measured, strict=True)
    }


class GradientWatch:
    """Measures `gradient_shares` of one training now and then, within its `BUDGET` of time.

    At the start and at the end always; at a validation in between where all that has been spent, and as much again as
    the latest measurement took, is within the budget. Training does not depend on when it is measured.

    Args:
        heads: of the model, with their terms.
        max_iters: length of the training.
    """

    def __init__(self, heads: Sequence[HeadPlan], max_iters: int) -> None:
        self.heads, self.max_iters = heads, max_iters
        self.batch: Any = None
        """The batch of the wiring proof; nothing is measured before there is one."""
        self._begun = time.monotonic()
        self._spent = self._latest = 0.0
        self._works = True

    def is_due(self, *, always: bool) -> bool:
        """Whether to measure now."""
        if self.batch is None or not self._works:
            return False
        return always or self._spent + self._latest <= BUDGET * (time.monotonic() - self._begun)

    def measure(self, model: Any, iteration: int) -> Mapping[str, Any] | None:
        """The shares after an iteration, as the event ``grads`` holds them; None where they can't be had.

        What fails here is no fault of the training: it is said in the log, and nothing more is measured.
        """
        start = time.monotonic()
        try:
            return gradient_shares(model, self.batch, self.heads, iteration / self.max_iters)
        except Exception as error:
            self._works = False
            print(f"the shares of the gradient are no longer measured: {type(error).__name__}: {error}", flush=True)
            return None
        finally:
            self._latest = time.monotonic() - start
            self._spent += self._latest
