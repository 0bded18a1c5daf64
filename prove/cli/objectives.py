"""The objective that flags ask for, and whether it can be trained."""

from __future__ import annotations

from prove.catalog.losses import from_aux, resolve, short
from prove.errors import ProveError
from prove.spec import LossExpr, parse


def objective(loss: str | None, aux_loss: str | None, aux_weight: float | None) -> LossExpr:
    """The expression that was asked for, resolved.

    Raises:
        ProveError: both forms at once, or a malformed or unknown loss.
    """
    if loss is not None and aux_loss is not None:
        raise ProveError(
            "--loss and --aux-loss are two ways to say the same.",
            hint='Use one: --loss "ce + 0.3*focal" or --aux-loss focal.',
        )
    if loss is not None:
        if aux_weight is not None:
            raise ProveError(
                "--aux-weight belongs to --aux-loss.",
                hint='In --loss the weight is part of the text: "ce + 0.3*focal".',
            )
        return resolve(parse(loss))
    aux = aux_loss or "none"
    if aux_weight is None:
        return from_aux(aux)
    if aux == "none":
        raise ProveError(
            "--aux-weight weighs nothing without an --aux-loss.", hint="Name one, such as --aux-loss focal."
        )
    return from_aux(aux, aux_weight)


def kept_criterion(loss: LossExpr, model: str) -> str:
    """What to tell a user whose objective a mask-classification model adds its own criterion to; empty otherwise.

    Args:
        loss: the model's objective, with the text in which it was asked for.
    """
    if not loss.text or len(loss.terms) == len(parse(loss.text).terms):
        return ""
    return (
        f"{model} keeps its set criterion, which no term of {loss.text!r} names: the objective is {short(loss)}. "
        "Write m2f, or ce for it, to say so."
    )


def require_fit(expr: LossExpr, classes: tuple[str, ...], dataset: str) -> None:
    """Refuse a list that counts other classes than the dataset has."""
    for term in expr.terms:
        for name, value in term.params:
            if not isinstance(value, tuple):
                continue
            if name == "classes" and any(not isinstance(each, int) or each >= len(classes) for each in value):
                raise ProveError(f"{term.body}: {dataset} has classes 0 to {len(classes) - 1}.")
            if name != "classes" and len(value) != len(classes):
                raise ProveError(f"{term.body}: {name} has {len(value)} numbers, {dataset} has {len(classes)} classes.")


def require_weight(expr: LossExpr, max_iters: int) -> None:
    """Refuse a term that weighs nothing in any iteration."""
    for term in expr.terms:
        if not any(term.weight.at(step / max_iters) > 0 for step in range(max_iters)):
            raise ProveError(
                f"The term '{short(LossExpr((term,)))}' weighs nothing in any of the {max_iters} iterations: "
                "the job would train without it.",
                hint="Leave the term out, let it start earlier, or raise --max-iters.",
            )
