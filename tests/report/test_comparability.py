"""What forbids a comparison, and what is only told."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prove.report.comparability import FACTS, FORBIDDING, TOLD, signature, warnings, why_not_comparable
from prove.report.study import Trained
from prove.spec.event import State

FULL = {
    "max_iters": 400, "lr": 0.01, "batch_size": 4, "crop_size": "128x128", "early_stop": "none", "eval_interval": 100,
    "val_images": "all", "pretrained": True, "settings": "", "definition": "{}", "model": "segformer_mit-b0",
    "domain_filter": "all", "real_gen_ratio": "none", "weights": "none",
    "data_train": "a" * 64, "data_val": "b" * 64, "metric_version": 1, "weights_sha256": "c" * 64,
    "batch_size_per_device": 4, "code": "d" * 64, "libraries": (("torch", "2"), ("numpy", "2")),
    "iteration": 400, "versions": "{}", "device": "A100", "amp": True, "deterministic": False, "resumed": False,
}  # fmt: skip

OTHER = {
    "max_iters": 200, "lr": 0.02, "batch_size": 8, "crop_size": "256x256", "early_stop": "mIoU", "eval_interval": 50,
    "val_images": 20, "pretrained": False, "settings": '{"x":1}', "definition": '{"v":2}', "model": "other",
    "domain_filter": "clear_day+night", "real_gen_ratio": 0.5, "weights": "2" * 12,
    "data_train": "e" * 64, "data_val": "f" * 64, "metric_version": 2, "weights_sha256": "0" * 64,
    "batch_size_per_device": 2, "code": "1" * 64, "libraries": (("torch", "3"), ("numpy", "2")),
    "iteration": 300, "versions": '{"torch":"2.1"}', "device": "H100", "amp": False, "deterministic": True,
    "resumed": True,
}  # fmt: skip


def run(loss: str, seed: int, **facts: object) -> Trained:
    return Trained(
        seed + 10 * len(loss), f"{loss}{seed}", "D", "M", "baseline", loss, seed, State.FINISHED, None, "", "", 400,
        400, None, None, {**FULL, **facts},
    )  # fmt: skip


def test_the_samples_know_every_fact() -> None:
    assert set(FULL) == set(OTHER) == {fact.name for fact in FACTS}


@pytest.mark.parametrize("fact", FORBIDDING, ids=lambda fact: fact.name)
def test_each_forbidding_fact_forbids_and_is_named(fact) -> None:
    reason = why_not_comparable({**FULL, fact.name: OTHER[fact.name]}, FULL)
    assert reason.startswith(fact.what)
    assert ";" not in reason


@pytest.mark.parametrize("fact", TOLD, ids=lambda fact: fact.name)
def test_each_other_fact_warns_and_does_not_forbid(fact) -> None:
    assert why_not_comparable({**FULL, fact.name: OTHER[fact.name]}, FULL) == ""
    said = warnings([run("ce", 0), run("focal", 0, **{fact.name: OTHER[fact.name]})])
    assert len(said) == 1
    assert fact.what in said[0]


def test_no_difference_no_word() -> None:
    assert why_not_comparable(FULL, dict(FULL)) == ""
    assert warnings([run("ce", 0), run("focal", 0)]) == ()


def test_all_differences_are_named() -> None:
    reason = why_not_comparable(OTHER, FULL)
    assert all(fact.what in reason for fact in FORBIDDING)


def test_a_library_is_named_with_both_versions() -> None:
    assert "torch 3, not 2" in why_not_comparable(OTHER, FULL)


def test_a_difference_that_goes_with_the_loss_is_said() -> None:
    runs = [run("ce", seed) for seed in range(3)]
    mixed = [run("focal", 0, device="H100"), run("focal", 1), run("focal", 2)]
    assert "goes with the loss" not in warnings(runs + mixed)[0]
    confined = [run("focal", seed, device="H100") for seed in range(3)]
    assert "every run of focal" in warnings(runs + confined)[0]


def test_of_two_runs_of_which_nothing_is_recorded_nothing_speaks_against_a_comparison() -> None:
    assert why_not_comparable({}, {}) == ""
    assert "Nothing is recorded of it" in why_not_comparable({}, FULL)
    assert "Nothing is recorded of the others" in why_not_comparable(FULL, {})


facts = st.fixed_dictionaries({name: st.sampled_from([FULL[name], OTHER[name]]) for name in FULL})


@given(facts, facts)
def test_signature_agrees_with_the_reasons(a, b) -> None:
    assert (signature(a) == signature(b)) == (why_not_comparable(a, b) == "")


@given(facts, facts, facts)
def test_comparable_is_an_equivalence(a, b, c) -> None:
    def same(x, y):
        return why_not_comparable(x, y) == ""

    assert same(a, a)
    assert same(a, b) == same(b, a)
    for x, y, z in itertools.permutations((a, b, c)):
        assert not (same(x, y) and same(y, z)) or same(x, z)
