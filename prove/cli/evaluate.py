"""`prove evaluate`: a finished run on the validation set of another dataset, in the run's own classes."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prove.cli.options import RESULTS, JsonOption, ResultsOption, notes, print_json
from prove.cli.tables import class_order
from prove.errors import ProveError, unknown
from prove.launch.settle import refresh
from prove.rundir import EvaluationDir, RunDir, read_json, sha256
from prove.spec.event import State
from prove.store import Store

if TYPE_CHECKING:
    from prove.data.definition import DatasetDefinition
    from prove.data.source import Dataset

CHECKPOINTS = ("last", "best")
NAME_LENGTH = 80


@dataclass(frozen=True)
class Target:
    """A dataset in the classes of a run.

    Attributes:
        source: what a worker finds it by.
    """

    source: str
    definition: DatasetDefinition
    dataset: Dataset


def evaluate(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A run's key, or its first characters.")],
    dataset: Annotated[str, typer.Option("--dataset", help="Name (see `prove data list`) or a YAML file.")],
    data_root: Annotated[str | None, typer.Option("--data-root", help="Folder of the dataset.")] = None,
    checkpoint: Annotated[str, typer.Option("--checkpoint", help="last or best.")] = "last",
    val_images: Annotated[
        int | None, typer.Option("--val-images", min=1, help="This many images, evenly spaced, instead of all.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    workers: Annotated[int | None, typer.Option("--workers", min=0, help="Processes that load data.")] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads of torch.  [default: as in training]")
    ] = None,
    results: ResultsOption = RESULTS,
    json_output: JsonOption = False,
) -> None:
    """Evaluate a finished run on another dataset.

    Its labels are read as the classes that the run was trained on, by the tables of `prove data map`. The result is
    kept in the run folder; asked again, it is shown from there while neither images nor checkpoint have changed.
    """
    from prove.cli.evaluation_tables import show_evaluation
    from prove.cli.request import on_cuda

    if checkpoint not in CHECKPOINTS:
        raise unknown("checkpoint", checkpoint, CHECKPOINTS)
    run = finished_run(results, key)
    launch = read_json(run.launch)["placement"]
    target = find_target(run, launch, dataset, data_root)
    if val_images is not None and val_images > len(target.dataset.val):
        raise ProveError(f"--val-images {val_images}, but {dataset} has {len(target.dataset.val)} validation images.")
    folder = run.evaluation(folder_name(target.definition, checkpoint, val_images))
    document = kept(folder, run, target, checkpoint)
    fresh = document is None
    if document is None:
        request = {
            "name": folder.path.name,
            "source": target.source,
            "data_root": _root(target, launch, data_root),
            "checkpoint": checkpoint,
            "val_images": val_images,
            "cuda": on_cuda(device),
            "workers": launch["num_workers"] if workers is None else workers,
            "threads": launch["threads"] if threads is None else threads,
            "about": about(run, launch, target, val_images),
        }
        images = val_images or len(target.dataset.val)
        notes().print(f"evaluating run {run.key} on {images} images of {target.definition.name}")
        code = carry_out(run, request, json_output)
        if code:
            raise typer.Exit(code)
        document = read_json(folder.result)
    if json_output:
        print_json({**document, "evaluated_now": fresh, "paths": {"folder": str(folder.path)}})
    else:
        show_evaluation(document, folder, fresh=fresh)


def finished_run(results: Path, key: str) -> RunDir:
    """The folder of a finished run.

    Raises:
        ProveError: no such run, or it is not finished.
    """
    with Store.open_existing(results) as store:
        refresh(store)
        row = store.run(key)
    if row.state is not State.FINISHED:
        raise ProveError(
            f"Run {row.key} is {row.state.value}, and only a finished run can be evaluated.",
            hint=f"`prove show {row.key}` tells more.",
        )
    return RunDir.of(results, row.key)


def find_target(run: RunDir, launch: Mapping[str, Any], text: str, data_root: str | None) -> Target:
    """The dataset with its labels in the classes of the run, found on this machine and sound.

    Raises:
        ProveError: unknown, its labels can't be read as the run's classes, not there, or with faults.
    """
    from prove.data.check import check
    from prove.data.definition import located, resolve_dataset
    from prove.data.source import open_dataset
    from prove.spec.dataset_text import DatasetText

    classes = class_order(run)
    if not classes:
        raise ProveError(f"Run {run.key} no longer says which classes it predicts: there is no {run.confusion}.")
    source = located(text)
    definition = resolve_dataset(source)
    if definition.label_space.classes != classes:
        if DatasetText.read(source).space:
            raise ProveError(
                f"{text} has the classes of {definition.label_space.name}, and run {run.key} predicts others.",
                hint="Leave @SPACE out: labels are read as the run's classes.",
            )
        source = f"{source}@{_space_of(run, classes, definition)}"
        definition = resolve_dataset(source)
    own = source == located(launch["source"]) and data_root is None
    dataset = open_dataset(definition, root=launch["data_root"] if own else data_root)
    check(dataset, ("val",)).raise_if_bad()
    return Target(source, definition, dataset)


def _space_of(run: RunDir, classes: tuple[str, ...], definition: DatasetDefinition) -> str:
    from prove.catalog.label_maps import targets
    from prove.catalog.label_spaces import LABEL_SPACES

    known = next((space.name for space in LABEL_SPACES if space.classes == classes), None)
    if known is None:
        raise ProveError(
            f"Run {run.key} predicts {len(classes)} classes of its own, and no map leads from those of "
            f"{definition.name} to them.",
            hint=f"Maps lead to {' and '.join(targets())}; a dataset with the run's very classes needs none.",
        )
    return known


def _root(target: Target, launch: Mapping[str, Any], data_root: str | None) -> str | None:
    from prove.data.definition import located
    from prove.data.joint import absolute_roots

    if data_root is not None:
        return absolute_roots(data_root)
    root: str | None = launch["data_root"] if target.source == located(launch["source"]) else None
    return root


def folder_name(definition: DatasetDefinition, checkpoint: str, val_images: int | None) -> str:
    """Of an evaluation: the dataset, the checkpoint, and how many images where not all."""
    name = re.sub(r"[^A-Za-z0-9_.+=@-]+", "_", definition.name).strip("_.+=@-")
    if len(name) > NAME_LENGTH or not name:
        name = f"{name[:NAME_LENGTH]}{hashlib.sha256(definition.name.encode()).hexdigest()[:6]}"
    return "-".join([name, checkpoint, *([str(val_images)] if val_images is not None else [])])


def kept(folder: EvaluationDir, run: RunDir, target: Target, checkpoint: str) -> dict[str, Any] | None:
    """An earlier result of the same images, labels and weights; None where there is none.

    Raises:
        ProveError: the checkpoint is gone.
    """
    from prove.data.manifest import fingerprint
    from prove.metrics import METRIC_VERSION

    file = run.kept_checkpoint(checkpoint)
    if not (folder.result.exists() and folder.counts.exists()):
        return None
    try:
        document: dict[str, Any] = read_json(folder.result)
        same = (
            document["metric_version"] == METRIC_VERSION
            and document["evaluated"]["about"]["definition"] == target.definition.canonical()
            and document["counts_sha256"] == sha256(folder.counts)
            and document["data"]["fingerprint"] == fingerprint(target.dataset.val)
            and document["checkpoint"]["sha256"] == sha256(file)
        )
    except (ProveError, KeyError, TypeError):
        return None
    return document if same else None


def about(run: RunDir, launch: Mapping[str, Any], target: Target, val_images: int | None = None) -> dict[str, Any]:
    """What a reader must know beside the numbers.

    Args:
        val_images: how many images are evaluated; None for all.

    Returns:
        ``dataset`` and ``definition``; ``maps``: how labels were read, for each dataset of which that is so;
        ``unreachable``: classes of the run that these labels can't show; ``wide``: classes of the dataset that hold
        more than the class they are counted as; ``shared``: evaluated images that the run was trained on.
    """
    definition, val = target.definition, target.dataset.val
    parts = [member.definition for member in definition.members] or [definition]
    maps = [(part.home, part.label_map) for part in parts if part.label_map is not None]
    encodings = {val.encoding_of(sample) for sample in val}
    reached = {train_id for each in encodings for _, train_id in (*each.ids, *each.colors)}
    return {
        "dataset": definition.name,
        "definition": definition.canonical(),
        "maps": [{"dataset": name, "map": each.name, "digest": each.digest} for name, each in maps],
        "unreachable": [name for k, name in enumerate(definition.label_space.classes) if k not in reached],
        "wide": [
            {"dataset": name, "class": row.source, "counted_as": row.target, "also": row.also}
            for name, each in maps
            for row in each.wide
        ],
        "shared": _shared(run, launch, target, val_images),
    }


def _shared(run: RunDir, launch: Mapping[str, Any], target: Target, val_images: int | None) -> dict[str, Any]:
    """Whether the run was trained on some of these images: how many and the first, or why that can't be said."""
    from prove.cli.execute import trained_on
    from prove.data.compose import compose
    from prove.data.manifest import evenly_spaced, fingerprint
    from prove.data.overlap import shared_images
    from prove.data.source import open_dataset, resolve_dataset
    from prove.spec import Job

    job = Job.from_dict(read_json(run.job))
    try:
        trained = resolve_dataset(launch["source"])
        if {"name": trained.name, **trained.canonical()} != dict(job.dataset):
            raise ProveError(f"{launch['source']} is no longer what it was trained on.")
        opened = open_dataset(trained, root=launch["data_root"])
        train = compose(opened, job.recipe, generated_root=launch.get("generated_root")).train
        if fingerprint(train) != (trained_on(run) or {}).get("train"):
            where = f"of {trained.name}" if trained.members else f"in {opened.root}"
            raise ProveError(f"The training images {where} are no longer those that it was trained on.")
        seen = replace(train, samples=tuple(sample for sample in train if not sample.noise))
        val = target.dataset.val
        found = shared_images(seen, replace(val, samples=evenly_spaced(val.samples, val_images)))
    except ProveError as error:
        return {"images": None, "reason": error.message}
    return {"images": len(found), **({"first": found[0].id} if found else {})}


def carry_out(run: RunDir, request: Mapping[str, Any], json_output: bool) -> int:
    """Evaluate in a process of its own, and say how far it is.

    Returns:
        Exit code: 0 done, 1 it failed, 130 interrupted.

    Raises:
        ProveError: the request was wrong after all.
    """
    worker = subprocess.Popen(
        [sys.executable, "-m", "prove.training.evaluate", str(run.path.absolute()), json.dumps(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert worker.stdout is not None
    failure: dict[str, str] = {}
    try:
        with worker.stdout:
            for line in worker.stdout:
                told = json.loads(line)
                if "error" in told:
                    failure = told
                else:
                    notes().print(f"{told['done']} of {told['of']} images")
        worker.wait()
    except KeyboardInterrupt:
        worker.terminate()
        worker.wait()
        return 130
    if worker.returncode == 0:
        return 0
    if not failure:
        failure = {
            "error": f"The evaluation ended with code {worker.returncode} and no word.",
            "hint": f"Its log is {run.evaluation(request['name']).log}; where memory runs out, the system kills it.",
        }
    if worker.returncode == 2:
        raise ProveError(failure["error"], hint=failure["hint"])
    if json_output:
        print_json(failure)
    notes().print(f"The evaluation failed: {failure['error']}\n{failure['hint']}")
    return 1
