"""What a worker records for reports: its environment, gradient shares over training, predictions for pictures."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_wiring_mask2former import SMALL
from training_runs import Runs, events

from prove.build.configs import shipped
from prove.metrics import summarize
from prove.provenance import comparability
from prove.rundir import RunDir
from prove.store import Store


def shares(run: RunDir) -> dict[int, dict[str, dict[str, dict[str, float]]]]:
    return {event["iteration"]: event["heads"] for event in events(run, "grads")}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def unhurried() -> None:
    """In the worker: measure at every validation, however long it takes."""
    from prove.training import gradients

    gradients.BUDGET = float("inf")


@pytest.fixture(scope="module")
def trained(camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Focal with gamma 0 is cross-entropy: what each of two such terms must take is known."""
    runs = Runs(camvid, tmp_path_factory.mktemp("recorded"))
    run = runs.make(loss="ce + 0.3*focal(gamma=0, alpha=1)", max_iters=4, eval_interval=2)
    assert runs.train(run, unhurried) == 0, run.log.read_text()
    return run


def test_the_order_of_events(trained: RunDir) -> None:
    kinds = [event["kind"] for event in events(trained)]
    assert kinds[:4] == ["started", "environment", "wired", "grads"]
    assert sorted(shares(trained)) == [0, 2, 4]
    assert kinds[-1] == "finished"


def test_the_environment_is_that_of_the_folder(trained: RunDir) -> None:
    (event,) = events(trained, "environment")
    recorded = json.loads(trained.env.read_text())
    assert event["environment"] == comparability(recorded, batch_size=2, amp=True, resumed=False)
    facts = event["environment"]
    assert (facts["device_kind"], facts["amp"], facts["batch_size_per_device"], facts["resumed"]) == (
        "cpu",
        False,
        2,
        False,
    )
    assert facts["metric_version"] == 1
    assert facts["deterministic"] is False
    assert None not in (
        facts["data_train"],
        facts["data_val"],
        facts["code"],
        facts["python"],
        facts["packages"]["torch"],
    )
    with Store.open(trained.path.parents[1]) as store:
        store.refresh()
        ((_, said),) = store.environments().items()
        assert json.loads(said) == facts
        assert [point.iteration for point in store.curve(trained.key, "grads")] == [0, 2, 4]


def test_shares_of_two_names_of_one_loss(trained: RunDir) -> None:
    """Cross-entropy and 0.3 of it: parallel gradients, and shares as the weights; 0.4 is the auxiliary head's."""
    for heads in shares(trained).values():
        assert heads.keys() == {"decode_head", "auxiliary_head"}
        total = sum(term["loss_share"] for terms in heads.values() for term in terms.values())
        assert total == pytest.approx(1.0, abs=1e-6)
        for head, weight in (("decode_head", 1.0), ("auxiliary_head", 0.4)):
            ce, focal = heads[head]["ce"], heads[head]["focal"]
            assert ce["gradient_share"] == pytest.approx(weight / (weight + 0.3), rel=1e-4)
            assert focal["gradient_share"] == pytest.approx(0.3 / (weight + 0.3), rel=1e-4)
            assert focal["loss_share"] / ce["loss_share"] == pytest.approx(0.3 / weight, rel=1e-4)
            assert (ce["cosine"], focal["cosine"]) == (None, pytest.approx(1.0, abs=1e-5))


def assert_as_proved(run: RunDir) -> None:
    """At the start the shares are those of the wiring proof."""
    evidence = json.loads(run.evidence.read_text())
    found = shares(run)[0]
    for head in evidence["heads"]:
        assert found[head["head"]].keys() == {term["term"] for term in head["terms"]}
        for term in head["terms"]:
            measured = found[head["head"]][term["term"]]
            assert measured["loss_share"] == pytest.approx(term["loss_share"], rel=1e-4)
            assert measured["gradient_share"] == pytest.approx(term["gradient_share"], rel=1e-6)
            assert measured["cosine"] == (
                pytest.approx(term["cosine_to_primary"], abs=1e-6) if measured["cosine"] else None
            )


def test_at_the_start_they_are_those_of_the_proof(runs: Runs) -> None:
    run = runs.make(loss="ce + 0.3*lovasz + 0.2*dice")
    assert runs.train(run) == 0, run.log.read_text()
    assert_as_proved(run)


def never_measured() -> None:
    from prove.training.gradients import GradientWatch

    GradientWatch.is_due = lambda self, *, always: False  # type: ignore[method-assign]


SCHEDULED: dict[str, Any] = {"loss": "ce + 0.8->0*lovasz + 0->0.5*dice", "max_iters": 6, "eval_interval": 2}


def state(run: RunDir, iteration: int = 6) -> dict[str, torch.Tensor]:
    saved = torch.load(run.checkpoint(iteration), weights_only=True)
    moments = {
        f"{index}.{name}": value
        for index, each in saved["optimizer"]["state"].items()
        for name, value in each.items()
        if isinstance(value, torch.Tensor)
    }
    assert moments
    return {**saved["state_dict"], **moments}


def unhurried_and_checked() -> None:
    """In the worker: whatever training reads is the same after a measurement."""
    unhurried()
    from prove.training.gradients import GradientWatch
    from prove.training.session import weights_in

    measure = GradientWatch.measure

    def checked(self: GradientWatch, model: Any, iteration: int) -> Any:
        def readable() -> tuple[Any, ...]:
            return (
                [weights_in(model, head) for head in self.heads],
                [module.training for module in model.modules()],
                [None if each.grad is None else float(each.grad.double().sum()) for each in model.parameters()],
                [float(buffer.double().sum()) for buffer in model.buffers()],
                (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),
            )

        before = readable()
        found = measure(self, model, iteration)
        assert readable() == before
        return found

    GradientWatch.measure = checked  # type: ignore[method-assign]


def test_measuring_changes_not_a_bit(runs: Runs) -> None:
    """With batch norm, dropout, weights that move, and Lovász, whose ties would show any difference."""
    measured, plain = runs.make("measured", **SCHEDULED), runs.make("plain", **SCHEDULED)
    assert runs.train(measured, unhurried_and_checked) == 0, measured.log.read_text()
    assert runs.train(plain, never_measured) == 0, plain.log.read_text()
    assert (sorted(shares(measured)), shares(plain)) == ([0, 2, 4, 6], {})
    one, other = state(measured), state(plain)
    assert one.keys() == other.keys()
    assert any("running_mean" in name for name in one)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    for kind in ("validated", "train"):
        said = [
            {name: value for name, value in event.items() if name in ("loss", "terms", "weights", "metrics")}
            for run in (measured, plain)
            for event in events(run, kind)
            if event["iteration"] in (1, 2, 4, 6)
        ]
        assert said[: len(said) // 2] == said[len(said) // 2 :] != []
    # A weight of 0 takes nothing: dice at the start, Lovász at the end.
    assert shares(measured)[0]["decode_head"]["dice"] == {"loss_share": 0.0, "gradient_share": 0.0, "cosine": None}
    assert shares(measured)[6]["decode_head"]["lovasz"]["gradient_share"] == 0.0
    lovasz = [shares(measured)[iteration]["decode_head"]["lovasz"]["gradient_share"] for iteration in (0, 2, 4, 6)]
    assert lovasz == sorted(lovasz, reverse=True)


def test_a_mask_classification_head_is_measured_and_not_touched(runs: Runs, tmp_path: Path) -> None:
    """Its criterion draws points at random, in training and in the measurement."""
    path = tmp_path / "mask2former_small.py"
    path.write_text(SMALL.format(base=shipped("mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py")))
    asked: dict[str, Any] = {"model": str(path), "loss": "m2f(num_points=512) + 0.5*focal", "eval_interval": 1}
    measured, plain = runs.make("measured", **asked), runs.make("plain", **asked)
    assert runs.train(measured, unhurried) == 0, measured.log.read_text()
    assert runs.train(plain, never_measured) == 0, plain.log.read_text()
    one, other = state(measured, 2), state(plain, 2)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert sorted(shares(measured)) == [0, 1, 2]
    assert shares(measured)[0]["decode_head"].keys() == {"m2f", "focal"}
    assert_as_proved(measured)


def test_measuring_that_fails_is_no_failure_of_the_run(runs: Runs) -> None:
    run = runs.make(max_iters=4, eval_interval=2)

    def before() -> None:
        from prove.training import gradients

        unhurried()
        measure, calls = gradients.gradient_shares, []

        def failing(*arguments: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return measure(*arguments, **named)

        gradients.gradient_shares = failing

    assert runs.train(run, before) == 0, run.log.read_text()
    assert sorted(shares(run)) == [0]
    assert run.log.read_text().count("no longer measured: OutOfMemoryError") == 1
    assert events(run, "finished")


def test_it_is_measured_less_often_where_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    from prove.training import gradients

    now = [1000.0]
    monkeypatch.setattr(gradients.time, "monotonic", lambda: now[0])

    def slow(*arguments: Any, **named: Any) -> dict[str, Any]:
        now[0] += 3.0
        return {}

    monkeypatch.setattr(gradients, "gradient_shares", slow)
    watch = gradients.GradientWatch((), max_iters=1000)
    assert not watch.is_due(always=True)  # there is no batch yet
    watch.batch = object()
    assert watch.is_due(always=True)
    watch.measure(None, 0)
    times = []
    for iteration in range(1, 101):
        now[0] += 10.0
        if watch.is_due(always=iteration == 100):
            times.append(iteration)
            watch.measure(None, iteration)
    spent, elapsed = 3.0 * (1 + len(times)), now[0] - 1000.0
    assert 4 <= len(times) <= 8
    assert times[-1] == 100
    assert spent - 3.0 <= 0.02 * elapsed  # but for the last, which is always measured


def test_predictions_are_those_that_were_counted(trained: RunDir, camvid: Path) -> None:
    with np.load(trained.predictions) as kept, np.load(trained.confusion) as counts:
        assert list(kept["ids"]) == list(counts["ids"])  # the three images that there are
        assert list(kept["conditions"]) == list(counts["conditions"])
        assert list(kept["classes"]) == list(counts["classes"])
        assert (kept["palette"].shape, kept["palette"].dtype) == ((11, 3), np.uint8)
        assert int(kept["iteration"]) == 4
        for index, path in enumerate(kept["paths"]):
            predicted, truth = kept[f"predicted_{index}"], kept[f"truth_{index}"]
            assert predicted.dtype == truth.dtype == np.uint8
            image, label = pixels(camvid / str(path)), pixels(camvid / str(path).replace("val/", "valannot/"))
            assert image.shape[:2] == truth.shape == predicted.shape
            np.testing.assert_array_equal(truth, np.where(label == 11, 255, label))
            labelled = truth != 255
            confusion = np.zeros((11, 11), np.int64)
            np.add.at(confusion, (truth[labelled], predicted[labelled]), 1)
            np.testing.assert_array_equal(confusion, counts["confusion"][index])
            assert summarize(confusion)["aAcc"] > 0
    best = events(trained, "finished")[0]["best"]["iteration"]
    with np.load(trained.best_predictions) as kept:
        assert int(kept["iteration"]) == best
    assert trained.predictions.stat().st_size < 100_000
