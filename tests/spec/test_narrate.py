"""What a log says of a run."""

from __future__ import annotations

import pytest

from prove.spec.narrate import clock, line


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3723.4, "1:02:03")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_training_line_has_terms_rate_and_time_left() -> None:
    event = {"kind": "train", "iteration": 10, "loss": 2.5, "terms": {"decode.loss_ce": 2.25, "decode.loss_dice": None},
             "lr": 0.01, "seconds_per_iteration": 2.0}  # fmt: skip
    assert line(event, 100) == "iteration 10/100  loss 2.50  decode.loss_ce 2.250  lr 0.01  3:00 left"


def test_undefined_metrics_are_dashes() -> None:
    event = {"kind": "validated", "iteration": 3, "images": 2, "metrics": {"mIoU": None, "aAcc": 50.0, "mAcc": 25.0}}
    assert line(event, 3) == "iteration 3: mIoU -, aAcc 50.00, mAcc 25.00 on 2 images"


def test_endings() -> None:
    finished = {"kind": "finished", "iteration": 5, "reason": "early_stop"}
    assert line(finished, 9) == "finished at iteration 5 (early_stop)"
    failed = {"kind": "failed", "failure": "diverged", "iteration": 4, "message": "loss_ce not finite"}
    assert line(failed, 9) == "failed (diverged) at iteration 4: loss_ce not finite"
    assert line({"kind": "checkpoint", "iteration": 4, "file": "x"}, 9) == ""
