"""The wiring proof against sabotage: whatever is done to the built model, the run must fail as `wiring`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from training_runs import Runs, events


def edit_built_model(edit: Callable[[Any], None]) -> Callable[[], None]:
    """In the worker, edit the model right after the Runner has built it."""

    def before() -> None:
        from prove.training.runner import ProveRunner

        build = ProveRunner.build_model

        def sabotaged(self: Any, model: Any) -> Any:
            built = build(self, model)
            edit(built)
            return built

        ProveRunner.build_model = sabotaged

    return before


def drop_term(model: Any) -> None:
    model.decode_head.loss_decode = nn.ModuleList([model.decode_head.loss_decode[0]])


def auxiliary_head_keeps_ce(model: Any) -> None:
    model.auxiliary_head.loss_decode = nn.ModuleList([model.auxiliary_head.loss_decode[0]])


def drop_auxiliary_head(model: Any) -> None:
    model.auxiliary_head = None
    type(model).with_auxiliary_head = property(lambda self: False)


def ignore_weight(model: Any) -> None:
    term = model.decode_head.loss_decode[1]
    forward = term.forward
    term.forward = lambda *args, **kwargs: forward(*args, **kwargs) / term.loss_weight


def other_weight(model: Any) -> None:
    model.decode_head.loss_decode[1].loss_weight = 1.0


def frozen_weight(model: Any) -> None:
    """The right weight today, but not one that can be set."""
    term = model.decode_head.loss_decode[1]
    forward, frozen = term.forward, term.loss_weight
    term.forward = lambda *args, **kwargs: forward(*args, **kwargs) / term.loss_weight * frozen


def ignore_index_not_passed(model: Any) -> None:
    term = model.decode_head.loss_decode[1]
    forward = term.forward
    term.forward = lambda logits, label, weight=None, ignore_index=255: forward(logits, label, weight)


def ignore_index_lost(model: Any) -> None:
    model.decode_head.ignore_index = -100


def ignored_pixels_count(model: Any) -> None:
    """Ignored pixels are trained as class 0."""
    term = model.decode_head.loss_decode[1]
    forward = term.forward
    term.forward = lambda logits, label, weight=None, ignore_index=255: forward(
        logits, torch.where(label == 255, 0, label), weight, ignore_index=ignore_index
    )


def leak_into_ignored(model: Any) -> None:
    """The value is right, but ignored pixels get a gradient that the value does not show."""
    term = model.decode_head.loss_decode[1]
    forward = term.forward

    def leaky(logits: Any, label: Any, weight: Any = None, *, ignore_index: int) -> Any:
        ignored = logits.permute(0, 2, 3, 1)[label == 255].sum()
        return forward(logits, label, weight, ignore_index=ignore_index) + 1e-6 * (ignored - ignored.detach())

    term.forward = leaky


def detach(model: Any) -> None:
    term = model.auxiliary_head.loss_decode[1]
    forward = term.forward
    term.forward = lambda *args, **kwargs: forward(*args, **kwargs).detach()


def rename(model: Any) -> None:
    model.decode_head.loss_decode[1].loss_name = "focal"


def share_a_name(model: Any) -> None:
    model.decode_head.loss_decode[1].loss_name = "loss_ce"


def another_term(model: Any) -> None:
    model.decode_head.loss_decode[1].term = model.decode_head.loss_decode[0].term


def other_parameter(model: Any) -> None:
    model.decode_head.loss_decode[1].term.gamma = 0.5


def extra_loss(model: Any) -> None:
    loss = model.loss
    model.loss = lambda *args, **kwargs: {**loss(*args, **kwargs), "loss_extra": next(model.parameters()).sum()}


def total_without_term(model: Any) -> None:
    """All is logged as it should be; what reaches backward lacks one term."""
    parse = model.parse_losses

    def short(losses: Any) -> Any:
        total, entries = parse(losses)
        return total - entries["decode.loss_focal"], entries

    model.parse_losses = short


def gradient_without_term(model: Any) -> None:
    """Even the total is right; only its gradient lacks one term."""
    parse = model.parse_losses

    def stealthy(losses: Any) -> Any:
        total, entries = parse(losses)
        term = entries["decode.loss_focal"]
        return total - term + term.detach(), entries

    model.parse_losses = stealthy


def detached_logits(model: Any) -> None:
    """The head trains its last layer's logits, and nothing behind them."""
    forward = model.decode_head.forward
    model.decode_head.forward = lambda inputs: forward(inputs).detach().requires_grad_()


def auxiliary_head_on_detached_features(model: Any) -> None:
    forward = model.auxiliary_head.forward
    model.auxiliary_head.forward = lambda inputs: forward([each.detach() for each in inputs])


def frozen_head(model: Any) -> None:
    for parameter in model.decode_head.parameters():
        parameter.requires_grad_(False)


def labels_lose_their_ignored_pixels(model: Any) -> None:
    """Before any head sees them, ignored pixels become class 0."""
    prepare = model.data_preprocessor.forward

    def spoilt(data: Any, training: bool = False) -> Any:
        done = prepare(data, training)
        for sample in done["data_samples"]:
            label = sample.gt_sem_seg.data
            label[label == 255] = 0
        return done

    model.data_preprocessor.forward = spoilt


def labels_shifted(model: Any) -> None:
    loss = model.loss

    def spoilt(inputs: Any, samples: Any) -> Any:
        for sample in samples:
            label = sample.gt_sem_seg.data
            sample.gt_sem_seg.data = torch.where(label == 255, 255, (label + 1) % 11)
        return loss(inputs, samples)

    model.loss = spoilt


SABOTAGE = [
    labels_lose_their_ignored_pixels, labels_shifted,
    detached_logits, auxiliary_head_on_detached_features, frozen_head,
    drop_term, auxiliary_head_keeps_ce, drop_auxiliary_head, ignore_weight, other_weight, frozen_weight,
    ignore_index_not_passed, ignore_index_lost, ignored_pixels_count, leak_into_ignored, detach, rename, share_a_name,
    another_term, other_parameter, extra_loss, total_without_term, gradient_without_term,
]  # fmt: skip


@pytest.mark.parametrize("edit", SABOTAGE, ids=lambda edit: edit.__name__)
def test_sabotage_fails_as_wiring(runs: Runs, edit: Callable[[Any], None]) -> None:
    run = runs.make(aux_loss="focal")
    assert runs.train(run, edit_built_model(edit)) == 1, run.log.read_text()
    last = events(run)[-1]
    assert (last["kind"], last["failure"]) == ("failed", "wiring"), run.log.read_text()
    assert not events(run, "train")
    assert not list(run.checkpoints.iterdir())
    if run.evidence.exists():
        assert json.loads(run.evidence.read_text())["ok"] is False


def spoil_fused(spoil: Callable[..., Any]) -> Callable[[Any], None]:
    """Change what the heads get from the fused evaluation of their terms."""

    def edit(model: Any) -> None:
        from prove.training import fused_heads

        honest = fused_heads.evaluate
        fused_heads.evaluate = lambda *args, **kwargs: spoil(honest, *args, **kwargs)

    return edit


def fused_without_a_graph(honest: Any, *args: Any, **kwargs: Any) -> Any:
    found = honest(*args, **kwargs)
    found.values["loss_focal"] = found.values["loss_focal"].detach()
    return found


def fused_terms_swapped(honest: Any, *args: Any, **kwargs: Any) -> Any:
    found = honest(*args, **kwargs)
    values = found.values
    values["loss_ce"], values["loss_focal"] = values["loss_focal"], values["loss_ce"]
    return found


def fused_corners_elsewhere(honest: Any, *args: Any, **kwargs: Any) -> Any:
    return honest(*args, **{**kwargs, "align_corners": not kwargs["align_corners"]})


def fused_gradient_of_nearest_upsampling(
    honest: Any, terms: Any, logits: Any, labels: Any, *rest: Any, **kwargs: Any
) -> Any:
    """The values are right; the gradient runs through another upsampling, which only low-resolution logits show."""
    found = honest(terms, logits, labels, *rest, **kwargs)
    if logits.shape[-2:] == labels.shape[-2:]:
        return found
    size = labels.shape[-2:]
    nearest = nn.functional.interpolate(logits, size=size)
    other = honest(terms, nearest, labels, *rest, **{**kwargs, "align_corners": None})
    for name, value in other.values.items():
        found.values[name] = found.values[name].detach() + value - value.detach()
    return found


def fused_ignored_pixels_count(honest: Any, terms: Any, logits: Any, labels: Any, *rest: Any, **kwargs: Any) -> Any:
    return honest(terms, logits, torch.where(labels == 255, 0, labels), *rest, **kwargs)


FUSED = [
    fused_without_a_graph, fused_terms_swapped, fused_corners_elsewhere, fused_gradient_of_nearest_upsampling,
    fused_ignored_pixels_count,
]  # fmt: skip


@pytest.mark.parametrize("spoil", FUSED, ids=lambda spoil: spoil.__name__)
def test_sabotage_of_the_fused_terms_fails_as_wiring(runs: Runs, spoil: Callable[..., Any]) -> None:
    run = runs.make(aux_loss="focal")
    assert runs.train(run, edit_built_model(spoil_fused(spoil))) == 1, run.log.read_text()
    last = events(run)[-1]
    assert (last["kind"], last["failure"]) == ("failed", "wiring"), run.log.read_text()


def reversed_gradient(model: Any) -> None:
    """The right value, pushed the wrong way."""
    term = model.decode_head.loss_decode[1]
    forward = term.forward

    def turned(*args: Any, **kwargs: Any) -> Any:
        value = forward(*args, **kwargs)
        return 2 * value.detach() - value

    term.forward = turned


@pytest.mark.parametrize("aux", ["lovasz", "focal", "dice", "boundary"])
def test_a_reversed_gradient_fails_as_wiring(runs: Runs, aux: str) -> None:
    run = runs.make(aux_loss=aux)
    assert runs.train(run, edit_built_model(reversed_gradient)) == 1, run.log.read_text()
    assert events(run)[-1]["failure"] == "wiring"
    assert f"{aux}: its gradient differs" in events(run)[-1]["message"]


def without_mining(model: Any) -> None:
    """At first every pixel is hard and kept: the real batch shows no difference."""
    model.decode_head.loss_decode[0].term = type(model.decode_head.loss_decode[0].term)(ignore_index=255)


def test_mining_that_was_dropped_fails_as_wiring(runs: Runs) -> None:
    run = runs.make(loss="ce(ohem, min_kept=100)")
    assert runs.train(run, edit_built_model(without_mining)) == 1, run.log.read_text()
    assert events(run)[-1]["failure"] == "wiring"


def test_a_class_weight_without_a_pixel_is_proved_too(camvid: Path, tmp_path: Path) -> None:
    """The batch has no pixel of the class whose weight was changed."""
    data = tmp_path / "data"
    for part in ("train", "trainannot", "val", "valannot"):
        shutil.copytree(camvid / part, data / part)
    for path in (data / "trainannot").iterdir():
        label = np.array(Image.open(path))
        label[label == 10] = 11
        Image.fromarray(label).save(path)
    runs = Runs(data, tmp_path / "results")

    def other_weight(model: Any) -> None:
        from prove.losses import build_term

        term = model.decode_head.loss_decode[0]
        weights = list(dict(term.spec.params)["class_weight"])
        term.term = build_term(term.spec.with_params({**dict(term.spec.params), "class_weight": (*weights[:10], 5)}))

    run = runs.make(loss="ce(class_weight=[1,2,1,1,1,1,1,1,1,1,1])")
    assert runs.train(run, edit_built_model(other_weight)) == 1, run.log.read_text()
    assert events(run)[-1]["failure"] == "wiring"


def test_a_parameter_that_the_optimiser_lacks_fails_as_wiring(runs: Runs) -> None:
    def before() -> None:
        from prove.training.runner import ProveRunner

        build = ProveRunner.build_optim_wrapper

        def poorer(self: Any, config: Any) -> Any:
            wrapper = build(self, config)
            group = wrapper.optimizer.param_groups[0]
            group["params"] = group["params"][1:]
            return wrapper

        ProveRunner.build_optim_wrapper = poorer

    run = runs.make()
    assert runs.train(run, before) == 1, run.log.read_text()
    assert "the optimiser does not hold 1 trainable" in events(run)[-1]["message"]


def schedule_stands_still(model: Any) -> None:
    model.decode_head.loss_decode[1].set_progress = lambda progress: None


def test_a_schedule_that_does_not_move_fails_as_wiring(runs: Runs) -> None:
    run = runs.make(loss="ce + 0.5->0.1*focal")
    assert runs.train(run, edit_built_model(schedule_stands_still)) == 1, run.log.read_text()
    assert events(run)[-1]["failure"] == "wiring"


def test_a_schedule_that_nobody_moves_is_noticed(runs: Runs) -> None:
    """The proof moves the weight itself; whether training does is seen in training."""

    def before() -> None:
        from prove.training.runner import ScheduleHook

        ScheduleHook.before_train_iter = lambda *args, **kwargs: None

    run = runs.make(loss="ce + 0.5->0.1*focal", max_iters=3, eval_interval=3)
    assert runs.train(run, before) == 1, run.log.read_text()
    last = events(run)[-1]
    assert (last["failure"], "weighs focal 0.5" in last["message"]) == ("wiring", True), last


def test_a_term_that_never_weighed_is_no_result(runs: Runs) -> None:
    """Early stopping ends the run before the term begins: what was trained is the baseline."""
    stop = {"early_stop": True, "patience": 1, "min_delta": 50.0, "eval_interval": 1}
    run = runs.make(loss="ce + constant(0.3, start=0.5)*focal", max_iters=20, lr=1e-12, **stop)
    assert runs.train(run) == 1, run.log.read_text()
    last = events(run)[-1]
    assert last["failure"] == "wiring"
    assert "focal never weighed anything" in last["message"]
    assert not events(run, "finished")


def test_a_term_lost_during_training_is_noticed(runs: Runs) -> None:
    """The proof held; then something drops the term."""

    def before() -> None:
        from prove.training.runner import ProveTrainLoop

        run_iter = ProveTrainLoop.run_iter

        def later(self: Any, batch: Any) -> None:
            if self._iter == 1:
                drop_term(self.runner.model)
            run_iter(self, batch)

        ProveTrainLoop.run_iter = later

    run = runs.make(aux_loss="focal", max_iters=3, eval_interval=3)
    assert runs.train(run, before) == 1
    last = events(run)[-1]
    assert (last["failure"], last["iteration"]) == ("wiring", 1)
    assert "decode.loss_focal is no longer among the losses" in last["message"]


def test_an_honest_run_carries_its_evidence(runs: Runs) -> None:
    run = runs.make(loss="ce(ohem, min_kept=100) + linear(0.5->0.1)*lovasz + 0.2*dice + 0.1*boundary + 0.3*focal")
    assert runs.train(run) == 0, run.log.read_text()
    evidence = json.loads(run.evidence.read_text())
    assert evidence["ok"], evidence["problems"]
    assert evidence["total"] == pytest.approx(evidence["formula"], rel=1e-4)
    assert [head["head"] for head in evidence["heads"]] == ["decode_head", "auxiliary_head"]
    shares = 0.0
    for head, ce_weight in zip(evidence["heads"], (1.0, 0.4), strict=True):
        weights = {term["term"]: term["weight"] for term in head["terms"]}
        assert weights == {"ce": ce_weight, "boundary": 0.1, "dice": 0.2, "focal": 0.3, "lovasz": 0.5}
        for term in head["terms"]:
            shares += term["loss_share"]
            assert term["ignored_gradient"] == 0.0
            assert term["valid_gradient"] > 0.0
            assert term["doubling"] == pytest.approx(2.0, rel=1e-4)
            assert term["value"] == pytest.approx(term["reference_value"], rel=1e-3)
        assert sum(term["gradient_share"] for term in head["terms"]) == pytest.approx(1.0)
    assert shares == pytest.approx(1.0)
    assert evidence["batch"]["ignored_pixels"] > 0


def test_a_delayed_term_is_proved_where_it_weighs(runs: Runs) -> None:
    run = runs.make(loss="ce + linear(0->0.5, start=0.5)*dice", max_iters=4, eval_interval=4)
    assert runs.train(run) == 0, run.log.read_text()
    dice = json.loads(run.evidence.read_text())["heads"][0]["terms"][1]
    assert (dice["term"], dice["progress"], dice["weight"]) == ("dice", 1.0, 0.5)
    assert dice["valid_gradient"] > 0
    first = events(run, "train")[0]
    assert first["weights"]["dice"] == 0.0
    assert first["terms"]["decode.loss_dice"] == 0.0
