"""From a name or an experiment file to a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prove.errors import ProveError
from prove.report.options import options
from prove.report.recorded import Progress, RecordedStudy
from prove.store.store import Store


@dataclass(frozen=True)
class Asked:
    """What a user asks of a report; None means what the experiment says, else the default.

    Attributes:
        experiment: a name, or the path of its file; None for the only experiment that there is, else for all runs.
        metrics: the headline first.
    """

    experiment: str | None = None
    baseline: str | None = None
    metrics: Sequence[str] = ()
    checkpoint: str | None = None
    smallest_effect: float | None = None
    confidence: float | None = None
    allow_mixed: bool = False


@dataclass(frozen=True)
class Found:
    """An experiment as it is known.

    Attributes:
        name: None for all runs of the results folder.
        section: its ``report`` section.
    """

    name: str | None
    section: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""


def open_study(
    store: Store, asked: Asked, *, comparing: bool = True, on_progress: Progress | None = None
) -> tuple[RecordedStudy, Found]:
    """The study that is asked for.

    Args:
        store: refreshed; stays open as long as the study is read.
        comparing: False where what is asked needs no comparison: costs, what became of the runs.

    Raises:
        ProveError: an unknown name or number, or nothing to compare.
    """
    found = find_experiment(store, asked.experiment)
    settings = options(
        found.section,
        baseline=asked.baseline,
        metrics=asked.metrics,
        checkpoint=asked.checkpoint,
        smallest_effect=asked.smallest_effect,
        confidence=asked.confidence,
        allow_mixed=asked.allow_mixed,
    )
    study = RecordedStudy(store, found.name, settings, description=found.description, on_progress=on_progress)
    if comparing:
        study.require_comparison()
    return study, found


def find_experiment(store: Store, experiment: str | None) -> Found:
    """The experiment of a name or a file; without one, the only one that there is if every run belongs to it.

    Raises:
        ProveError: the file can't be read, or there is no such experiment.
    """
    if experiment is not None and experiment.endswith((".yaml", ".yml")):
        from prove.spec.experiment import read_experiment

        read = read_experiment(Path(experiment))
        if read.name not in store.experiments():
            raise ProveError(
                f"The experiment {read.name!r} of {experiment} has no runs in {store.results_folder}.",
                hint=f"Train it with `prove sweep {experiment}`, or name another folder with --results DIR.",
            )
        return Found(read.name, read.report, read.description)
    if experiment is None:
        names = store.experiments()
        alone = len(names) == 1 and sum(store.counts().values()) == sum(store.counts(names[0]).values())
        if not alone:
            return Found(None)
        experiment = names[0]
    known = store.study(experiment)
    return Found(experiment) if known is None else Found(experiment, *known)
