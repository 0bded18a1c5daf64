"""Metrics on resampled images: from the run folders, then from the database."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prove.errors import ProveError
from prove.metrics import BoundaryCounts, ImageCounts, stack_counts, summarize_arrays
from prove.metrics.resample import RESAMPLES
from prove.report.replicates import Run, image_replicates
from prove.rundir import RunDir
from prove.store import Resampled, Store
from tests.journal import encoded, finished, make_run, started

IDS = [f"town/{number:02}" for number in range(9)]


def counts(seed: int, ids: list[str] = IDS) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in ids:
        confusion = rng.integers(0, 50, (3, 3)) + np.diag(rng.integers(50, 400, 3))
        whole = {name: rng.integers(20, 40, 3) for name in BoundaryCounts.__dataclass_fields__}
        pixels = rng.integers(1, 50, 15).astype(float)
        made.append(ImageCounts(confusion, BoundaryCounts(**whole), np.stack([pixels, pixels / 2, pixels // 3])))
    conditions = ["day" if number % 2 else "night" for number in range(len(ids))]
    return {**stack_counts(made, ids, conditions), "classes": np.array(["road", "car", "sign"])}


def finished_run(results: Path, seed: int, arrays: dict[str, Any] | None = None) -> RunDir:
    run = make_run(results, [started(), finished()], seed)
    if arrays is not None:
        np.savez_compressed(run.confusion, **arrays)
    return run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as store:
        yield store


def rows(store: Store, *runs: RunDir) -> list[Run]:
    store.refresh()
    found = {
        key: (run_id, key, at) for run_id, key, at in store.connection.query("SELECT id, key, finished_at FROM runs")
    }
    return [found[run.key] for run in runs]


def test_runs_are_resampled_alike_once_and_then_remembered(store: Store) -> None:
    runs = [finished_run(store.results_folder, seed, counts(seed)) for seed in range(3)]
    asked = rows(store, *runs)
    told: list[tuple[int, int]] = []
    first = image_replicates(store, asked, "last", "mIoU", "overall", lambda *each: told.append(each))
    assert told == [(1, 3), (2, 3), (3, 3)]
    for run_id, key, _ in asked:
        names, values, images, _, recorded = first[run_id]
        assert images == (len(IDS),)
        assert (names, values.shape, values.dtype) == (("",), (1, RESAMPLES), np.float32)
        with np.load(RunDir.of(store.results_folder, key).confusion) as arrays:
            point = summarize_arrays(arrays).metrics["mIoU"]
        assert recorded == (pytest.approx(point, abs=1e-9),)
        assert abs(values.mean() - point) < values.std()
    for run in runs:
        run.confusion.unlink()
    again = image_replicates(store, asked, "last", "mIoU", "overall", lambda *each: told.append(each))
    assert len(told) == 3
    assert again.keys() == first.keys()
    for run_id, (names, values, *_) in first.items():
        assert again[run_id][0] == names
        np.testing.assert_array_equal(again[run_id][1], values)
    assert image_replicates(store, asked, "last", "aAcc", "overall") == {}


def test_equal_counts_give_equal_replicates_in_any_order_of_images(store: Store) -> None:
    """What pairs runs: the same images are drawn, however a run listed them."""
    arrays = counts(0)
    order = np.random.default_rng(1).permutation(len(IDS))
    turned = {
        name: value[order] if len(np.shape(value)) and name != "classes" else value for name, value in arrays.items()
    }
    asked = rows(store, *(finished_run(store.results_folder, seed, each) for seed, each in enumerate((arrays, turned))))
    for metric, scope in (("bIoU", "overall"), ("ECE", "condition"), ("IoU", "class")):
        one, other = image_replicates(store, asked, "last", metric, scope).values()
        assert (
            one[0]
            == other[0]
            == {"overall": ("",), "condition": ("day", "night"), "class": ("road", "car", "sign")}[scope]
        )
        np.testing.assert_allclose(one[1], other[1], rtol=1e-6)
        assert one.images == other.images == {"overall": (9,), "condition": (4, 5), "class": (9, 9, 9)}[scope]
        assert one.digest == other.digest


def test_what_is_left_out_and_why(store: Store) -> None:
    folder = store.results_folder
    good = [finished_run(folder, seed, counts(seed)) for seed in (0, 1)]
    other = finished_run(folder, 2, counts(2, [*IDS[:-1], "town/99"]))
    without = finished_run(folder, 3)
    torn, empty, text, lacking = (finished_run(folder, seed, counts(seed)) for seed in (4, 5, 6, 7))
    content = torn.confusion.read_bytes()
    torn.confusion.write_bytes(content[: len(content) // 2])
    empty.confusion.write_bytes(b"")
    text.confusion.write_text("mIoU,aAcc\n")
    np.savez(lacking.confusion, ids=np.array(IDS))
    flipped = finished_run(folder, 8, counts(8))
    content = bytearray(flipped.confusion.read_bytes())
    content[200:260] = bytes(60)
    flipped.confusion.write_bytes(content)
    pickled = finished_run(folder, 9)
    np.savez(pickled.confusion, ids=np.array([{"a": 1}], dtype=object), metric_version=np.array(1))
    array = finished_run(folder, 11)
    with open(array.confusion, "wb") as file:
        np.save(file, np.ones(3))
    newer = finished_run(folder, 10, {**counts(10), "metric_version": np.array(99)})
    bad = [other, without, torn, empty, text, lacking, flipped, pickled, array, newer]
    asked, reasons = rows(store, *good, *bad), {}
    found = image_replicates(store, asked, "last", "mIoU", "overall", left_out=reasons)
    assert list(found) == [run_id for run_id, _, _ in asked[:2]]
    assert reasons.keys() == {run.key for run in bad if run is not without}  # a run may have no counts
    assert "other images" in reasons[other.key]
    assert "metric version 99" in reasons[newer.key]
    for run in (torn, empty, text, lacking, flipped, pickled, array):
        assert f"{run.confusion} can't be read" in reasons[run.key]
    assert image_replicates(store, asked[2:3], "last", "mIoU", "overall").keys() == {asked[2][0]}  # alone it is sound
    assert image_replicates(store, asked, "best", "mIoU", "overall", left_out=reasons) == {}


def test_the_best_checkpoint_has_counts_of_its_own(store: Store) -> None:
    run = finished_run(store.results_folder, 0, counts(0))
    np.savez_compressed(run.best_confusion, **counts(1))
    asked = rows(store, run)
    last, best = (image_replicates(store, asked, which, "mIoU", "overall") for which in ("last", "best"))
    assert np.abs(last[asked[0][0]][1] - best[asked[0][0]][1]).mean() > 0.1
    np.testing.assert_array_equal(
        image_replicates(store, asked, "best", "mIoU", "overall")[asked[0][0]][1], best[asked[0][0]][1]
    )


def test_a_run_that_finished_anew_is_computed_anew(store: Store) -> None:
    run = finished_run(store.results_folder, 0, counts(0))
    before = image_replicates(store, rows(store, run), "last", "mIoU", "overall")
    with open(run.events, "ab") as file:
        file.write(encoded([started(100.0, 2), finished(200.0, 2)]))
    np.savez_compressed(run.confusion, **counts(1))
    asked = rows(store, run)
    assert asked[0][2] > 0
    after = image_replicates(store, asked, "last", "mIoU", "overall")
    assert not np.array_equal(before[asked[0][0]][1], after[asked[0][0]][1])


@pytest.mark.parametrize("change", [{"form": 0}, {"resamples": 10}, {"names": ["", "x"]}, None])
def test_what_another_prove_has_kept_is_computed_again(store: Store, change: dict[str, Any] | None) -> None:
    asked = rows(store, finished_run(store.results_folder, 0, counts(0)))
    ((run_id, (_, values, *_)),) = image_replicates(store, asked, "last", "mIoU", "overall").items()
    kept = store.replicates("last", "overall", "mIoU", [run_id])[run_id]
    head, _, rest = kept.payload.partition(b"\n")
    other = (
        b"not\nJSON" if change is None else json.dumps(json.loads(head) | change).encode() + b"\n" + bytes(len(rest))
    )
    store.save_replicates("last", "overall", "mIoU", {run_id: Resampled(kept.stamp, other)})
    np.testing.assert_array_equal(image_replicates(store, asked, "last", "mIoU", "overall")[run_id][1], values)
    assert store.replicates("last", "overall", "mIoU", [run_id])[run_id] == kept


def test_an_unknown_metric_is_refused(store: Store) -> None:
    with pytest.raises(ProveError, match="Unknown metric"):
        image_replicates(store, [], "last", "mIuO", "overall")
    assert image_replicates(store, [], "last", "mIoU", "overall") == {}
