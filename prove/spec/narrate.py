"""Events as lines for people: what a log and a terminal say of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def line(event: Mapping[str, Any], max_iters: int) -> str:
    """One event in a line (a failure may take several); empty for events that say nothing new.

    Args:
        max_iters: length of the training, for the time that is left.
    """
    kind = event["kind"]
    if kind == "started":
        resumed = f", continuing from iteration {event['resumed_from']}" if event["resumed_from"] else ""
        return f"attempt {event['attempt']} on {event['device']}{resumed}"
    if kind == "wired":
        return _wired(event["evidence"])
    if kind == "train":
        left = clock((max_iters - event["iteration"]) * event["seconds_per_iteration"])
        where = f"iteration {event['iteration']}/{max_iters}"
        return f"{where}  loss {_number(event['loss'])}  {terms(event)}  lr {event['lr']:.3g}  {left} left"
    if kind == "validated":
        shown = ", ".join(f"{name} {_number(event['metrics'][name])}" for name in ("mIoU", "aAcc", "mAcc"))
        return f"iteration {event['iteration']}: {shown} on {event['images']} images"
    if kind == "finished":
        return f"finished at iteration {event['iteration']} ({event['reason']})"
    if kind == "failed":
        return f"failed ({event['failure']}) at iteration {event['iteration']}: {event['message']}"
    if kind == "interrupted":
        return f"interrupted at iteration {event['iteration']} ({event['reason']})"
    return ""


def terms(event: Mapping[str, Any]) -> str:
    """The loss terms of a training event."""
    return "  ".join(f"{name} {value:.3f}" for name, value in event["terms"].items() if value is not None)


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _wired(evidence: Mapping[str, Any]) -> str:
    """The wiring proof in a line: every head, every term, its share of the loss."""
    heads = [
        f"{head['head']}: "
        + " + ".join(f"{term['text']} ({term['loss_share']:.0%} of the loss)" for term in head["terms"])
        for head in evidence["heads"]
    ]
    return "wiring proved: " + "; ".join(heads)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
