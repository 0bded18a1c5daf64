"""The main tables: each loss in each block, its difference to the baseline, the verdict and the hours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from prove.errors import ProveError, unknown
from prove.report.study import Block, Measure, Study
from prove.report.table import Cell, Column, Table
from prove.report.views.about import Images, count_images, family, of_effects, rests_on, spread
from prove.report.views.entries import SEEDS_ALONE, Entry, entries, record, remarks
from prove.report.views.footnotes import Footnotes, mixed_runs, not_comparable
from prove.report.views.hours import Hours, devices, mean_cell
from prove.report.views.numbers import DASH
from prove.report.views.wide import AXES, Group, grouped, wide_table


def results(
    study: Study, *, rows: str = "loss", columns: str | None = None, blocks: Sequence[Block] | None = None
) -> tuple[Table, ...]:
    """The tables of the study's metrics.

    Where only one column would be left, a table has a line per loss with everything about it, the further metrics
    beside the first; where there are several, a cell holds mean ± SD (seeds), Δ, its interval and p, and each metric
    has its own tables. What is neither on the rows nor on the columns makes separate tables.

    Args:
        rows, columns: of `AXES`. Without columns: the first of model, dataset, strategy, settings that the study has
            several of.
        blocks: only these.

    Raises:
        ProveError: there is no such axis, or both are the same.
    """
    chosen = tuple(study.blocks if blocks is None else blocks)
    images = count_images(study, chosen)
    across = columns or _first_with_several(chosen, rows)
    _check(rows, across)
    made: list[Table] = []
    for group in grouped(chosen, rows, across):
        number = len(made) + 1
        if rows == "loss" and len(group.columns) == 1:
            made.append(_long(study, group.blocks[0], images, f"results-{number}"))
        else:
            made += _wide(study, group, images, number)
    return tuple(made)


def _first_with_several(blocks: Iterable[Block], rows: str) -> str:
    keys = [block.key for block in blocks]
    candidates = [axis for axis in ("model", "dataset", "strategy", "settings") if axis != rows]
    return next((axis for axis in candidates if len({getattr(key, axis) for key in keys}) > 1), candidates[0])


def _check(rows: str, columns: str) -> None:
    for axis in (rows, columns):
        if axis not in AXES:
            raise unknown("axis", axis, AXES)
    if rows == columns:
        raise ProveError(f"Rows and columns can't both be {rows}.", hint=f"Choose two of {', '.join(AXES)}.")


def _wide(study: Study, group: Group, images: Images, number: int) -> list[Table]:
    names = study.options.metrics
    return [
        wide_table(study, group, Measure(name), images, f"results-{number}" + f"-{name}" * (len(names) > 1))
        for name in names
    ]


def _long(study: Study, block: Block, images: Images, name: str) -> Table:
    measures = [Measure(metric) for metric in study.options.metrics]
    found = [entries(study, block, measure) for measure in measures]
    footnotes = Footnotes()
    hours = _hours(study, block)
    used = devices(each for own in hours.values() for each in own)
    shown = _Shown(block.baseline is not None, any(entry.p_text for entry in found[0]), used)
    rows = []
    for index, loss in enumerate(block.losses):
        marks = _marks(footnotes, block, [each[index] for each in found], measures)
        first, *others = (each[index] for each in found)
        cells = [Cell(loss, marks=marks, runs=first.runs), Cell(first.seeds_text, float(first.arm.seeds))]
        cells += [first.mean_cell(footnotes), *_compared(first, shown)]
        for entry in others:
            cells += [entry.mean_cell(footnotes), *([entry.delta_cell()] if shown.effects else [])]
        rows.append((*cells, *(mean_cell(hours[loss], device) for device in used)))
    _whole(footnotes, study, block, found)
    return Table(
        name=name,
        title=f"{', '.join(study.options.metrics)}: {block.key}",
        columns=_columns(block, measures, shown),
        rows=tuple(rows),
        caption=_caption(study, block, found, images),
        notes=footnotes.notes,
        records=tuple(
            _record(study, block, entry, measure)
            for measure, each in zip(measures, found, strict=True)
            for entry in each
        ),
    )


@dataclass(frozen=True)
class _Shown:
    """Which columns there is something to say in."""

    effects: bool
    p: bool
    devices: tuple[str, ...]


def _columns(block: Block, measures: Sequence[Measure], shown: _Shown) -> tuple[Column, ...]:
    first, *others = measures
    columns = [Column("loss", "left"), Column("seeds"), Column(f"{first.metric} (%)")]
    if shown.effects:
        columns += [Column(f"Δ to {block.baseline}"), *([Column("p")] if shown.p else []), Column("verdict", "left")]
    for measure in others:
        columns += [Column(f"{measure.metric} (%)"), *([Column(f"Δ {measure.metric}")] if shown.effects else [])]
    return (*columns, *(Column(f"{device} h/run") for device in shown.devices))


def _compared(entry: Entry, shown: _Shown) -> list[Cell]:
    if not shown.effects:
        return []
    effect = entry.effect
    if effect is None:
        return [Cell("", muted=True)] * (1 + shown.p) + [Cell("baseline", muted=True)]
    p = [Cell(entry.p_text, effect.p_adjusted)] if shown.p else []
    verdict = str(effect.verdict) if effect.seeds else DASH
    return [entry.delta_cell(), *p, Cell(verdict, bold=entry.is_better, muted=not effect.seeds)]


def _marks(footnotes: Footnotes, block: Block, found: Sequence[Entry], measures: Sequence[Measure]) -> tuple[str, ...]:
    said = [text for entry, measure in zip(found, measures, strict=True) for text in remarks(block, entry, measure)]
    return tuple(footnotes.mark(text) for text in dict.fromkeys(said))


def _whole(footnotes: Footnotes, study: Study, block: Block, found: Sequence[Sequence[Entry]]) -> None:
    if block.baseline is None:
        footnotes.whole(f"No Δ: {block.why.rstrip('.')}.")
    if any(entry.effect is not None and entry.effect.basis == "seeds" for each in found for entry in each):
        footnotes.whole(SEEDS_ALONE)
    for sentence in (not_comparable(mixed_runs([block])), *block.warnings, *study.notes):
        footnotes.whole(sentence)


def _caption(study: Study, block: Block, found: Sequence[Sequence[Entry]], images: Images) -> str:
    together = family(dict(zip(study.options.metrics, found, strict=True)), "in each metric" if len(found) > 1 else "")
    every = [entry for each in found for entry in each]
    parts = [f"{spread(every)}.", rests_on(study, [block], images), of_effects(study, every, together)]
    return " ".join(part for part in parts if part)


def _record(study: Study, block: Block, entry: Entry, measure: Measure) -> dict[str, Any]:
    hours = [study.hours(run) for (loss, _), run in block.runs.items() if loss == entry.loss]
    return {
        **record(study, block, entry, measure),
        "gpu_hours": float(sum(gpu for gpu, _ in hours)),
        "cpu_hours": float(sum(cpu for _, cpu in hours)),
    }


def _hours(study: Study, block: Block) -> dict[str, list[Hours]]:
    """Hours of each run, by loss."""
    by_loss: dict[str, list[Hours]] = {loss: [] for loss in block.losses}
    for (loss, _), run in block.runs.items():
        by_loss[loss].append(study.hours(run))
    return by_loss
