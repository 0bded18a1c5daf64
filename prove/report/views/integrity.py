"""What takes no part and why: nothing is deleted in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from prove.report.study import Block, LeftOut, Study
from prove.report.table import Cell, Column, Table
from prove.report.views.footnotes import mixed_runs
from prove.report.views.numbers import DASH, listed, plural

KINDS = ("failed", "unfinished", "not comparable", "no number")
"""Of `LeftOut`."""


def integrity(study: Study) -> tuple[Table, ...]:
    """What became of the runs, by loss; every run that takes no part; and what is missing or only warned of."""
    made = [_by_loss(study), _left_out(study), _missing(study), _warned(study)]
    return tuple(table for table in made if table is not None)


def _by_loss(study: Study) -> Table:
    losses = list(dict.fromkeys(loss for block in study.blocks for loss in block.losses))
    compared = Counter(loss for block in study.blocks for loss, _ in block.runs)
    kinds = Counter((out.run.loss, out.kind) for block in study.blocks for out in block.left_out)
    missing = Counter(loss for block in study.blocks for loss, seeds in missing_cells(block).items() for _ in seeds)
    failures = Counter(
        (out.run.loss, str(out.run.failure)) for block in study.blocks for out in block.left_out if out.kind == "failed"
    )
    rows, records = [], []
    for loss in losses:
        counts = {kind: kinds[loss, kind] for kind in KINDS}
        registered = compared[loss] + sum(counts.values())
        ended = registered - counts["unfinished"]
        rate = counts["failed"] / ended if ended else None
        which = {kind: count for (name, kind), count in failures.items() if name == loss}
        said = ", ".join(f"{count} {kind}" for kind, count in sorted(which.items()))
        rows.append(
            (
                Cell(loss),
                Cell(str(registered), float(registered)),
                Cell(str(compared[loss]), float(compared[loss])),
                *(Cell(str(counts[kind]) if counts[kind] else DASH, float(counts[kind])) for kind in KINDS),
                Cell(str(missing[loss]) if missing[loss] else DASH, float(missing[loss])),
                Cell(DASH if rate is None else f"{rate:.0%}", rate),
                Cell(said),
            )
        )
        records.append(
            {
                "experiment": study.experiment,
                "loss": loss,
                "registered": registered,
                "compared": compared[loss],
                **{kind.replace(" ", "_"): counts[kind] for kind in KINDS},
                "missing": missing[loss],
                "mixed": mixed_runs(study.blocks, [loss]),
                "failure_rate": rate,
                "failures": said,
            }
        )
    return Table(
        name="integrity-losses",
        title="What became of the runs",
        columns=(
            Column("loss", "left"),
            Column("runs"),
            Column("compared"),
            *(Column(kind) for kind in KINDS),
            Column("missing"),
            Column("failure rate"),
            Column("failures", "left"),
        ),
        rows=tuple(rows),
        caption=(
            "Compared: takes part in the tables. Missing: a seed that other losses of the block have and this one was "
            "never registered with. Failure rate: failed of those that ended. A loss that diverges is not a loss that "
            "scores well on the seeds that are left."
        ),
        records=tuple(records),
    )


def _left_out(study: Study) -> Table | None:
    found = [(block, out) for block in study.blocks for out in block.left_out]
    if not found:
        return None
    return Table(
        name="integrity-runs",
        title="Runs that take no part",
        columns=(
            Column("run", "left"),
            Column("block", "left"),
            Column("loss", "left"),
            Column("seed"),
            Column("why", "left"),
        ),
        rows=tuple(_left_out_row(block, out) for block, out in found),
        caption=f"{plural(len(found), 'run')} of {len(study.runs):,}. `prove show RUN` shows one.",
        records=tuple(
            {
                "experiment": study.experiment,
                "run": out.run.key,
                "dataset": block.key.dataset,
                "model": block.key.model,
                "strategy": block.key.strategy,
                "settings": block.key.settings,
                "loss": out.run.loss,
                "seed": out.run.seed,
                "state": str(out.run.state),
                "kind": out.kind,
                "failure": str(out.run.failure) if out.run.failure else None,
                "reason": out.reason,
                "advice": out.run.advice,
            }
            for block, out in found
        ),
    )


def _left_out_row(block: Block, out: LeftOut) -> tuple[Cell, ...]:
    return (
        Cell(out.run.key, runs=(out.run.key,)),
        Cell(str(block.key)),
        Cell(out.run.loss),
        Cell(str(out.run.seed), float(out.run.seed)),
        Cell(f"{out.kind}: {out.reason}"),
    )


def missing_cells(block: Block) -> dict[str, list[int]]:
    """Loss → the seeds of the block that it was never registered with; only losses that miss any."""
    known = {*block.runs, *((out.run.loss, out.run.seed) for out in block.left_out)}
    found = {loss: [seed for seed in block.seeds if (loss, seed) not in known] for loss in block.losses}
    return {loss: seeds for loss, seeds in found.items() if seeds}


def _missing(study: Study) -> Table | None:
    found = [(block, loss, seeds) for block in study.blocks for loss, seeds in missing_cells(block).items()]
    if not found:
        return None
    return Table(
        name="integrity-missing",
        title="Seeds that were never registered",
        columns=(Column("block", "left"), Column("loss", "left"), Column("seeds", "left")),
        rows=tuple(
            (Cell(str(block.key)), Cell(loss), Cell(listed(map(str, seeds), 12))) for block, loss, seeds in found
        ),
        caption="Train them with the same `prove sweep`: what is finished is not trained again.",
        records=tuple(
            {
                "experiment": study.experiment,
                "dataset": block.key.dataset,
                "model": block.key.model,
                "strategy": block.key.strategy,
                "settings": block.key.settings,
                "loss": loss,
                "seed": seed,
            }
            for block, loss, seeds in found
            for seed in seeds
        ),
    )


def _warned(study: Study) -> Table | None:
    found = [*_warnings(study.blocks)]
    if not found:
        return None
    return Table(
        name="integrity-warnings",
        title="What a reader must know",
        columns=(Column("block", "left"), Column("what", "left")),
        rows=tuple((Cell(block or "all"), Cell(said)) for block, said, _ in found),
        records=tuple(
            {"experiment": study.experiment, "block": block, "kind": kind, "what": said} for block, said, kind in found
        ),
    )


def _warnings(blocks: Sequence[Block]) -> list[tuple[str, str, str]]:
    found = []
    for block in blocks:
        name = str(block.key)
        if block.baseline is None:
            found.append((name, f"No Δ: {block.why.rstrip('.')}.", "no baseline"))
        found += [(name, said, "warning") for said in block.warnings]
        found += [
            (name, f"Run {key} is compared though it is not comparable: {why}.", "mixed")
            for key, why in block.mixed.items()
        ]
    return found
