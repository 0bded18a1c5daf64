"""What a run is trained on is said before it begins, in numbers that its sampler keeps."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from prove.cli.request import RunRequest, plan
from prove.cli.run import headline
from prove.data.compose import counts_in_words
from prove.training.dataset import PositionSampler


def lines(camvid: Path, **settings: object) -> list[str]:
    request = RunRequest(
        dataset="CamVid", model="fcn_tiny", data_root=str(camvid), device="cpu", pretrained=False, **settings
    )  # type: ignore[arg-type]
    chosen = plan(request)
    return headline(chosen.job, counts_in_words(chosen.dataset)).splitlines()


def test_nothing_is_said_of_the_whole_dataset(camvid: Path) -> None:
    assert len(lines(camvid)) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"domain_filter": "day"}, "day alone"),
        (
            {"strategy": "gen_random_noise", "real_gen_ratio": 0.3},
            "30% real images: 2 real and 4 generated images an epoch, out of 6 and 6",
        ),
        (
            {"strategy": "gen_random_noise", "domain_filter": "dusk"},
            "dusk alone, 50% real images: 2 real and 1 generated images an epoch, out of 3 and 3",
        ),
    ],
)
def test_the_third_line_says_what_an_epoch_is(settings: dict[str, object], said: str, camvid: Path) -> None:
    assert lines(camvid, **settings)[2] == f"  trained on {said}"


def test_what_is_said_is_what_is_drawn(camvid: Path) -> None:
    """Six images, 0.3 of them real: two and four, by the sampler that training uses."""
    chosen = plan(
        RunRequest(
            dataset="CamVid", model="fcn_tiny", data_root=str(camvid), device="cpu", pretrained=False,
            strategy="gen_random_noise", real_gen_ratio=0.3,
        )
    )  # fmt: skip

    class Drawn:
        samples = chosen.dataset.train.samples
        draws = chosen.dataset.draws

    drawn = [Drawn.samples[index].noise for index, _ in islice(PositionSampler(Drawn(), 0), 6)]
    assert (drawn.count(False), drawn.count(True)) == (2, 4)
