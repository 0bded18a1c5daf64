"""The wiring proof against sabotage of CutMix and MixUp: whatever is done to them, the run must fail as `wiring`."""

from __future__ import annotations

import dataclasses
import functools
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import TINY, Runs, events

from prove.build.job_config import build_config
from prove.build.objective import HeadPlan
from prove.catalog.strategies import resolve_strategy
from prove.cli.request import RunRequest, plan
from prove.cli.tables import verdict
from prove.errors import ProveError
from prove.training.evidence import Evidence
from prove.training.stack import load_stack

load_stack()

from mmseg.registry import DATASETS, MODELS  # noqa: E402

from prove.training import fused_heads, mask2former, registered  # noqa: E402, F401 - registers what configs name
from prove.training.fused_heads import fuse_heads  # noqa: E402
from prove.training.mixing import SECOND_LABELS, CutMix, MixUp, mix_of, second_labels  # noqa: E402
from prove.training.objective import labels_of  # noqa: E402
from prove.training.session import proof_batch  # noqa: E402
from prove.training.wiring import prove_wiring  # noqa: E402
from prove.training.wiring_mix import prove_mix  # noqa: E402

STRATEGY = {"MixUp": "std_mixup", "CutMix": "std_cutmix"}


@pytest.mark.parametrize("kind", STRATEGY)
def test_what_a_mixed_batch_showed_is_in_the_evidence(runs: Runs, kind: str) -> None:
    run = runs.make(strategy=STRATEGY[kind], loss="ce + 0.3*lovasz + 0.1*distance")
    assert runs.train(run) == 0, run.log.read_text()
    evidence = json.loads(run.evidence.read_text())
    mix = evidence["mix"]
    assert (evidence["ok"], mix["mix"], mix["alpha"]) == (True, kind, {"MixUp": 0.2, "CutMix": 1.0}[kind])
    assert 0.2 <= mix["share"] <= 0.8
    assert mix["total"] == pytest.approx(mix["formula"], rel=1e-3)
    assert mix["total"] != pytest.approx(evidence["total"], rel=1e-6)


def test_a_strategy_that_mixes_nothing_has_nothing_to_show(runs: Runs) -> None:
    run = runs.make(strategy="std_minimal+std_photometric_distort")
    assert runs.train(run) == 0, run.log.read_text()
    assert json.loads(run.evidence.read_text())["mix"] is None


# what is done to MixUp's losses: in the place of `over_labels` in the heads


def second_label_dropped(honest: Any, samples: Any, losses_for: Any) -> Any:
    return losses_for(labels_of(samples), None)


def shares_ignored(honest: Any, samples: Any, losses_for: Any) -> Any:

    seconds = second_labels(samples)
    if seconds is None:
        return honest(samples, losses_for)
    own, other = losses_for(labels_of(samples), None), losses_for(seconds, None)
    return {name: 0.5 * own[name] + 0.5 * other[name] for name in own}


def shares_swapped(honest: Any, samples: Any, losses_for: Any) -> Any:
    copies = [sample.clone() for sample in samples]
    for copy in copies:
        if "mix_share" in copy.metainfo:
            copy.set_metainfo({"mix_share": 1.0 - copy.mix_share})
    return honest(copies, losses_for)


def one_term_left_unmixed(honest: Any, samples: Any, losses_for: Any) -> Any:
    return {**honest(samples, losses_for), "loss_focal": losses_for(labels_of(samples), None)["loss_focal"]}


def second_label_without_a_gradient(honest: Any, samples: Any, losses_for: Any) -> Any:
    """The values are right; only the own labels train."""
    found, own = honest(samples, losses_for), losses_for(labels_of(samples), None)
    return {name: found[name].detach() + own[name] - own[name].detach() for name in found}


LOSSES = [
    second_label_dropped, shares_ignored, shares_swapped, one_term_left_unmixed, second_label_without_a_gradient,
]  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """A model about to be trained, a batch, and the evidence of the plain batch."""

    model: Any
    batch: Any
    mix: Any
    heads: tuple[HeadPlan, ...]
    planned: Any
    evidence: Evidence

    def prove(self, mix: Any = None) -> Evidence:
        return prove_mix(
            self.evidence, self.model, self.batch, mix or self.mix, self.planned, self.heads, class_weight=None
        )


@pytest.fixture(scope="module")
def bench(camvid: Path) -> Callable[..., Bench]:
    @functools.cache
    def of(kind: str, model: str = "fcn_tiny", loss: str = "ce + 0.3*focal") -> Bench:
        chosen = plan(RunRequest(**{
            **TINY, "data_root": str(camvid), "strategy": STRATEGY[kind], "model": model, "loss": loss,
            "pretrained": False,
        }))  # fmt: skip
        built = build_config(chosen.job, chosen.dataset, chosen.placement)
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            segmentor = MODELS.build(built.config.model)
        fuse_heads(segmentor)
        batch, _ = proof_batch(DATASETS.build(built.config.train_dataloader.dataset), 2)
        evidence = prove_wiring(segmentor, batch, built.heads, objective=loss, class_weight=None)
        assert evidence.ok, evidence.problems
        planned = resolve_strategy(STRATEGY[kind]).part("mix")
        return Bench(segmentor, batch, mix_of(built.config.train_cfg.mix), built.heads, planned, evidence)

    return of


@pytest.mark.parametrize("kind", STRATEGY)
def test_an_honest_mix_is_proved_and_leaves_the_model_as_it_was(bench: Any, kind: str) -> None:
    made = bench(kind)
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    state = torch.get_rng_state()
    assert made.prove().problems == ()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in made.model.state_dict().items())


@pytest.mark.parametrize("kind", STRATEGY)
def test_what_is_printed_of_a_proof_says_that_batches_are_mixed(bench: Any, kind: str) -> None:
    evidence = bench(kind).prove()
    line = verdict(evidence.to_dict()).splitlines()[1]
    assert line.startswith(f"  mixed by {kind}, {evidence.mix.share:.2f} own, it is {evidence.mix.total:.4g}; ")
    assert "mixed by" not in verdict(bench(kind).evidence.to_dict())


@pytest.mark.parametrize("spoil", LOSSES, ids=lambda spoil: spoil.__name__)
def test_sabotage_of_mixed_losses_is_a_problem(
    bench: Any, spoil: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_heads, "over_labels", functools.partial(spoil, fused_heads.over_labels))
    problems = bench("MixUp").prove().problems
    assert problems
    assert all("on a batch mixed by MixUp" in problem for problem in problems)


MASK_LOSSES = [second_label_dropped, shares_swapped, second_label_without_a_gradient]


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("spoil", [None, *MASK_LOSSES], ids=lambda spoil: getattr(spoil, "__name__", "honest"))
def test_sabotage_of_a_mask_heads_mixed_losses_is_a_problem(
    bench: Any, spoil: Callable[..., Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench("MixUp", "mask2former_tiny", "m2f + 0.3*lovasz")
    if spoil is not None:
        monkeypatch.setattr(mask2former, "over_labels", functools.partial(spoil, mask2former.over_labels))
    assert bool(made.prove().problems) == (spoil is not None)


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_the_gradients_of_many_layers_are_not_held_together(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Mask2Former has 30 losses on outputs of 0.3 GB: for each loss and label map at once, gradients fill 16 GB."""
    from prove.training import wiring_mix

    held = []
    examine = wiring_mix._pieces

    def counted(*args: Any) -> Any:
        pieces = examine(*args)
        held.extend(value.numel() for losses in pieces.losses for value in losses.values())
        return pieces

    monkeypatch.setattr(wiring_mix, "_pieces", counted)
    assert not bench("MixUp", "mask2former_tiny", "m2f + 0.3*lovasz").prove().problems
    assert len(held) > 10
    assert set(held) == {1}
    outputs = [torch.zeros(2, requires_grad=True), torch.ones(3, requires_grad=True)]
    gradient = wiring_mix._gradient(outputs[1].square().sum(), outputs)
    assert gradient[0] is None
    assert wiring_mix._norm(gradient) == pytest.approx(2 * 3**0.5)


# what is done to the batches: in the place of the mix


def not_at_all(mix: Any, batch: Any, rng: Any) -> Any:
    return batch


def labels_not_pasted(mix: Any, batch: Any, rng: Any) -> Any:
    mixed = mix(batch, rng)
    for sample, plain in zip(mixed["data_samples"], batch["data_samples"], strict=True):
        sample.gt_sem_seg.data = plain.gt_sem_seg.data.clone()
    return mixed


def pixels_not_mixed(mix: Any, batch: Any, rng: Any) -> Any:
    return {**mix(batch, rng), "inputs": [image.float() for image in batch["inputs"]]}


def one_image_twice(mix: Any, batch: Any, rng: Any) -> Any:
    """Each image is mixed with itself."""
    double = {name: [values[0], values[0]] for name, values in batch.items()}
    return mix(double, rng)


def share_misreported(mix: Any, batch: Any, rng: Any) -> Any:
    mixed = mix(batch, rng)
    for sample in mixed["data_samples"]:
        sample.set_metainfo({"mix_share": (sample.mix_share + 0.5) / 2})
    return mixed


def box_of_labels_elsewhere(mix: Any, batch: Any, rng: Any) -> Any:
    mixed = mix(batch, rng)
    for sample in mixed["data_samples"]:
        sample.gt_sem_seg.data = torch.roll(sample.gt_sem_seg.data, 3, -1)
    return mixed


BATCHES = [
    ("CutMix", not_at_all), ("CutMix", labels_not_pasted), ("CutMix", pixels_not_mixed), ("CutMix", one_image_twice),
    ("CutMix", share_misreported), ("CutMix", box_of_labels_elsewhere),
    ("MixUp", not_at_all), ("MixUp", pixels_not_mixed), ("MixUp", one_image_twice), ("MixUp", share_misreported),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spoil"), BATCHES, ids=lambda value: getattr(value, "__name__", value))
def test_sabotage_of_the_mix_is_a_problem(
    bench: Any, kind: str, spoil: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = type(bench(kind).mix)
    honest = cls.__call__
    monkeypatch.setattr(cls, "__call__", lambda self, batch, rng: spoil(lambda *a: honest(self, *a), batch, rng))
    problems = bench(kind).prove().problems
    assert any(problem.startswith(f"{kind}: ") for problem in problems), problems


# what is done to the loop


def test_a_loop_that_does_otherwise_than_the_strategy_says(bench: Any) -> None:
    mixup, cutmix = bench("MixUp"), bench("CutMix")
    assert "the training loop by {'type': 'CutMix'" in mixup.prove(cutmix.mix).problems[0]
    assert "'alpha': 0.9" in mixup.prove(dataclasses.replace(mixup.mix, alpha=0.9)).problems[0]
    nobody = dataclasses.replace(mixup, planned=None)
    assert "the strategy mixes batches by nothing" in nobody.prove().problems[0]


def assert_fails_as_wiring(runs: Runs, before: Callable[[], None], **changes: Any) -> str:
    run = runs.make(**{"aux_loss": "focal", **changes})
    assert runs.train(run, before) == 1, run.log.read_text()
    last = events(run)[-1]
    assert (last["kind"], last["failure"]) == ("failed", "wiring"), run.log.read_text()
    assert not events(run, "train")
    assert json.loads(run.evidence.read_text())["ok"] is False
    return str(last["message"])


def test_a_run_whose_loop_does_not_mix_fails_as_wiring(runs: Runs) -> None:
    def before() -> None:
        from prove.training import runner

        runner.mix_of = lambda options: None

    assert "the training loop by nothing" in assert_fails_as_wiring(runs, before, strategy="std_mixup")


def test_a_run_with_spoilt_losses_fails_as_wiring(runs: Runs) -> None:
    def before() -> None:
        fused_heads.over_labels = functools.partial(second_label_dropped, fused_heads.over_labels)

    assert "on a batch mixed by MixUp" in assert_fails_as_wiring(runs, before, strategy="std_mixup")


def test_a_run_whose_labels_are_not_pasted_fails_as_wiring(runs: Runs) -> None:
    def before() -> None:
        honest = CutMix.__call__
        CutMix.__call__ = lambda self, batch, rng: labels_not_pasted(lambda *a: honest(self, *a), batch, rng)

    assert "CutMix: the labels of a mixed image" in assert_fails_as_wiring(runs, before, strategy="std_cutmix")


def labels_of_the_image_after(mix: Any, batch: Any, rng: Any) -> Any:
    """The pixels that are mixed in are those of the image before; of two images it is the same."""
    mixed = mix(batch, rng)
    plain = [sample.gt_sem_seg.data for sample in batch["data_samples"]]
    for index, sample in enumerate(mixed["data_samples"]):
        getattr(sample, SECOND_LABELS).data = plain[(index + 1) % len(plain)]
    return mixed


def test_a_run_whose_labels_are_of_another_image_of_the_batch_fails_as_wiring(runs: Runs) -> None:
    def before() -> None:
        honest = MixUp.__call__
        MixUp.__call__ = lambda self, batch, rng: labels_of_the_image_after(lambda *a: honest(self, *a), batch, rng)

    said = assert_fails_as_wiring(runs, before, strategy="std_mixup", batch_size=3)
    assert "MixUp: the labels of a mixed image" in said


def test_a_head_that_mixup_can_not_be_used_with_is_refused_by_name(bench: Any) -> None:
    made = bench("MixUp")
    own = made.model.auxiliary_head.__dict__.pop("loss_by_feat")  # as of a head whose class has another one
    try:
        with pytest.raises(ProveError, match="std_mixup can't mix the losses of auxiliary_head: FCNHead"):
            made.prove()
    finally:
        made.model.auxiliary_head.__dict__["loss_by_feat"] = own
