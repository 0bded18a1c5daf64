"""Names of strategies: what can be combined, in which order it happens, what is refused."""

from __future__ import annotations

import itertools

import pytest

from prove.catalog.strategies import STAGES, STRATEGIES, require_batch, resolve_strategy
from prove.errors import ProveError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("baseline", "baseline"),
        ("std_cutmix", "std_cutmix"),
        ("std_cutmix + std_randaugment", "std_randaugment+std_cutmix"),
        ("std_mixup+std_autoaugment+std_minimal", "std_minimal+std_autoaugment+std_mixup"),
        ("std_cutmix+gen_cycleGAN", "gen_cycleGAN+std_cutmix"),
        ("baseline+std_mixup", "std_mixup"),
        ("gen_a.b-1", "gen_a.b-1"),
    ],
)
def test_parts_are_written_in_any_order_and_have_one_name(text: str, name: str) -> None:
    assert resolve_strategy(text).name == name
    assert resolve_strategy(name) == resolve_strategy(text)


def test_parts_happen_in_the_order_of_their_stages() -> None:
    names = [entry.name for entry in STRATEGIES]
    for size in (2, 3):
        for chosen in itertools.permutations(names, size):
            stages = [STRATEGIES.get(name).stage for name in chosen]
            if len(set(stages)) < size:
                with pytest.raises(ProveError, match="can't have both"):
                    resolve_strategy("+".join(chosen))
                continue
            found = [entry.stage for entry in resolve_strategy("+".join(chosen)).standard]
            assert found == sorted(found, key=list(STAGES).index)


def test_what_excludes_each_other_is_named_with_the_reason() -> None:
    with pytest.raises(ProveError) as error:
        resolve_strategy("std_mixup+std_cutmix")
    assert "both std_cutmix and std_mixup: each mixes the images of a batch" in error.value.message
    assert "Keep one of them" in error.value.hint
    with pytest.raises(ProveError, match="both std_autoaugment and std_randaugment"):
        resolve_strategy("std_randaugment+std_autoaugment")
    with pytest.raises(ProveError, match="both baseline and std_minimal"):
        resolve_strategy("baseline+std_minimal")


def test_a_misspelt_strategy_is_answered_with_the_nearest() -> None:
    with pytest.raises(ProveError) as error:
        resolve_strategy("gen_x+std_mixupp")
    assert "'std_mixup'" in error.value.hint


def test_the_frame_is_the_baselines_unless_another_is_named() -> None:
    frame = resolve_strategy("std_mixup").part("frame")
    assert frame is not None
    assert frame.name == "baseline"
    frame = resolve_strategy("std_minimal").part("frame")
    assert frame is not None
    assert frame.name == "std_minimal"
    assert resolve_strategy("baseline").part("mix") is None


def test_one_image_can_be_mixed_with_nothing() -> None:
    for name in ("std_cutmix", "std_randaugment+std_mixup"):
        with pytest.raises(ProveError) as error:
            require_batch(resolve_strategy(name), 1)
        assert name.split("+")[-1] in error.value.message
        assert "--batch-size 1" in error.value.message
        require_batch(resolve_strategy(name), 2)
    require_batch(resolve_strategy("std_randaugment"), 1)


def test_every_strategy_of_a_paper_names_it() -> None:
    for entry in STRATEGIES:
        assert bool(entry.source) == (entry.stage != "frame")
        assert bool(entry.mix) == (entry.stage == "mix")
        assert bool(entry.steps) == (entry.stage != "mix")
