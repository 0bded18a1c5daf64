"""Metrics of runs on resampled images: as they are kept in the database, else computed from the counts per image."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prove.errors import ProveError
from prove.metrics.resample import RESAMPLES, images_digest, needed, replicates, scope_names, weights
from prove.rundir import RunDir
from prove.store.reporting import Resampled
from prove.store.store import Store

Run = tuple[int, str, float]
"""``runs.id``, key, ``finished_at``."""

FORM = 3
"""Form of what is kept: raised whenever the same counts would give other numbers."""

TOGETHER = 200
"""Runs that are kept in one transaction: what is computed is not lost when the command is broken off."""

UNREADABLE = (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, ProveError)
"""What a damaged file raises."""


class Drawn(NamedTuple):
    """A metric of one run on resampled images.

    Attributes:
        names: of the rows.
        values: ``[K, B]`` in percent; NaN where a resample leaves the metric undefined.
        images: how many were resampled, for each row.
        digest: which.
        point: ``[K]`` the metric on the images themselves: what the run must have recorded.
    """

    names: tuple[str, ...]
    values: NDArray[np.float32]
    images: tuple[int, ...]
    digest: str
    point: tuple[float, ...]


def image_replicates(
    store: Store,
    runs: Sequence[Run],
    checkpoint: str,
    metric: str,
    scope: str,
    on_progress: Callable[[int, int], object] | None = None,
    *,
    left_out: dict[str, str] | None = None,
) -> dict[int, Drawn]:
    """A metric of finished runs of one dataset on `RESAMPLES` resamples of its images, the same for every run.

    Args:
        checkpoint: ``last`` or ``best``.
        metric, scope: of `prove.metrics.resample.replicates`.
        on_progress: told how many runs have been computed, and of how many; not called where nothing has to be.
        left_out: is given the key of each run whose counts are there and of no use, with the reason.

    Returns:
        By ``runs.id``. Left out are runs without counts per image, with unreadable ones, and those that were evaluated
        on other images than most.

    Raises:
        ProveError: there is no such metric in this scope, or the database can't be written.
    """
    needed(metric, scope)
    reasons: dict[str, str] = {} if left_out is None else left_out
    found = _kept(store, runs, checkpoint, metric, scope)
    missing = [run for run in runs if run[0] not in found]
    computed: dict[int, Resampled] = {}
    sampler = _Sampler(metric, scope)
    run_folders = f"{store.results_folder}/runs"
    name = (RunDir(Path()).confusion if checkpoint == "last" else RunDir(Path()).best_confusion).name
    for number, (run_id, key, finished_at) in enumerate(missing, start=1):
        file = f"{run_folders}/{key}/{name}"
        if not os.path.exists(file):  # of ten thousand runs without counts, each must cost little
            continue
        try:
            one = sampler(Path(file))
        except UNREADABLE as error:
            reasons[key] = f"{file} can't be read: {str(error) or type(error).__name__}"
        else:
            found[run_id] = one
            computed[run_id] = Resampled(finished_at, _packed(one))
        if len(computed) >= TOGETHER:
            store.save_replicates(checkpoint, scope, metric, computed)
            computed = {}
        if on_progress is not None:
            on_progress(number, len(missing))
    if computed:
        store.save_replicates(checkpoint, scope, metric, computed)
    return dict(_of_the_same_images(runs, found, reasons))


def _kept(store: Store, runs: Sequence[Run], checkpoint: str, metric: str, scope: str) -> dict[int, Drawn]:
    stamps = {run_id: finished_at for run_id, _, finished_at in runs}
    kept = store.replicates(checkpoint, scope, metric, stamps)
    unpacked = ((run_id, _unpacked(each.payload)) for run_id, each in kept.items() if each.stamp == stamps[run_id])
    return {run_id: one for run_id, one in unpacked if one is not None}


class _Sampler:
    """Resamples one run after the other; runs of the same images share their weights."""

    def __init__(self, metric: str, scope: str) -> None:
        self.metric, self.scope = metric, scope
        self._weights: dict[tuple[str, bytes], tuple[str, NDArray[np.float64]]] = {}

    def __call__(self, file: Path) -> Drawn:
        """The metric of one file of counts.

        Raises:
            One of `UNREADABLE`.
        """
        wanted = ("metric_version", "ids", "conditions", "classes", *needed(self.metric, self.scope))
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as stored:
            arrays: dict[str, NDArray[Any]] = {name: stored[name] for name in wanted}
        ids = arrays["ids"]
        order = (ids.dtype.str, ids.tobytes())
        if order not in self._weights:
            if len(self._weights) > 1:  # few orders occur; a matrix is large
                self._weights.clear()
            self._weights[order] = images_digest(ids), np.vstack([weights(ids), np.ones(len(ids))])
        digest, drawn = self._weights[order]
        values = replicates(arrays, drawn, self.metric, self.scope)
        names = scope_names(arrays, self.scope)
        of = arrays["conditions"] == np.array(names)[:, None] if self.scope == "condition" else None
        images = (len(ids),) * len(names) if of is None else tuple(of.sum(axis=1).tolist())
        return Drawn(names, values[:, :-1].astype(np.float32), images, digest, tuple(values[:, -1].tolist()))


def _of_the_same_images(
    runs: Sequence[Run], found: Mapping[int, Drawn], reasons: dict[str, str]
) -> Iterator[tuple[int, Drawn]]:
    counted = Counter(found[run_id].digest for run_id, _, _ in runs if run_id in found)
    for run_id, key, _ in runs:
        if run_id not in found:
            continue
        one = found[run_id]
        if one.digest == counted.most_common(1)[0][0]:  # of equally many the first
            yield run_id, one
        else:
            reasons[key] = "it was evaluated on other images than the others"


def _packed(one: Drawn) -> bytes:
    """A line of JSON that says what follows, then little-endian float32 ``[K, B]``."""
    head = {
        "form": FORM, "resamples": RESAMPLES, "images": one.images, "digest": one.digest, "names": one.names,
        "point": one.point,
    }  # fmt: skip
    return json.dumps(head).encode() + b"\n" + one.values.astype("<f4").tobytes()


def _unpacked(payload: bytes) -> Drawn | None:
    """None where another PROVE has written it."""
    end = payload.find(b"\n")
    head = _head(payload[:end])
    if head is None:
        return None
    images, digest, names, point = head
    values = np.frombuffer(payload, "<f4", offset=end + 1)
    if values.size != len(names) * RESAMPLES:
        return None
    return Drawn(names, values.reshape(len(names), RESAMPLES), images, digest, point)


@lru_cache(maxsize=64)
def _head(line: bytes) -> tuple[tuple[int, ...], str, tuple[str, ...], tuple[float, ...]] | None:
    try:
        head = json.loads(line)
    except ValueError:
        return None
    if (head.get("form"), head.get("resamples")) != (FORM, RESAMPLES):
        return None
    return tuple(head["images"]), head["digest"], tuple(head["names"]), tuple(head["point"])
