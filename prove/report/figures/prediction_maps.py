"""The label maps that runs keep of a few validation images, and where they agree."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prove.errors import ProveError
from prove.report.study import Block, Study, Trained
from prove.rundir import read_json

Labels = NDArray[np.uint8]
Pixels = NDArray[np.uint8]

IGNORED = 255


@dataclass(frozen=True, eq=False)
class Kept:
    """What one run kept.

    Attributes:
        conditions: image id -> its condition, empty where it has none.
        paths: image id -> path relative to the data root.
        predicted, truth: image id -> ``[h, w]``; 255 is not labelled.
        palette: ``[C, 3]``.
    """

    ids: tuple[str, ...]
    conditions: Mapping[str, str]
    paths: Mapping[str, str]
    predicted: Mapping[str, Labels]
    truth: Mapping[str, Labels]
    classes: tuple[str, ...]
    palette: Pixels


@dataclass(frozen=True, eq=False)
class Scene:
    """One validation image with every loss's prediction at one seed.

    Attributes:
        image: ``[h, w, 3]``, of the label maps' size; None where the file is not here.
        predicted: loss -> ``[h, w]``, the baseline first where there is one.
        disagreement: image id -> share of labelled pixels on which not all losses predict the same.
    """

    block: Block
    seed: int
    name: str
    condition: str
    image: Pixels | None
    truth: Labels
    predicted: Mapping[str, Labels]
    classes: tuple[str, ...]
    palette: Pixels
    disagreement: Mapping[str, float]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which pixels have a label."""
        return np.asarray(self.truth != IGNORED)

    @property
    def baseline(self) -> Labels | None:
        """The baseline's prediction."""
        return None if self.block.baseline is None else self.predicted.get(self.block.baseline)


def scene(study: Study, block: Block) -> Scene | None:
    """The block's picture: at the seed at which most losses kept predictions (the lowest of several), the image whose
    disagreement is the median over the images that all of them kept (the lower of two in the middle). None without one.
    """
    best: tuple[int, dict[str, Kept]] | None = None
    for seed in block.seeds:
        asked = {loss: _kept(study, block.runs.get((loss, seed))) for loss in block.losses}
        found = {loss: each for loss, each in asked.items() if each is not None}
        if found and (best is None or len(found) > len(best[1])):
            best = seed, found
    if best is None:
        return None
    seed, kept = best
    first = next(iter(kept.values()))
    names = [name for name in first.ids if all(_same(first, each, name) for each in kept.values())]
    if not names:
        return None
    predictions = {name: [each.predicted[name] for each in kept.values()] for name in names}
    disagreement = {name: disagree(first.truth[name], predicted) for name, predicted in predictions.items()}
    chosen = sorted(names, key=lambda name: disagreement[name])[(len(names) - 1) // 2]
    run = block.runs[next(iter(kept)), seed]
    return Scene(
        block=block,
        seed=seed,
        name=chosen,
        condition=first.conditions[chosen],
        image=_image(study.folder(run).env, first.paths[chosen], first.truth[chosen].shape),
        truth=first.truth[chosen],
        predicted={loss: each.predicted[chosen] for loss, each in kept.items()},
        classes=first.classes,
        palette=first.palette,
        disagreement=disagreement,
    )


def disagree(truth: Labels, predicted: Sequence[Labels]) -> float:
    """Share of the labelled pixels on which not all predict the same; 0 without a labelled pixel."""
    labelled = truth != IGNORED
    differ = np.any([each != predicted[0] for each in predicted], axis=0)
    return float((differ & labelled).sum() / max(labelled.sum(), 1))


def _same(first: Kept, other: Kept, name: str) -> bool:
    return (
        name in other.truth
        and other.classes == first.classes
        and other.predicted[name].shape == first.truth[name].shape
        and np.array_equal(other.truth[name], first.truth[name])
    )


def _kept(study: Study, run: Trained | None) -> Kept | None:
    """What a run kept; None where there is nothing, or nothing that can be read."""
    if run is None:
        return None
    folder = study.folder(run)
    path: Path = folder.best_predictions if study.options.checkpoint == "best" else folder.predictions
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return _read(file)
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile):
        return None


def _read(file: Mapping[str, Any]) -> Kept:
    ids = tuple(str(each) for each in file["ids"])
    classes = tuple(str(each) for each in file["classes"])
    palette = np.asarray(file["palette"], np.uint8).reshape(len(classes), 3)
    predicted, truth = ({name: _labels(file[f"{kind}_{at}"]) for at, name in enumerate(ids)} for kind in
                        ("predicted", "truth"))  # fmt: skip
    if any(predicted[name].shape != truth[name].shape for name in ids):
        raise ValueError("a prediction has another size than its truth")
    conditions = dict(zip(ids, (str(each) for each in file["conditions"]), strict=True))
    paths = dict(zip(ids, (str(each) for each in file["paths"]), strict=True))
    return Kept(ids, conditions, paths, predicted, truth, classes, palette)


def _labels(array: Any) -> Labels:
    labels = np.asarray(array)
    if labels.ndim != 2 or labels.dtype != np.uint8 or not labels.size:
        raise ValueError("not a label map")
    return labels


def _image(environment: Path, relative: str, size: tuple[int, ...]) -> Pixels | None:
    """The photograph at the size of the label maps, where its file is still on this machine."""
    try:
        root = read_json(environment).get("data_root")
    except (ProveError, AttributeError):
        return None
    if not root or not relative or Path(relative).is_absolute() or ".." in Path(relative).parts:
        return None
    try:
        with Image.open(Path(root) / relative) as file:
            return np.asarray(file.convert("RGB").resize((size[1], size[0]), Image.Resampling.LANCZOS), np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
