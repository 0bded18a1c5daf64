"""The runs of a study, read from the database."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prove.errors import ProveError
from prove.report.facts import JobParts, run_facts
from prove.report.options import finder
from prove.report.study import Block, Trained
from prove.spec.event import FailureKind, State
from prove.spec.job import METRICS
from prove.store.store import Store

_COLUMNS = (
    "id", "key", "dataset", "model", "strategy", "loss", "seed", "state", "failure", "message", "advice", "iteration",
    "max_iters", "train_seconds", "peak_memory_mib", "finished_at", "job", *METRICS,
)  # fmt: skip

_TOLD = ("run_id", *_COLUMNS[1:15])
"""The fields of a `Trained` that these columns hold."""


def of_experiment(experiment: str | None, column: str) -> tuple[str, dict[str, Any]]:
    """A condition that keeps an experiment's runs."""
    if experiment is None:
        return "1 = 1", {}
    return f"{column} IN (SELECT run_id FROM experiments WHERE name = :experiment)", {"experiment": experiment}


def read_runs(
    store: Store, experiment: str | None
) -> tuple[tuple[Trained, ...], dict[int, float], dict[str, dict[int, float | None]]]:
    """The runs, when they were finished, and their overall metrics by name.

    Raises:
        ProveError: there is no such experiment, or it has no runs.
    """
    if not store.counts(experiment):  # refuses an unknown experiment
        raise ProveError(f"There are no runs in {_called(experiment)}.", hint="Train some with `prove sweep`.")
    among, params = of_experiment(experiment, "id")
    selected = ", ".join(f'"{name}"' for name in _COLUMNS)
    rows = store.connection.query(f"SELECT {selected} FROM runs WHERE {among} ORDER BY id", params)
    environments = store.environments(experiment)
    overall: dict[str, dict[int, float | None]] = {metric: {} for metric in METRICS}
    finished_at, runs, parts = {}, [], []
    for row in rows:
        run_id, state = row[0], State(row[7])
        found = JobParts(row[16])
        parts.append(found)
        if state is State.FINISHED:
            finished_at[run_id] = row[15] or 0.0
            for metric, value in zip(METRICS, row[17:], strict=True):
                overall[metric][run_id] = value
        told: dict[str, Any] = dict(zip(_TOLD, row, strict=False))
        told |= {"state": state, "failure": FailureKind(row[8]) if row[8] else None}
        runs.append(Trained(**told, facts=run_facts(found.facts, environments.get(run_id), row[11])))
    return _told_apart(runs, [each.loss for each in parts]), finished_at, overall


def _called(experiment: str | None) -> str:
    return f"experiment {experiment!r}" if experiment else "this results folder"


def _told_apart(runs: Sequence[Trained], objectives: Sequence[str]) -> tuple[Trained, ...]:
    """The runs, where one text of two objectives says what differs between them, as does own code that was changed."""
    by_text: dict[str, dict[str, None]] = {}
    for run, objective in zip(runs, objectives, strict=True):
        by_text.setdefault(run.loss, {})[objective] = None
    labels: dict[str, str] = {}
    for text, several in by_text.items():
        if len(several) > 1:
            labels |= {each: f"{text} [{said}]" for each, said in _parameters(list(several)).items()}
    if not labels:
        return tuple(runs)
    return tuple(
        replace(run, loss=labels[objective]) if objective in labels else run
        for run, objective in zip(runs, objectives, strict=True)
    )


def _parameters(objectives: Sequence[str]) -> dict[str, str]:
    """What each of these canonical objectives has that others have not."""
    found = {
        objective: {
            f"{term['name']}.{name}": str(value).removeprefix("sha256_")[:12]
            for term in json.loads(objective)
            for name, value in term["params"].items()
        }
        for objective in objectives
    }
    names = dict.fromkeys(name for each in found.values() for name in each)
    varying = [name for name in names if len({each.get(name) for each in found.values()}) > 1]
    return {
        objective: ", ".join(f"{name} {each.get(name, '-')}" for name in varying) for objective, each in found.items()
    }


def require_numbers(
    runs: Sequence[Trained], numbers: Mapping[int, float | None], metric: str, experiment: str | None
) -> None:
    """Refuse where there is nothing to compare in a metric; ``numbers`` by run id.

    Raises:
        ProveError: says what there is, and what to do.
    """
    whose = _called(experiment)
    finished = [run for run in runs if run.state is State.FINISHED]
    if not finished:
        counts = Counter(run.state.value for run in runs)
        kinds = Counter(str(run.failure) for run in runs if run.state is State.FAILED)
        said = ", ".join(f"{count} {state}" for state, count in counts.items())
        why = f" ({', '.join(f'{count} {kind}' for kind, count in kinds.most_common())})" if kinds else ""
        hint = "`prove status` says why they failed; `prove retry` launches them again." if kinds else (
            "`prove watch` follows them; the same `prove sweep` trains what is missing."
        )  # fmt: skip
        raise ProveError(f"No run of {whose} has finished: {said}{why}.", hint=hint)
    if all(numbers.get(run.run_id) is None for run in finished):
        raise ProveError(
            f"No run of {whose} has a number for {metric}: it is undefined (NaN) in all {len(finished)} that finished.",
            hint="Look at one with `prove show KEY`; --metric takes another, --checkpoint best another checkpoint.",
        )
    if len(finished) == 1:
        raise ProveError(
            f"One run has finished in {whose} ({finished[0].key}): there is nothing to compare it with.",
            hint=f"`prove show {finished[0].key}` shows it. A comparison needs the baseline and another objective, "
            "with the same seeds, better three than one: `prove sweep --aux-loss none,focal --seed 0..2`.",
        )
    if len({run.loss for run in finished}) == 1:
        raise ProveError(
            f"All {len(finished)} finished runs of {whose} have the same objective, {finished[0].loss}: there is "
            "nothing to compare it with.",
            hint="Train the others with the same seeds: `prove sweep`.",
        )


def require_baseline(runs: Sequence[Trained], blocks: Sequence[Block], baseline: str) -> None:
    """Refuse where no run of the baseline can be compared.

    Raises:
        ProveError: says why, and what to do.
    """
    losses = list(dict.fromkeys(run.loss for run in runs))
    if finder(baseline)(losses) is None:
        raise ProveError(
            f"No run has the baseline {baseline!r}.",
            hint=f"Compare with another: --baseline TEXT. These have runs: {', '.join(losses[:12])}.",
        )
    if all(block.baseline is None for block in blocks):
        hint = (
            "`prove report integrity` says what became of them; `prove retry` or `prove sweep` trains what is missing."
        )
        raise ProveError(f"Nothing can be compared: {blocks[0].why}.", hint=hint)
