"""`prove show`: everything that is known of one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prove.cli.evaluation_tables import evaluations_table
from prove.cli.gap import gap_of
from prove.cli.options import RESULTS, JsonOption, ResultsOption, console, print_json
from prove.cli.tables import (
    STYLES,
    class_order,
    class_table,
    condition_table,
    evidence_table,
    overall_table,
    percent,
    plain_table,
    verdict,
)
from prove.launch.settle import refresh
from prove.rundir import RunDir, read_json
from prove.spec.event import State
from prove.store import Attempt, Problem, ResultRow, RunRow, Store

if TYPE_CHECKING:
    from rich.table import Table

PATHS = (
    "config", "evidence", "events", "log", "env", "checkpoints", "best_checkpoint", "confusion", "best_confusion",
    "predictions", "best_predictions", "evaluations",
)  # fmt: skip

SCOPES = {"overall": "overall", "condition": "conditions", "class": "classes"}


@dataclass(frozen=True)
class Dossier:
    """All that is known of one run."""

    run: RunRow
    attempts: Sequence[Attempt]
    evidence: Mapping[str, Any] | None
    results: Sequence[ResultRow]
    problems: Sequence[Problem]
    folder: RunDir
    environment: Mapping[str, Any] | None
    evaluations: Sequence[Mapping[str, Any]] = ()


def show(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A run's key, or its first characters.")],
    results: ResultsOption = RESULTS,
    json_output: JsonOption = False,
) -> None:
    """Show all that is known of one run.

    Its job and state, the attempts, the wiring proof, the results by condition and class, its files, the environment.
    """
    with Store.open_existing(results) as store:
        refresh(store)
        dossier = gather(store, key, results)
    if json_output:
        print_json(as_json(dossier))
    else:
        _print(dossier)


def gather(store: Store, key: str, results: Path) -> Dossier:
    """What the store and the run folder hold on a run.

    Raises:
        ProveError: no such run.
    """
    run = store.run(key)
    folder = RunDir.of(results, run.key)
    return Dossier(
        run=run,
        attempts=store.attempts(run.key),
        evidence=store.evidence(run.key),
        results=store.results(run.key),
        problems=store.problems(run.key),
        folder=folder,
        environment=read_json(folder.env) if folder.env.exists() else None,
        evaluations=[read_json(each.result) for each in folder.saved_evaluations()],
    )


def as_json(dossier: Dossier) -> dict[str, Any]:
    """One JSON document: the run's fields and metrics, and beside them everything else by name."""
    return {
        **dossier.run.to_dict(),
        "job": dossier.run.job.to_dict(),
        "attempts": [{**attempt.to_dict(), "number": attempt.number} for attempt in dossier.attempts],
        "evidence": dossier.evidence,
        "results": _nested(dossier.results),
        "paths": {"folder": str(dossier.folder.path)} | {name: str(path) for name, path in _paths(dossier.folder)},
        "evaluations": list(dossier.evaluations),
        "environment": dossier.environment,
        "problems": [problem.to_dict() for problem in dossier.problems],
    }


def _nested(rows: Iterable[ResultRow]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for row in rows:
        place = nested.setdefault(row.checkpoint, {"overall": {}, "conditions": {}, "classes": {}})[SCOPES[row.scope]]
        (place.setdefault(row.name, {}) if row.name else place)[row.metric] = row.value
    return nested


def _paths(folder: RunDir) -> list[tuple[str, Path]]:
    return [(name, path) for name in PATHS if (path := getattr(folder, name)).exists()]


def _print(dossier: Dossier) -> None:
    from rich.text import Text

    run, out = dossier.run, console()
    state = run.state.value if run.failure is None else f"{run.state} ({run.failure})"
    out.print(Text.assemble(run.key, "  ", (state, STYLES[run.state])))
    out.print(_facts(run), "")
    conditions = condition_table(dossier.results)
    sections: list[tuple[str, Table | None]] = [
        ("Attempts", _attempts(dossier.attempts, run)),
        ("Wiring proof", evidence_table(dossier.evidence)),
        ("Results", overall_table(dossier.results)),
        ("By condition, last checkpoint", conditions),
        ("By class, last checkpoint", class_table(dossier.results, class_order(dossier.folder))),
        ("Evaluated on", evaluations_table(dossier.evaluations)),
        ("Files", _pairs([("folder", dossier.folder.path), *_paths(dossier.folder)])),
        ("Environment", _environment(dossier.environment)),
        ("Could not be read", _problems(dossier.problems)),
    ]
    for title, table in sections:
        if table is not None:
            out.print(title, style="bold")
            out.print(table)
            if title == "Wiring proof" and dossier.evidence is not None:
                out.print(verdict(dossier.evidence))
            if table is conditions and (sentence := gap_of(dossier.results)):
                out.print(sentence)
            out.print()


def _pairs(pairs: Iterable[tuple[str, object]]) -> Table:
    table = plain_table("", "", left=2)
    table.show_header = False
    for name, value in pairs:
        table.add_row(name, str(value))
    return table


def _facts(run: RunRow) -> Table:
    train = run.job.train
    pairs: list[tuple[str, object]] = [
        ("dataset", run.dataset),
        ("model", run.model),
        ("strategy", run.strategy),
        ("loss", run.loss),
        ("seed", run.seed),
        ("iteration", f"{run.iteration} of {run.max_iters}"),
        ("batch, crop, lr", f"{train.batch_size}, {train.crop_size[0]}x{train.crop_size[1]}, {train.lr:g}"),
    ]
    if run.job.recipe.words:
        pairs.insert(3, ("trained on", run.job.recipe.words))
    if run.best_iteration is not None:
        pairs.append(("best", f"mIoU {percent(run.best_mIoU)} at iteration {run.best_iteration}"))
    if run.message:
        pairs.append(("message", run.message))
    if run.advice:
        pairs.append(("advice", run.advice))
    if run.train_seconds is not None:
        pairs.append(("training took", f"{run.train_seconds:.0f} s"))
    return _pairs(pairs)


def _attempts(attempts: Sequence[Attempt], run: RunRow) -> Table | None:
    if not attempts:
        return None
    table = plain_table("#", "started (UTC)", "where", "iterations", "ended", left=5)
    for attempt in attempts:
        lives = run.state is State.RUNNING and attempt.number == run.attempts
        ended = attempt.ending or ("running" if lives else "ended without a word")
        table.add_row(
            str(attempt.number),
            "-"
            if attempt.started_at is None
            else f"{datetime.fromtimestamp(attempt.started_at, UTC):%Y-%m-%d %H:%M:%S}",
            " ".join(part for part in (attempt.host, attempt.device, attempt.launcher) if part),
            f"{attempt.resumed_from or 0} to {attempt.iteration or 0}",
            f"{ended}: {attempt.reason}" if attempt.reason else ended,
        )
    return table


def _environment(environment: Mapping[str, Any] | None) -> Table | None:
    if environment is None:
        return None
    return _pairs((name, value) for name, value in environment.items() if isinstance(value, str | int | float))


def _problems(problems: Sequence[Problem]) -> Table | None:
    if not problems:
        return None
    table = plain_table("at byte", "what", "line", left=3)
    for problem in problems:
        table.add_row("-" if problem.position < 0 else str(problem.position), problem.message, problem.line[:60])
    return table
