"""What each loss costs: hours, seconds per iteration, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import median

from prove.report.study import Block, Study, Trained
from prove.report.table import Cell, Column, Table
from prove.report.views.footnotes import Footnotes, mixed_runs, not_comparable, runs_mixed
from prove.report.views.hours import Hours, devices, total_cell
from prove.report.views.numbers import DASH, plural

MOST_TIMED = 1000
"""Runs of a study up to which seconds per iteration are read from each run's reports; beyond it they are the time of
training over its iterations, validation included."""


@dataclass(frozen=True)
class Cost:
    """Of one loss in one block; None where unknown.

    Attributes:
        runs: with a result.
        hours: on GPU and CPU, of all attempts of all its runs, failed ones too.
        seconds: per iteration, the median over the runs with a result.
        memory_mib: peak, the largest of those.
        seconds_ratio, memory_ratio: to the baseline.
    """

    loss: str
    runs: int
    hours: Hours
    seconds: float | None
    memory_mib: float | None
    seconds_ratio: float | None
    memory_ratio: float | None


def cost(study: Study, *, blocks: Sequence[Block] | None = None) -> tuple[Table, ...]:
    """With several blocks a table over all of them, then one for each block.

    Args:
        blocks: only these.
    """
    chosen = tuple(study.blocks if blocks is None else blocks)
    timed = len(study.runs) <= MOST_TIMED
    costs = [(block, costs_of(study, block, timed=timed)) for block in chosen]
    tables = [_table(study, block, found, timed, f"cost-{i}") for i, (block, found) in enumerate(costs, 1)]
    return (_overall(study, costs, timed), *tables) if len(tables) > 1 else tuple(tables)


def costs_of(study: Study, block: Block, *, timed: bool) -> tuple[Cost, ...]:
    """The cost of each loss of a block.

    Args:
        timed: read each run's reports.
    """
    runs: dict[str, list[Trained]] = {loss: [] for loss in block.losses}
    every: dict[str, list[Trained]] = {loss: [] for loss in block.losses}
    for (loss, _), run in block.runs.items():
        runs[loss].append(run)
        every[loss].append(run)
    for out in block.left_out:
        every[out.run.loss].append(out.run)
    seconds = {loss: _seconds(study, each, timed) for loss, each in runs.items()}
    memory = {
        loss: max((run.peak_memory_mib or 0.0 for run in each), default=0.0) or None for loss, each in runs.items()
    }
    reference = block.baseline or ""
    costs = []
    for loss in block.losses:
        hours = [study.hours(run) for run in every[loss]]
        costs.append(
            Cost(
                loss,
                len(runs[loss]),
                (float(sum(gpu for gpu, _ in hours)), float(sum(cpu for _, cpu in hours))),
                seconds[loss],
                memory[loss],
                _ratio(seconds[loss], seconds.get(reference)),
                _ratio(memory[loss], memory.get(reference)),
            )
        )
    return tuple(costs)


def _seconds(study: Study, runs: Sequence[Trained], timed: bool) -> float | None:
    found = [value for run in runs if (value := _seconds_of(study, run, timed)) is not None]
    return median(found) if found else None


def _seconds_of(study: Study, run: Trained, timed: bool) -> float | None:
    if timed:
        points = (point.get("seconds_per_iteration") for _, point in study.curve(run, "train"))
        known = [float(value) for value in points if value is not None]
        return median(known) if known else None
    return run.train_seconds / run.iteration if run.train_seconds and run.iteration else None


def _ratio(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None


def _table(study: Study, block: Block, costs: Sequence[Cost], timed: bool, name: str) -> Table:
    footnotes = Footnotes()
    if block.baseline is None:
        footnotes.whole(f"No ratios: {block.why.rstrip('.')}.")
    footnotes.whole(not_comparable(mixed_runs([block])))
    used = devices(each.hours for each in costs)
    rows = []
    for each in costs:
        cells = (_number(each.seconds, ".3g"), _times(each.seconds_ratio), _number(each.memory_mib, ",.0f"))
        runs = Cell(str(each.runs), float(each.runs))
        hours = (total_cell(each.hours, device) for device in used)
        head = Cell(each.loss, marks=tuple(footnotes.mark(said) for said in runs_mixed(block, each.loss)))
        rows.append((head, runs, *hours, *cells, _times(each.memory_ratio)))
    return Table(
        name=name,
        title=f"Cost: {block.key}",
        columns=(
            Column("loss", "left"),
            Column("runs"),
            *(Column(f"{device} h") for device in used),
            Column("s/iteration"),
            Column("ratio"),
            Column("peak memory (MiB)"),
            Column("ratio of memory"),
        ),
        rows=tuple(rows),
        caption=_caption(block.baseline or study.options.baseline, timed),
        notes=footnotes.notes,
        records=tuple(_record(study, block, each) for each in costs),
    )


def _caption(baseline: str, timed: bool) -> str:
    how = "the median of what a run reported" if timed else "time of training over iterations, validation included"
    return (
        "Hours of all attempts, failed runs' too, in total. s/iteration: seconds per iteration of the finished runs, "
        f"{how}, then the median over seeds. Peak memory: the largest of them; of the process where there is no GPU. "
        f"Ratios: to {baseline}."
    )


def _overall(study: Study, costs: Sequence[tuple[Block, tuple[Cost, ...]]], timed: bool) -> Table:
    losses = list(dict.fromkeys(each.loss for _, found in costs for each in found))
    used = devices(each.hours for _, found in costs for each in found)
    blocks = [block for block, _ in costs]
    footnotes = Footnotes()
    rows, records = [], []
    for loss in losses:
        own = [each for _, found in costs for each in found if each.loss == loss]
        gpu, cpu = sum(each.hours[0] for each in own), sum(each.hours[1] for each in own)
        mixed = not_comparable(mixed_runs(blocks, [loss]))
        seconds = _mean_ratio([each.seconds_ratio for each in own])
        memory = _mean_ratio([each.memory_ratio for each in own])
        runs = sum(each.runs for each in own)
        rows.append(
            (
                Cell(loss, marks=(footnotes.mark(f"Of its runs: {mixed}"),) if mixed else ()),
                Cell(str(runs), float(runs)),
                *(total_cell((gpu, cpu), device) for device in used),
                _times(seconds),
                _times(memory),
            )
        )
        records.append(
            {
                "experiment": study.experiment,
                "loss": loss,
                "runs": runs,
                "gpu_hours": gpu,
                "cpu_hours": cpu,
                "seconds_ratio": seconds,
                "memory_ratio": memory,
                "mixed": mixed_runs(blocks),
            }
        )
    footnotes.whole(not_comparable(mixed_runs(blocks)))
    return Table(
        name="cost",
        title="Cost over all blocks",
        columns=(
            Column("loss", "left"),
            Column("runs"),
            *(Column(f"{device} h") for device in used),
            Column("ratio of s/iteration"),
            Column("ratio of memory"),
        ),
        rows=tuple(rows),
        caption=(
            f"Over {plural(len(costs), 'block')}. Hours of all attempts, failed runs' too. Ratios to "
            f"{study.options.baseline}: the geometric mean over the blocks"
            f"{'' if timed else '; time of training over iterations, validation included'}."
        ),
        notes=footnotes.notes,
        records=tuple(records),
    )


def _mean_ratio(ratios: Sequence[float | None]) -> float | None:
    known = [log(ratio) for ratio in ratios if ratio]
    return exp(sum(known) / len(known)) if known else None


def _number(value: float | None, form: str) -> Cell:
    return Cell(DASH, muted=True) if value is None else Cell(f"{value:{form}}", value)


def _times(ratio: float | None) -> Cell:
    return Cell(DASH, muted=True) if ratio is None else Cell(f"{ratio:.2f}", ratio)


def _record(study: Study, block: Block, each: Cost) -> dict[str, object]:
    return {
        "experiment": study.experiment,
        "dataset": block.key.dataset,
        "model": block.key.model,
        "strategy": block.key.strategy,
        "settings": block.key.settings,
        "loss": each.loss,
        "runs": each.runs,
        "gpu_hours": each.hours[0],
        "cpu_hours": each.hours[1],
        "seconds_per_iteration": each.seconds,
        "seconds_ratio": each.seconds_ratio,
        "peak_memory_mib": each.memory_mib,
        "memory_ratio": each.memory_ratio,
        "mixed": len(block.mixed),
    }
