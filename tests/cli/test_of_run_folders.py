"""What `prove retry` takes from run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prove.cli.sweeping import of_run_folders
from prove.rundir import write_json
from prove.store import Store
from tests.journal import make_run


@pytest.mark.parametrize(
    ("asked", "cuda", "begun_on_cuda", "expected"),
    [
        ("cuda", True, None, "cuda"),
        ("cpu", False, None, "cpu"),
        ("auto", False, None, "auto"),  # it had no GPU, and has trained nothing
        ("auto", False, False, "cpu"),
        ("auto", False, True, "auto"),  # a slot without GPU was the wrong place to go on
        ("auto", True, True, "auto"),
        ("cuda", False, True, "cuda"),
        (None, False, None, "cpu"),  # started by `prove run`, or before the wish was kept
        (None, True, None, "auto"),
        (None, True, True, "auto"),
    ],
)
def test_the_device_that_was_asked_for_is_kept(
    tmp_path: Path, asked: str | None, cuda: bool, begun_on_cuda: bool | None, expected: str
) -> None:
    run = make_run(tmp_path)
    launch: dict[str, Any] = {"launcher": "local", "placement": {"cuda": cuda, "num_workers": 0}}
    write_json(run.launch, launch if asked is None else {**launch, "device": asked})
    if begun_on_cuda is not None:
        run.checkpoint(5).touch()
        write_json(run.env, {"placement": {"cuda": begun_on_cuda}})
    with Store.open(tmp_path) as store:
        assert [each.device for each in of_run_folders(store, [run.key]).assignments] == [expected]


def test_two_versions_of_a_term_stay_two(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, seed=seed) for seed in range(3)]
    for number, run in enumerate(runs):
        write_json(run.launch, {"launcher": "local", "placement": {"cuda": False}})
        run.terms.mkdir()
        for path in run.term_files("mine"):
            path.write_text(f"version {number % 2} of {path.suffix}")
    with Store.open(tmp_path) as store:
        prepared = of_run_folders(store, [run.key for run in runs])
    stems = [each.terms["mine"] for each in prepared.assignments]
    assert stems[0] == stems[2] != stems[1]
    assert prepared.files == {
        f"{stem}{suffix}": f"version {number} of {suffix}".encode()
        for number, stem in enumerate(stems[:2])
        for suffix in (".yaml", ".py")
    }
