"""Runs with a loss term of the user's own: the run folder is all that a worker needs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config
from test_wiring_mask2former import SMALL
from training_runs import Runs, events

from prove.build.configs import shipped
from prove.catalog.losses import LOSSES
from prove.catalog.user_terms import USER_TERMS

CODE = """
from prove.losses import Pixels, Term


class Sharpness(Term):
    name = "sharpness"

    def __init__(self, power: float = 2.0, ignore_index: int = 255) -> None:
        super().__init__(ignore_index)
        self.power = power

    def value(self, pixels: Pixels):
        doubt = 1.0 - (pixels.probs ** self.power).sum(dim=1)
        return (pixels.mass * doubt).sum() / pixels.mass.sum().clamp(min=1e-12)
"""

REFERENCE = """
    @staticmethod
    def reference(params, logits, labels, ignore_index):
        p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
        return 1 - (p.movedim(1, -1)[labels != ignore_index] ** params["power"]).sum(dim=-1).mean()
"""

YAML = """
name: sharpness
file: code/sharp.py
class: Sharpness
summary: Doubt.
params: {power: {default: 2.0, low: 1}}
"""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (LOSSES, USER_TERMS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))


def forget() -> None:
    """A worker is a new process: it knows what the run folder holds and nothing else."""
    for registry in (LOSSES, USER_TERMS):
        registry._entries.pop("sharpness", None)


@pytest.fixture
def term(tmp_path: Path) -> Path:
    """The YAML file of a term."""
    (tmp_path / "own" / "code").mkdir(parents=True)
    (tmp_path / "own" / "code" / "sharp.py").write_text(CODE)
    (tmp_path / "own" / "sharp.yaml").write_text(YAML)
    return tmp_path / "own" / "sharp.yaml"


@pytest.mark.parametrize("reference", ["", REFERENCE], ids=["without", "with"])
def test_a_run_folder_stands_alone(runs: Runs, term: Path, reference: str) -> None:
    (term.parent / "code" / "sharp.py").write_text(CODE + reference)
    run = runs.make(loss="ce + 0.5*sharpness(power=3)", terms=[term])
    shutil.rmtree(term.parent)
    assert runs.train(run, forget) == 0, run.log.read_text()
    assert events(run)[-1]["kind"] == "finished"
    evidence = json.loads(run.evidence.read_text())
    for head in evidence["heads"]:
        ce, own = head["terms"]
        assert (ce["second_implementation"], own["second_implementation"]) == (True, bool(reference))
        assert own["reference_value"] == pytest.approx(own["value"], rel=1e-5)
        assert own["ignored_gradient"] == 0.0
    (definition,) = {
        each["definition"] for each in Config.fromfile(run.config).model.decode_head.loss_decode if "definition" in each
    }
    assert definition == str(run.term_files("sharpness")[0])


def test_a_wrong_term_fails_as_wiring(runs: Runs, term: Path) -> None:
    (term.parent / "code" / "sharp.py").write_text(CODE + REFERENCE.replace('params["power"]', "2"))
    run = runs.make(loss="ce + 0.5*sharpness(power=3)", terms=[term])
    assert runs.train(run, forget) == 1
    (failed,) = events(run, "failed")
    assert failed["failure"] == "wiring"
    assert "decode_head, sharpness: its gradient differs from the reference's" in failed["message"]


def test_a_term_that_is_no_number_fails_as_wiring(runs: Runs, term: Path) -> None:
    (term.parent / "code" / "sharp.py").write_text(CODE.replace("return (pixels.mass * doubt).sum()", "return doubt"))
    run = runs.make(loss="ce + sharpness", terms=[term])
    assert runs.train(run, forget) == 1
    (failed,) = events(run, "failed")
    assert failed["failure"] == "wiring"
    assert "value returned a tensor of shape [2, 64, 64]; a term is one number" in failed["message"]


@pytest.mark.parametrize("damage", ["changed", "lost"])
def test_other_code_in_the_run_folder_is_not_trained(runs: Runs, term: Path, damage: str) -> None:
    run = runs.make(loss="ce + sharpness", terms=[term])
    if damage == "changed":
        run.term_files("sharpness")[1].write_text(CODE + "# another\n")
    else:
        shutil.rmtree(run.terms)
    assert runs.train(run, forget) == 1
    (failed,) = events(run)
    assert ("no longer the code" if damage == "changed" else "its files are missing") in failed["message"]


def test_on_the_semantic_map_of_a_mask_model(runs: Runs, term: Path, tmp_path: Path) -> None:
    small = tmp_path / "mask2former_small.py"
    small.write_text(SMALL.format(base=shipped("mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py")))
    (term.parent / "code" / "sharp.py").write_text(CODE + REFERENCE)
    run = runs.make(model=str(small), loss="ce + 0.5*sharpness", terms=[term])
    assert runs.train(run, forget) == 0, run.log.read_text()
    _, own = json.loads(run.evidence.read_text())["heads"][0]["terms"]
    assert own["text"] == "0.5*sharpness"
    assert own["reference_value"] == pytest.approx(own["value"], rel=1e-5)
