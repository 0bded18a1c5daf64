"""A study as one HTML file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from prove.report.page.headlines import BLOCKS_SHOWN, Group, headlines
from prove.report.page.issues import Issue, issues
from prove.report.page.ledger import FAILURES_SHOWN, failures, ledger
from prove.report.page.proofs import Proof, proofs
from prove.report.page.settings import settings
from prove.report.render.html_fragment import render_html
from prove.report.study import Study
from prove.report.table import Cell, Column, Table
from prove.report.views.numbers import DASH, confidence_text, plural

ISSUES = "Before you read on"

TABLES_SHOWN = 60
"""Tables of one section; of the rest, how many there are and how to see them."""

SHORT = 28
"""Letters up to which the names of a table's rows are kept on one line."""

SECTIONS = {
    "results": "Results",
    "across": "Over all blocks",
    "figures": "Figures",
    "hypotheses": "Hypotheses",
    "classes": "By class",
    "domains": "By condition",
    "secondary": "Other metrics",
    "precision": "Precision",
    "cost": "Cost",
}
"""Section → title, in the order of the page. Before them stand the issues and the findings, after them the proof, the
failures, the runs and the settings. The tables of ``integrity`` stand with the issues."""


class Picture(Protocol):
    """A figure, such as `prove.report.figures.pictures` makes them.

    Attributes:
        name: unique among the figures: letters, digits and dashes.
        title: one line.
        caption: how to read it.
        svg: an ``<svg>`` element, trusted: it is not escaped.
    """

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def caption(self) -> str: ...
    @property
    def svg(self) -> str: ...


class Undrawn(Protocol):
    """A figure that can't be drawn, and the reason, a sentence."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def reason(self) -> str: ...


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes:
        count: what the table of contents shows beside the title.
        lead: how to read it.
        more: what is not shown.
    """

    id: str
    title: str
    tables: tuple[Markup, ...] = ()
    count: str = ""
    lead: str = ""
    more: str = ""


WRAPPED = 80
"""Characters from which on a line of a comment was broken because it was full, and goes on in the next."""


def reflowed(text: str) -> str:
    """A comment without the line breaks that only its width has made."""
    lines: list[str] = []
    full = False
    for line in text.splitlines():
        if full and line.strip():
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line.strip())
        full = len(line) >= WRAPPED
    return "\n".join(lines)


def page(
    study: Study,
    *,
    tables: Mapping[str, Sequence[Table]],
    figures: Sequence[Picture | Undrawn] = (),
    generated_at: str | None = None,
) -> str:
    """The report of a study as a complete HTML document.

    Everything that comes from outside is escaped; a content security policy forbids every other script, every load and
    every style but the page's own.

    Args:
        tables: section → its tables, by the names of `SECTIONS` and ``integrity``; others come after those, under
            their own name. A table's name is unique.
        generated_at: when, as text; without, the page depends on the study alone.
    """
    groups, listed, failed, parts = headlines(study), ledger(study), failures(study), settings(study)
    proved, unread = proofs(study)
    found = issues(study)  # last: a study notes what it comes upon while it is read
    linked = listed.keys
    sections = [
        _issues_section(len(study.runs), found, tables.get("integrity", ()), linked),
        _findings_section(study, groups),
        *_table_sections(tables, figures, linked),
    ]
    if proved:
        lead = f"{_PROOF} Of {plural(unread, 'more run')} it is not shown here." if unread else _PROOF
        sections.append(Section("proof", "Proof of the wiring", lead=lead))
    if failed:
        sections.append(
            Section("failed", "Failed and interrupted runs", count=f"{sum(len(each.runs) for each in failed):,}")
        )
    sections.append(Section("runs", "Every run", count=f"{len(study.runs):,}"))
    if parts:
        sections.append(Section("settings", "Configuration and environment"))
    css, js = _text("page.css"), _text("page.js")
    text = (
        _environment()
        .get_template("page.html.jinja")
        .render(
            title=study.experiment or "All runs",
            description=reflowed(study.description),
            facts=_facts(study),
            policy=_policy(css, js),
            css=Markup(css),
            js=Markup(js),
            sections=sections,
            issues=found,
            groups=groups,
            figures=figures,
            proofs=[(proof, _html(_proof_table(proof, place), linked)) for place, proof in enumerate(proved)],
            failures=failed,
            failures_shown=FAILURES_SHOWN,
            ledger=listed,
            linked=linked,
            settings=parts,
            metrics=study.options.metrics,
            smallest_effect=f"{study.options.smallest_effect:g}",
            several_places=len({(run.dataset, run.model, run.strategy) for run in study.runs}) > 1,
            gpu=any(entry.gpu_hours for entry in listed.entries),
            cpu=any(entry.cpu_hours for entry in listed.entries),
            generated_at=generated_at,
        )
    )
    return text.encode(errors="replace").decode()  # half a character, which a message may hold, can't be written


def _issues_section(runs: int, found: Sequence[Issue], integrity: Sequence[Table], linked: frozenset[str]) -> Section:
    if not found:
        lead = "Nothing is amiss: every run finished, and all are comparable." if runs else "There is no run."
        return Section("issues", ISSUES, lead=lead)
    return Section("issues", ISSUES, _shown(integrity, linked), str(len(found)))


def _findings_section(study: Study, groups: Sequence[Group]) -> Section:
    hidden = len(study.blocks) - BLOCKS_SHOWN
    more = f"And {plural(hidden, 'more block')}: their tables are below." if hidden > 0 else ""
    return Section("findings", "What was found", lead="" if groups else "No run can be compared yet.", more=more)


def _table_sections(
    tables: Mapping[str, Sequence[Table]], figures: Sequence[Picture | Undrawn], linked: frozenset[str]
) -> Iterable[Section]:
    others = {name: name.capitalize() for name in tables if name not in SECTIONS and name != "integrity"}
    for name, title in {**SECTIONS, **others}.items():
        given = tables.get(name, ())
        if given or (name == "figures" and figures):
            hidden = len(given) - TABLES_SHOWN
            more = f"And {plural(hidden, 'more table')}: see `prove report tables`." if hidden > 0 else ""
            yield Section(name, title, _shown(given, linked), more=more)


def _shown(tables: Sequence[Table], linked: frozenset[str]) -> tuple[Markup, ...]:
    return tuple(_html(table, linked) for table in tables[:TABLES_SHOWN])


_PROOF = (
    "Before training, each term of each objective was looked at in the built model on a real batch: it must be finite, "
    "be there once, double when its weight is doubled, reach the logits of valid pixels, and none of ignored ones. "
    "Shares say what a weight amounts to; the cosine says whether a term pulls with the primary one or against it."
)


def _facts(study: Study) -> tuple[tuple[str, str], ...]:
    """The study at a glance: (name, value)."""
    options = study.options
    states = Counter(run.state.value for run in study.runs)
    return (
        ("Runs", ", ".join(f"{count:,} {state}" for state, count in states.most_common()) or "none"),
        ("Blocks", str(len(study.blocks))),
        ("Baseline", options.baseline),
        ("Metric" if len(options.metrics) == 1 else "Metrics", ", ".join(options.metrics)),
        ("Checkpoint", options.checkpoint),
        ("Intervals", confidence_text(options.confidence)),
        ("Smallest effect of interest", f"±{options.smallest_effect:g} points"),
    )


def _proof_table(proof: Proof, index: int) -> Table:
    """The terms of one loss."""
    several = len({row.model for row in proof.rows}) > 1
    names = ("weight", "value", "loss share (%)", "gradient share (%)", "cosine", "doubled", "on ignored pixels")
    return Table(
        name=f"proof-{index}",
        title=f"Terms of {proof.loss}",
        columns=(
            Column("term", "left"),
            *([Column("model", "left")] if several else []),
            Column("head", "left"),
            *(Column(name) for name in names),
        ),
        rows=tuple(
            (
                Cell(row.term),
                *([Cell(row.model)] if several else []),
                Cell(row.head),
                *(
                    Cell(each.text, each.middle, muted=each.middle is None)
                    for each in (row.weight, row.value, row.loss_share, row.gradient_share, row.cosine, row.doubling)
                ),
                Cell(row.ignored.text, row.ignored.middle, muted=row.ignored.middle is None),
            )
            for row in proof.rows
        ),
    )


def _html(table: Table, linked: frozenset[str]) -> Markup:
    """A table that sorts, in a box of its own that scrolls; its cells link to those of their runs that are listed."""
    rows = _linked_once(table, linked)
    kind = (
        "sortable short" if all(len(line) <= SHORT for row in rows for line in row[0].text.splitlines()) else "sortable"
    )
    box = f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(table.title)}"><table class="{kind}">'
    html = render_html([replace(table, rows=rows)], links=True)
    # Every text in it is escaped: a tag is one that the renderer wrote.
    return Markup(html.replace("<table>", box).replace("</table>", "</table></div>"))


def _linked_once(table: Table, linked: frozenset[str]) -> tuple[tuple[Cell, ...], ...]:
    """Rows that link to runs that are listed: a row's name where all its cells have the same, else its cells, where
    the cell above has others."""
    rows = []
    above: tuple[tuple[str, ...], ...] = ((),) * len(table.columns)
    for row in table.rows:
        keys = tuple(tuple(key for key in cell.runs if key in linked) for cell in row)
        several = set(keys) - {()}
        if len(several) == 1:
            shown = (*several, *[()] * (len(row) - 1))
        else:
            shown = tuple(() if own == before else own for own, before in zip(keys, above, strict=True))
        rows.append(tuple(replace(cell, runs=runs) for cell, runs in zip(row, shown, strict=True)))
        above = keys
    return tuple(rows)


def _policy(css: str, js: str) -> str:
    """Nothing may be loaded or run but this style and this script, known by their hashes; pictures are inline."""
    return (
        f"default-src 'none'; style-src '{_sha256(css)}'; script-src '{_sha256(js)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("prove.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"trusted": Markup, "sentence": _sentence, "hours": _hours}
    return environment


def _sentence(text: str) -> str:
    """With a capital letter, unless it begins with a name such as mIoU, and a full stop."""
    text = text.strip()
    first = text.split(maxsplit=1)[0] if text else ""
    if first.isalpha() and first.islower():
        text = f"{text[0].upper()}{text[1:]}"
    return f"{text}{'' if text.endswith(('.', '!', '?', '...')) else '.'}"


def _hours(value: float) -> str:
    return DASH if value == 0 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
