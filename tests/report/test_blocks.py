"""Which runs stand together, which are left out, and why."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from prove.report.blocks import form_blocks
from prove.report.study import Trained
from prove.spec.event import FailureKind, State

FACTS = {"max_iters": 400, "lr": 0.01, "code": "one", "data_train": "data"}


def study(*rows: tuple[str, int, dict[str, object]], model: str = "M") -> list[Trained]:
    return [
        Trained(
            i, f"{loss}/{seed}/{i}", "D", model, "baseline", loss, seed, State.FINISHED, None, "", "", 400, 400, None,
            None, {**FACTS, **facts},
        )
        for i, (loss, seed, facts) in enumerate(rows)
    ]  # fmt: skip


def blocks_of(runs, *, numbers=None, allow_mixed=False):
    found = {run.run_id: 50.0 for run in runs} if numbers is None else numbers
    return form_blocks(runs, lambda losses: "ce" if "ce" in losses else None, found, allow_mixed=allow_mixed)


def grid(losses=("ce", "focal"), seeds=3, **facts):
    return [(loss, seed, dict(facts)) for loss in losses for seed in range(seeds)]


def test_a_plain_study_is_one_block_with_nothing_left_out() -> None:
    (block,) = blocks_of(study(*grid()))
    assert block.losses == ("ce", "focal")
    assert block.seeds == (0, 1, 2)
    assert len(block.runs) == 6
    assert block.baseline == "ce"
    assert block.left_out == ()
    assert str(block.key) == "D, M"


def test_the_baseline_comes_first_wherever_it_was_registered() -> None:
    (block,) = blocks_of(study(*grid(("focal", "dice", "ce"))))
    assert block.losses == ("ce", "focal", "dice")


def test_settings_that_the_baseline_never_had_are_left_out_with_the_difference() -> None:
    runs = study(*grid(), *grid(("lovasz",), max_iters=200))
    (block,) = blocks_of(runs)
    assert [out.run.loss for out in block.left_out] == ["lovasz"] * 3
    assert {out.kind for out in block.left_out} == {"not comparable"}
    assert "another number of iterations (200, not 400)" in block.left_out[0].reason
    assert "lovasz" in block.losses  # the table has its row, with the reason in place of an effect


def test_settings_that_the_baseline_had_as_well_are_a_block_of_their_own() -> None:
    first, second = blocks_of(study(*grid(), *grid(max_iters=200)))
    assert (first.key.settings, second.key.settings) == ("max_iters 400", "max_iters 200")
    assert first.left_out == second.left_out == ()


def test_strays_go_to_the_nearest_settings() -> None:
    runs = study(*grid(), *grid(max_iters=200, lr=0.02), *grid(("dice",), 1, max_iters=200, lr=0.01))
    first, second = blocks_of(runs)
    # one difference from either; the larger group, then the first, has it
    assert [len(block.left_out) for block in (first, second)] == [1, 0]


def test_other_code_is_left_out_and_the_larger_comparable_set_wins() -> None:
    rows = grid()
    rows[5] = ("focal", 2, {"code": "two"})
    (block,) = blocks_of(study(*rows))
    assert [out.run.key for out in block.left_out] == ["focal/2/5"]
    assert "trained by other code of PROVE (two, not one)" in block.left_out[0].reason
    assert ("focal", 2) not in block.runs


def test_the_set_with_more_pairs_wins_over_the_one_with_more_runs() -> None:
    lonely = [("dice", seed, {"code": "two"}) for seed in range(9)]
    (block,) = blocks_of(study(*grid(seeds=2), *lonely))
    assert set(block.runs) == {(loss, seed) for loss in ("ce", "focal") for seed in range(2)}


def test_allow_mixed_lets_them_in_and_keeps_the_reason() -> None:
    runs = study(*grid(), *grid(("lovasz",), max_iters=200))
    (block,) = blocks_of(runs, allow_mixed=True)
    assert len(block.runs) == 9
    assert len(block.mixed) == 3
    assert all("another number of iterations" in reason for reason in block.mixed.values())
    assert block.left_out == ()


def test_allow_mixed_never_replaces_a_comparable_run() -> None:
    runs = study(*grid(), ("focal", 0, {"code": "two"}))
    (block,) = blocks_of(runs, allow_mixed=True)
    assert block.runs["focal", 0].facts["code"] == "one"
    assert [out.run.key for out in block.left_out] == ["focal/0/6"]


def test_what_failed_or_has_not_finished_is_left_out_with_its_reason() -> None:
    runs = study(*grid())
    runs[4] = dataclasses.replace(runs[4], state=State.FAILED, failure=FailureKind.DIVERGED, message="loss is nan")
    runs[5] = dataclasses.replace(runs[5], state=State.RUNNING)
    (block,) = blocks_of(runs)
    assert [(out.kind, out.reason) for out in block.left_out] == [
        ("failed", "diverged: loss is nan"),
        ("unfinished", "running"),
    ]
    assert ("focal", 1) not in block.runs


def test_a_finished_run_without_a_number_is_left_out() -> None:
    runs = study(*grid())
    numbers = {run.run_id: 50.0 for run in runs} | {4: None, 5: float("nan")}
    (block,) = blocks_of(runs, numbers=numbers)
    assert [out.kind for out in block.left_out] == ["no number", "no number"]


def test_without_a_finished_baseline_there_is_no_baseline_and_it_says_why() -> None:
    runs = [
        dataclasses.replace(run, state=State.FAILED, failure=FailureKind.OUT_OF_MEMORY) if run.loss == "ce" else run
        for run in study(*grid())
    ]
    (block,) = blocks_of(runs)
    assert block.baseline is None
    assert "3 failed" in block.why


def test_models_are_blocks_of_their_own() -> None:
    runs = [*study(*grid()), *(dataclasses.replace(run, run_id=run.run_id + 10) for run in study(*grid(), model="N"))]
    assert [block.key.model for block in blocks_of(runs)] == ["M", "N"]


def test_the_order_of_the_runs_changes_nothing_but_the_order_of_the_losses() -> None:
    runs = study(*grid(), ("focal", 2, {"code": "two"}), *grid(("dice",), lr=0.5))
    (forwards,), (backwards,) = blocks_of(runs), blocks_of(list(reversed(runs)))
    assert forwards == backwards


def test_runs_that_differ_in_what_is_only_told_never_displace_each_other() -> None:
    both = study(*grid(amp_asked=True), *grid(amp_asked=False))
    first, second = blocks_of(both)
    assert {block.key.settings for block in (first, second)} == {"amp True", "amp False"}
    twice = study(*grid(amp_asked=True), *grid(("focal",), amp_asked=False))
    (block,) = blocks_of(twice)
    assert block.runs["focal", 0].facts["amp_asked"] is True
    assert [out.reason.split(";")[0] for out in block.left_out] == ["a second run of this loss and seed"] * 3
    alone = study(*grid(("ce",), amp_asked=True), *grid(("focal",), amp_asked=False))
    (block,) = blocks_of(alone)
    assert len(block.runs) == 6  # told, not forbidden


def test_without_a_pair_the_baselines_set_is_the_reference() -> None:
    rows = [*grid(("ce",), code="one"), *grid(("focal",), seeds=5, code="two")]
    (block,) = blocks_of(study(*rows))
    assert block.baseline == "ce"
    assert {out.run.loss for out in block.left_out} == {"focal"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ce", "focal", "dice"]),
            st.integers(0, 2),
            st.fixed_dictionaries(
                {},
                optional={
                    "max_iters": st.sampled_from([200, 400]),
                    "code": st.sampled_from(["one", "two"]),
                    "amp_asked": st.booleans(),
                    "device": st.sampled_from(["A", "B"]),
                },
            ),
        ),
        min_size=1,
        max_size=14,
    ),
    st.booleans(),
)
def test_no_run_is_lost_and_none_counts_twice(rows, allow_mixed) -> None:
    runs = study(*rows)
    told = [
        each.run_id
        for block in blocks_of(runs, allow_mixed=allow_mixed)
        for each in (*block.runs.values(), *(out.run for out in block.left_out))
    ]
    assert sorted(told) == [run.run_id for run in runs]
