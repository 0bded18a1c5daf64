"""The wiring proof: before the first iteration, does the built model minimise the objective that was asked for?

It trusts nothing that the model says of itself. The losses go through the model's own `train_step` up to the scalar
that would be called `backward` on; beside it stands the formula, from the expression and PROVE's plain reference of
each term, evaluated on the logits that the heads produced.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prove.build.objective import HeadPlan
from prove.training.evidence import BatchEvidence, Evidence, HeadEvidence, TermEvidence
from prove.training.guard import WiringError, is_loss
from prove.training.objective import Scheduled, set_progress
from prove.training.seeding import seed_torch
from prove.training.wiring_checks import IGNORE, TOLERANCE, HeadView, Seen, describe_batch
from prove.training.wiring_mask import MaskView
from prove.training.wiring_pixel import PixelView


@dataclass(frozen=True)
class Step:
    """One training step up to the backward pass."""

    total: Tensor
    losses: Mapping[str, float]
    tensors: Mapping[str, Tensor]


class _Probe:
    """Stands in for the optimiser: takes the scalar that would be minimised, moves nothing."""

    total: Tensor

    def optim_context(self, model: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def update_params(self, loss: Tensor) -> None:
        self.total = loss


def prove_wiring(
    model: nn.Module,
    batch: Any,
    heads: Sequence[HeadPlan],
    *,
    objective: str,
    class_weight: tuple[float, ...] | None,
    planted: bool = False,
    on_losses: Callable[[Iterable[str]], object] = lambda names: None,
) -> Evidence:
    """Show for every head and every term that it is trained as asked. The model is left as it was.

    Args:
        model: an MMSegmentation segmentor, complete, as it is about to be trained.
        batch: one batch of its training dataloader, with ignored pixels and valid ones.
        heads: what each head must add up to.
        class_weight: weights from the training set, for the references of terms that use them.
        planted: whether ignored pixels had to be planted in the batch.
        on_losses: is told the names of the losses that are summed.

    Returns:
        The evidence; its `problems` say what does not hold.
    """
    problems: list[str] = []
    seen: dict[tuple[str, str], TermEvidence] = {}
    total = formula = math.nan
    shape = BatchEvidence(0, 0, 0, planted)
    with undisturbed(model):
        for progress in moments_of(heads):
            try:
                outcome = _examine(model, batch, heads, progress, class_weight)
            except WiringError as error:
                problems += error.problems
                break
            on_losses(outcome.losses)
            problems += [problem for problem in outcome.problems if problem not in problems]
            shape = replace(outcome.batch, planted=planted)
            if math.isnan(total):
                total, formula = outcome.total, outcome.formula
            for (head, label), term in outcome.terms.items():
                if (head, label) not in seen or seen[head, label].weight < term.weight:
                    seen[head, label] = term
    evidence = tuple(
        HeadEvidence(plan.path, plan.replaced, tuple(t for (head, _), t in seen.items() if head == plan.path))
        for plan in heads
    )
    return Evidence(objective, finite(total), finite(formula), evidence, shape, tuple(problems), class_weight)


def moments_of(heads: Sequence[HeadPlan]) -> list[float]:
    """The start of training, and for each term with a schedule both its ends: it must weigh most at one of them, and
    something else at the other."""
    moments = {0.0}
    for head in heads:
        for _, term in head.terms:
            if not term.weight.is_constant:
                moments |= {term.weight.start, term.weight.end}
    return sorted(moments)


@dataclass(frozen=True)
class _Outcome:
    problems: list[str]
    total: float
    formula: float
    terms: dict[tuple[str, str], TermEvidence]
    batch: BatchEvidence
    losses: frozenset[str]


def _examine(
    model: nn.Module, batch: Any, heads: Sequence[HeadPlan], progress: float, class_weight: tuple[float, ...] | None
) -> _Outcome:
    set_progress(model, progress)
    given = [sample.gt_sem_seg.data.squeeze(0).clone() for sample in batch["data_samples"]]
    views = [view_of(model, plan, progress, class_weight) for plan in heads]
    step = take_step(model, batch, views)
    problems = unexpected_keys(step, views)
    for view in views:
        problems += _labels_changed(view, given)
    problems += _moves_neck(model, step)
    terms: dict[tuple[str, str], TermEvidence] = {}
    formula, total = 0.0, float(step.total.detach())
    for view in views:
        seen = view.look(step.losses)
        problems += seen.problems
        formula += seen.formula
        problems += _reaches_backward(step, view, seen)
        problems += _moves_parameters(model, step, view)
        for label, term in seen.terms.items():
            share = term.contribution / abs(total) if total else 0.0
            terms[view.plan.path, label] = replace(term, loss_share=share)
    if not math.isfinite(total):
        problems.append(f"the total loss is {total}")
    elif not math.isclose(total, formula, rel_tol=TOLERANCE, abs_tol=1e-5):
        problems.append(f"the loss that is minimised is {total:.6g}, the objective's formula gives {formula:.6g}")
    return _Outcome(problems, total, formula, terms, describe_batch(views[0].labels()), frozenset(step.losses))


def view_of(model: nn.Module, plan: HeadPlan, progress: float, class_weight: tuple[float, ...] | None) -> HeadView:
    """What watches a head of a model.

    Raises:
        WiringError: the model has no such head.
    """
    head: Any = model
    try:
        for part in plan.path.split("."):
            head = head[int(part)] if part.isdigit() else getattr(head, part)
    except (AttributeError, IndexError):
        head = None
    if head is None:
        raise WiringError([f"the model has no {plan.path}"])
    kind = PixelView if plan.kind == "per_pixel" else MaskView
    return kind(plan, head, progress, class_weight)


def take_step(model: Any, batch: Any, views: Sequence[HeadView]) -> Step:
    """One step on a batch through the model's own `train_step`, watched; nothing moves.

    Raises:
        WiringError: a head takes no part in it.
    """
    probe = _Probe()
    model.train()
    seed_torch("wiring")
    with watching(views):
        losses = model.train_step(batch, optim_wrapper=probe)
    missing = [view.plan.path for view in views if not view.was_used]
    if missing:
        raise WiringError([f"{path} takes no part in the training step" for path in missing])
    summed = {name: value for name, value in losses.items() if is_loss(name)}
    return Step(probe.total, {name: float(value.detach()) for name, value in summed.items()}, summed)


@contextmanager
def watching(views: Sequence[HeadView]) -> Iterator[None]:
    """Have heads watched while a batch goes through them."""
    restore = [view.watch() for view in views]
    try:
        yield
    finally:
        for undo in restore:
            undo()


def unexpected_keys(step: Step, views: Sequence[HeadView]) -> list[str]:
    """The losses that are summed must be those of the objective, each once."""
    expected = {key for view in views for key in view.expected_keys()}
    problems = [f"{key} is not among the losses that are summed" for key in sorted(expected - set(step.losses))]
    problems += [
        f"{key} is summed into the loss, but the objective has no such term"
        for key in sorted(set(step.losses) - expected)
    ]
    return problems


def _labels_changed(view: HeadView, given: Sequence[Tensor]) -> list[str]:
    """A head must be given the labels that were loaded, padded with the ignore index and otherwise untouched."""
    received = view.labels()
    same = len(received) == len(given)
    for mine, loaded in zip(received, given, strict=False):
        height, width = loaded.shape
        padded = torch.full_like(mine, IGNORE)
        padded[:height, :width] = loaded.to(mine.device)
        same = same and torch.equal(mine, padded)
    problems = [] if same else [f"{view.plan.path}: the labels it is given are not those that were loaded"]
    if not (received == IGNORE).any():
        problems.append(f"{view.plan.path}: no pixel of its labels is ignored, though the batch has ignored pixels")
    return problems


def _reaches_backward(step: Step, view: HeadView, seen: Seen) -> list[str]:
    """The gradient of the minimised scalar on a head's outputs must be the sum of its terms' gradients.

    The tolerance follows the smallest of them: a term that is lost among large ones is still missed.
    """
    if not seen.gradients:
        return []
    expected = torch.stack(list(seen.gradients.values())).sum(dim=0)
    smallest = min((float(each.norm()) for each in seen.gradients.values() if each.count_nonzero()), default=0.0)
    outputs = view.outputs()
    actual = torch.autograd.grad(step.total, outputs, retain_graph=True, allow_unused=True)
    asked = torch.split(expected, [output.numel() for output in outputs])
    if any(gradient is None and mine.any() for gradient, mine in zip(actual, asked, strict=True)):
        return [f"{view.plan.path}: backward of the loss does not reach its outputs"]
    reached = [torch.zeros_like(each) if grad is None else grad for grad, each in zip(actual, outputs, strict=True)]
    if (flat(reached) - expected).norm() > max(1e-2 * smallest, 1e-6 * float(expected.norm())):
        return [f"{view.plan.path}: the gradient that reaches backward is not the sum of the terms' gradients"]
    return []


def _moves_parameters(model: Any, step: Step, view: HeadView) -> list[str]:
    """The losses of a head must move the head itself and, unless it is frozen by the config, the backbone."""
    mine = [value for name, value in step.tensors.items() if name.startswith(f"{view.plan.prefix}.")]
    total = sum(value for value in mine if value.requires_grad)
    problems = []
    for what, module in ((view.plan.path, view.head), ("the backbone", getattr(model, "backbone", None))):
        if module is None:
            continue
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not trainable and module is not view.head:
            continue  # frozen as a whole
        gradients = (
            torch.autograd.grad(total, trainable, retain_graph=True, allow_unused=True)
            if trainable and isinstance(total, Tensor)
            else ()
        )
        if not any(gradient is not None and gradient.count_nonzero() for gradient in gradients):
            problems.append(f"{view.plan.path}: its losses do not move {what}")
    return problems


def _moves_neck(model: Any, step: Step) -> list[str]:
    """What stands between the backbone and the heads must be trained, whether or not the backbone is.

    By all heads together: one of them may read a level that has no parameters of its own.
    """
    neck = getattr(model, "neck", None)
    trainable = [parameter for parameter in neck.parameters() if parameter.requires_grad] if neck is not None else []
    if not trainable or not step.total.requires_grad:
        return []
    gradients = torch.autograd.grad(step.total, trainable, retain_graph=True, allow_unused=True)
    moved = any(gradient is not None and gradient.count_nonzero() for gradient in gradients)
    return [] if moved else ["no loss moves the neck"]


def flat(tensors: Sequence[Tensor | None]) -> Tensor:
    """One vector in float64."""
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors if tensor is not None])


def finite(value: float) -> float | None:
    """A number that JSON can hold, or None."""
    return value if math.isfinite(value) else None


def _is_weighted(module: nn.Module) -> bool:
    return isinstance(module, Scheduled) and hasattr(module, "loss_weight")


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Leave no trace: batch-norm statistics, modes, random states and weights that follow a schedule are put back."""
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    modes = {name: module.training for name, module in model.named_modules()}
    weights = [(each, each.loss_weight) for each in model.modules() if _is_weighted(each)]
    python, numpy_state = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            with torch.no_grad():
                for name, buffer in model.named_buffers():
                    if name in buffers:
                        buffer.copy_(buffers[name])
            for name, module in model.named_modules():
                module.training = modes.get(name, module.training)
            random.setstate(python)
            np.random.set_state(numpy_state)
            for each, weight in weights:
                each.loss_weight = weight
