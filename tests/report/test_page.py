"""The HTML report as text: what it says, in which order, and that nothing from outside can become markup."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from prove.report.figures import pictures
from prove.report.page import document, ledger, page, proofs
from prove.report.page.document import reflowed
from prove.report.page.headlines import headlines
from prove.report.page.issues import issues
from prove.report.page.proofs import proofs as gather_proofs
from prove.report.page.settings import settings
from prove.report.study import Options, Trained
from prove.report.table import Cell, Column, Table
from prove.report.views.across import across
from prove.report.views.classes import classes
from prove.report.views.cost import cost
from prove.report.views.domains import domains
from prove.report.views.integrity import integrity
from prove.report.views.precision import precision
from prove.report.views.results import results
from prove.report.views.secondary import secondary
from prove.stats.effects import Verdict
from tests.report.studies import SimulatedStudy, simulate

VOID = {"meta", "link", "br", "circle", "path", "rect", "img"}


class Reader(HTMLParser):
    """A page as lists of tags, ids, links and texts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, tuple(sorted(values))))
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if tag == "a":
            self.links.append(str(values["href"]))
        if tag == "h2":
            self.headings.append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open or "script" in self._open:
            return
        self.text += data
        if self._open and self._open[-1] == "h2":
            self.headings[-1] += data


def table(name: str = "block-1", **changes: Any) -> Table:
    made = Table(
        name=name,
        title="A table",
        columns=(Column("loss", "left"), Column("mIoU (%)")),
        rows=((Cell("ce"), Cell("50.0", 50.0, marks=("a",))), (Cell("focal"), Cell("51.0", 51.0, bold=True))),
        caption="How to read it.",
        notes=(("a", "A footnote."),),
    )
    return replace(made, **changes)


@dataclass(frozen=True)
class Figure:
    name: str
    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class NoFigure:
    name: str
    title: str
    reason: str


def every_table(study: SimulatedStudy) -> dict[str, Sequence[Table]]:
    """What a report has, but for its hypotheses."""
    views = (results, across, classes, domains, secondary, precision, integrity, cost)
    return {view.__name__: view(study) for view in views}


def troubled(**changes: Any) -> SimulatedStudy:
    """A study with one of everything that can be wrong."""
    given: dict[str, Any] = {
        "blocks": (("SynthStreet", "segformer_mit-b0"), ("CamVid", "pspnet_r50")),
        "outcomes": {
            (0, "ce + 0.3*focal", 0): "failed diverged",
            (0, "ce + 0.3*focal", 1): "failed diverged",
            (0, "ce + 0.3*lovasz", 0): "absent",
            (0, "ce + 0.3*lovasz", 1): "planned",
            (0, "ce + 0.3*lovasz", 2): "nan",
            (1, "ce", 0): "not comparable: another learning rate (0.02, not 0.01)",
            (1, "ce", 1): "mixed: another crop (256x256, not 128x128)",
        },
        "notes": ("Half of the study is a simulation.",),
        "warnings": ("3 of 12: another device.",),
    }
    return simulate(**{**given, **changes})


# What it says


def test_the_issues_come_first_then_findings_tables_figures_proof_failures_runs_settings() -> None:
    given = {name: [table(f"{name}-1")] for name in ("results", "hypotheses", "classes", "cost", "integrity")}
    figure = Figure("forest", "Forest", "How to read it.", "<svg></svg>")
    read = Reader(page(troubled(), tables=given, figures=[figure]))
    assert read.headings == [
        "Before you read on",
        "What was found",
        "Results",
        "Figures",
        "Hypotheses",
        "By class",
        "Cost",
        "Proof of the wiring",
        "Failed and interrupted runs",
        "Every run",
        "Configuration and environment",
    ]


def test_ids_are_unique_and_every_link_has_a_target() -> None:
    study = troubled()
    keys = tuple(run.key for run in study.runs)
    cells = (Cell("ce"), Cell("50", 50.0, runs=keys[:5]))
    tables = every_table(study)
    tables |= {"results": [*tables["results"], table(rows=(cells,))], "mine": [table("mine-1")]}
    read = Reader(page(study, tables=tables, figures=pictures(study)))
    assert len(read.ids) == len(set(read.ids))
    assert {f"run-{key}" for key in keys} <= set(read.ids)
    assert {link.removeprefix("#") for link in read.links} <= set(read.ids)
    assert sum(link == f"#run-{keys[0]}" for link in read.links) >= 1


def test_every_issue_is_told_with_its_runs() -> None:
    study = troubled()
    found = {(issue.kind, issue.says): issue for issue in issues(study)}
    by_cell = {(run.dataset, run.loss, run.seed): run.key for run in study.runs}
    focal = tuple(by_cell["SynthStreet", "ce + 0.3*focal", seed] for seed in (0, 1))
    assert found["failed", "Diverged: 2 of 6 of ce + 0.3*focal."].runs == focal
    assert found["missing", "No run of ce + 0.3*lovasz at seed 0."].where == ("SynthStreet, segformer_mit-b0",)
    assert found["unfinished", "planned"].runs == (by_cell["SynthStreet", "ce + 0.3*lovasz", 1],)
    assert found["no number", "its mIoU is not a number"].runs == (by_cell["SynthStreet", "ce + 0.3*lovasz", 2],)
    odd = found["not comparable", "another learning rate (0.02, not 0.01)"]
    assert (odd.where, odd.runs) == (("CamVid, pspnet_r50",), (by_cell["CamVid", "ce", 0],))
    assert [issue.runs for issue in found.values() if issue.kind == "mixed"] == [(by_cell["CamVid", "ce", 1],)]
    assert found["warning", "3 of 12: another device."].where == ()  # it holds for both blocks
    assert ("note", "Half of the study is a simulation.") in found
    assert [issue.kind for issue in issues(study)] == [
        "not comparable", "mixed", "failed", "no number", "missing", "unfinished", "warning", "note",
    ]  # fmt: skip


def test_of_very_many_issues_of_a_kind_the_first_are_told_and_the_rest_counted() -> None:
    outcomes = {(0, "ce + 0.3*focal", seed): f"not comparable: reason {seed}" for seed in range(40)}
    found = issues(simulate(seeds=40, image_sd=None, outcomes=outcomes))
    assert [issue.says for issue in found[:2]] == ["reason 0", "reason 1"]
    assert (len(found), found[-1].says, len(found[-1].runs)) == (26, "And 15 more of this kind.", 15)


def test_a_study_in_order_has_no_issue_and_says_so() -> None:
    study = simulate()
    assert issues(study) == ()
    assert "Nothing is amiss" in Reader(page(study, tables={})).text


def test_one_seed_is_an_issue_and_gives_no_verdict() -> None:
    study = simulate(seeds=1)
    assert [issue.kind for issue in issues(study)] == ["one seed"]
    (group,) = headlines(study)
    assert {each.verdict for each in group.headlines} == {Verdict.NO_VERDICT}
    text = Reader(page(study, tables={})).text
    assert "these checkpoints only" in text
    assert not re.search(r"is (better|worse) than", text)


def test_headlines_agree_with_the_truth_of_the_simulation() -> None:
    effects = {"ce": 0.0, "ce + focal": 3.0, "ce + dice": -3.0, "ce + boundary": 0.0}
    study = simulate(effects, seeds=5, run_sd=0.05, image_sd=0.05, options=Options(baseline="ce", smallest_effect=0.5))
    (group,) = headlines(study)
    assert {each.loss: each.verdict for each in group.headlines} == {
        "ce + focal": Verdict.BETTER,
        "ce + dice": Verdict.WORSE,
        "ce + boundary": Verdict.EQUIVALENT,
    }
    assert [each.verdict for each in group.headlines] == [Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT]
    better, worse, same = group.headlines
    assert better.numbers.startswith("+")
    assert worse.numbers.startswith("−")  # a minus sign, not a hyphen
    assert "is better than ce" in better.says
    assert "0.5 points" in same.says
    for each in group.headlines:
        assert each.strip is not None
        assert -100 <= each.strip.low <= each.strip.point <= each.strip.high <= 100
    assert better.strip is not None
    assert better.strip.low > better.strip.band  # drawn outside the band of what is too small to matter


def test_a_block_without_baseline_says_why_and_is_not_compared() -> None:
    study = simulate(outcomes={(0, "ce", seed): "failed out_of_memory" for seed in range(3)})
    assert issues(study)[0].kind == "no baseline"
    text = Reader(page(study, tables={})).text
    assert "No run of the baseline ce is finished." in text
    assert study.compared == []


def test_failures_stand_with_message_advice_and_runs() -> None:
    study = troubled()
    (failure,) = ledger.failures(study)
    assert (failure.kind, failure.message, len(failure.runs)) == ("diverged", "the loss is not finite", 2)
    assert failure.advice in Reader(page(study, tables={})).text


def test_a_run_that_takes_no_part_says_why_and_has_no_number() -> None:
    study = troubled()
    entries = {(entry.run.dataset, entry.run.loss, entry.run.seed): entry for entry in ledger.ledger(study).entries}
    assert len(entries) == len(study.runs)
    assert entries["CamVid", "ce", 0].says == "not comparable: another learning rate (0.02, not 0.01)"
    assert entries["CamVid", "ce", 0].values == (None,)
    assert entries["CamVid", "ce", 1].says.startswith("mixed in: another crop")
    usual = entries["CamVid", "ce", 2]
    assert usual.says == ""
    (value,) = usual.values
    assert value is not None
    assert math.isfinite(value)


def test_beyond_the_limit_only_runs_with_something_to_say_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "RUNS_SHOWN", 10)
    study = troubled()
    listed = ledger.ledger(study)
    mixed = {key for block in study.blocks for key in block.mixed}
    quiet = {run.key for block in study.blocks for run in block.runs.values()} - mixed
    assert listed.keys == {run.key for run in study.runs} - quiet
    assert listed.unlisted == len(study.runs) - len(listed.entries)
    keys = tuple(run.key for run in study.runs)
    read = Reader(page(study, tables={"results": [table(rows=((Cell("ce"), Cell("50", 50.0, runs=keys)),))]}))
    assert f"{listed.unlisted} runs are not listed" in read.text
    assert {link.removeprefix("#") for link in read.links} <= set(read.ids)  # no link to a run that is not there


def test_proofs_tell_what_was_seen_and_what_was_refuted() -> None:
    class Refuted(SimulatedStudy):
        def evidence(self, run: Trained) -> Mapping[str, Any] | None:
            if run.seed == 1:
                return None
            shares = {0: 0.2, 2: 0.4}[run.seed]
            return {
                "ok": run.seed == 0,
                "problems": [] if run.seed == 0 else ["boundary is not in the backward pass"],
                "heads": [{"head": "decode_head", "terms": [
                    {"text": "0.3*x", "weight": 0.3, "loss_share": shares, "cosine_to_primary": -0.5, "value": None}
                ]}],
                "batch": {"images": 2, "pixels": 1000, "ignored_pixels": 10, "planted": True},
            }  # fmt: skip

    made = simulate({"ce": 0.0, "ce + 0.3*x": 0.0})
    study = Refuted(**{name: value for name, value in vars(made).items() if not name.startswith("_")})
    found, unread = gather_proofs(study)
    assert (unread, [proof.loss for proof in found]) == (0, ["ce", "ce + 0.3*x"])
    proof = found[1]
    assert (len(proof.proved), len(proof.refuted), len(proof.unknown)) == (1, 1, 1)
    (row,) = proof.rows
    assert (row.weight.text, row.loss_share.text, row.cosine.text) == ("0.3", "20.0 to 40.0", "−0.50")
    assert (row.value.text, row.value.middle) == ("–", None)
    text = Reader(page(study, tables={})).text
    assert "boundary is not in the backward pass" in text
    assert "refuted in 1" in text


def test_of_very_many_runs_some_of_each_loss_are_read_and_all_whose_proof_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proofs, "RUNS_READ", 9)
    monkeypatch.setattr(proofs, "RUNS_PER_GROUP", 1)
    study = simulate(seeds=4, outcomes={(0, "ce + 0.3*focal", 3): "failed wiring"})
    found, unread = gather_proofs(study)
    assert unread == len(study.runs) - 5
    assert {proof.loss: len(proof.proved) for proof in found}["ce + 0.3*focal"] == 2


def test_settings_tell_what_differs_and_how_often_but_no_names_of_people_or_machines(tmp_path: Path) -> None:
    study = simulate(results=tmp_path)
    runs = tuple(
        replace(run, facts={"lr": 0.01 if run.seed else 0.02, "code": "c0de" * 16, "versions": '{"torch": "2.11.0"}'})
        for run in study.runs
    )
    study.runs = runs
    folder = study.folder(runs[0])
    folder.create()
    env = {
        "host": "secret-host", "command": ["/home/ada/train"], "data_root": "/home/ada/data", "cpu": "EPYC",
        "packages": {"torch": "2.11.0", "numpy": "2.4.6"}, "prove_git": {"commit": "ab" * 20, "dirty": True},
    }  # fmt: skip
    folder.env.write_text(json.dumps(env))
    parts = {part.title: part for part in settings(study)}
    (lr,) = parts["What the runs were asked to do"].varying
    assert (lr.name, lr.values) == ("lr", (("0.01", 8), ("0.02", 4)))
    text = Reader(page(study, tables={})).text
    for said in ("EPYC", "2.4.6", "2.11.0", "abababababab", "c0dec0dec0de"):
        assert said in text
    for name in ("secret-host", "ada"):
        assert name not in text


def test_an_empty_study_is_a_page_all_the_same() -> None:
    study = simulate(blocks=())
    text = Reader(page(study, tables={})).text
    assert "No run can be compared yet." in text


def test_figures_stand_inline_and_one_that_is_not_drawn_says_why() -> None:
    figures = [
        Figure("forest", "Effects", "How to read it.", '<svg role="img"><title>Effects</title></svg>'),
        NoFigure("ranks", "Ranks", "There is one block."),
    ]
    html = page(simulate(), tables={}, figures=figures)
    assert '<svg role="img"><title>Effects</title></svg>' in html
    assert "Ranks is not drawn: There is one block." in Reader(html).text


def test_without_a_date_the_page_depends_on_the_study_alone() -> None:
    assert page(troubled(), tables={}) == page(troubled(), tables={})
    assert "on 1 May 2030" in page(troubled(), tables={}, generated_at="1 May 2030")


def test_a_section_with_very_many_tables_says_how_many_are_not_shown() -> None:
    given = [table(f"block-{number}") for number in range(document.TABLES_SHOWN + 3)]
    read = Reader(page(simulate(), tables={"results": given}))
    assert "3 more tables" in read.text
    assert sum(name.startswith("table-block-") for name in read.ids) == document.TABLES_SHOWN


def test_a_row_links_once_to_its_runs_and_a_column_once_to_its_own() -> None:
    study = simulate()
    a, b, c = (run.key for run in study.runs[:3])

    def links(*rows: tuple[Cell, ...]) -> list[str]:
        columns = tuple(Column(str(number)) for number in range(len(rows[0])))
        html = page(study, tables={"results": [table(columns=columns, rows=rows)]})
        return [link for link in Reader(html).links if link.startswith("#run-")]

    same = Cell("1", runs=(a, b))
    assert links((Cell("ce"), same, same)) == [f"#run-{a}", f"#run-{b}"]
    row = (Cell("road"), Cell("1", runs=(a,)), Cell("2", runs=(b,)))
    assert links(row, row) == [f"#run-{a}", f"#run-{b}"]
    assert links(row, (Cell("car"), Cell("1", runs=(a,)), Cell("2", runs=(c,)))) == [f"#run-{key}" for key in (a, b, c)]
    assert links((Cell("x"), Cell("1", runs=("unknown",)))) == []


@pytest.mark.slow
def test_a_page_of_500_runs_with_all_tables_and_figures_is_below_5_megabytes() -> None:
    losses = {"ce": 0.0, **{f"ce + 0.{number}*focal": number / 10 for number in range(1, 10)}}
    study = simulate(
        losses,
        blocks=[(f"dataset {number % 5}", f"model_{number // 5}") for number in range(10)],
        seeds=5,
        image_sd=None,
        classes=[f"class {number}" for number in range(19)],
        conditions=("clear", "fog", "night", "rain", "snow"),
    )
    assert len(study.runs) == 500
    assert len(page(study, tables=every_table(study), figures=pictures(study)).encode()) < 5_000_000


# Text from outside

HOSTILE = (
    "</title><script>window.hacked=1</script>",
    "</script><script>window.hacked=1</script>",
    "</style><script>window.hacked=1</script>",
    '"><img src=x onerror="window.hacked=1">',
    "' onmouseover='window.hacked=1",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- --><svg/onload=window.hacked=1>",
    "&lt;b&gt; &amp; \u202e\x00\ud800",
)


def poisoned(poison: str) -> str:
    """A page in which every text that can come from outside is, or ends with, the same one."""
    study = troubled(experiment=poison, notes=(poison,), warnings=(poison,))
    study.description = poison
    loss = {name: name if name == "ce" else f"{name}{poison}" for name in study.law.effects}
    study.law = replace(study.law, effects={loss[name]: effect for name, effect in study.law.effects.items()})

    def spoil(run: Trained) -> Trained:
        facts = {poison: poison, "nested": {poison: poison}, "versions": json.dumps({poison: poison})}
        return replace(run, loss=loss[run.loss], dataset=run.dataset + poison, model=run.model + poison,
                       message=poison, advice=poison, facts=facts)  # fmt: skip

    study.runs = tuple(spoil(run) for run in study.runs)
    study.blocks = tuple(
        replace(
            block,
            key=replace(block.key, dataset=block.key.dataset + poison, settings=poison),
            losses=tuple(loss[name] for name in block.losses),
            runs={(loss[name], seed): spoil(run) for (name, seed), run in block.runs.items()},
            left_out=tuple(replace(out, run=spoil(out.run), reason=poison) for out in block.left_out),
            mixed=dict.fromkeys(block.mixed, poison),
        )
        for block in study.blocks
    )
    dirty = Table("t", poison, (Column(poison, "left"), Column(poison)), ((Cell(poison), Cell(poison, 1.0)),), poison,
                  (("a", poison), ("", poison)))  # fmt: skip
    figures = [Figure("f", poison, poison, "<svg></svg>"), NoFigure("n", poison, poison)]
    return page(study, tables={"results": [dirty], "integrity": [replace(dirty, name="u")]}, figures=figures,
                generated_at=poison)  # fmt: skip


@pytest.mark.parametrize("poison", HOSTILE)
def test_text_from_outside_stays_text(poison: str) -> None:
    """The same page with a harmless text has the same elements with the same attributes."""
    clean, dirty = Reader(poisoned("harmless")), Reader(poisoned(poison))
    assert dirty.tags == clean.tags
    assert dirty.text.count(poison.replace("\x00", "")) >= 10 or "\x00" in poison
    assert dirty.text.count("49") == clean.text.count("49")


def test_a_comment_that_was_wrapped_is_one_line_again() -> None:
    long = "Expect: about 14% mIoU for every objective and differences that three seeds can't tell apart. A network"
    text = f"Four objectives.\n\nprove sweep x.yaml\nprove report x\n\n{long}\nthat starts anew."
    assert reflowed(text).splitlines() == [
        "Four objectives.", "", "prove sweep x.yaml", "prove report x", "", f"{long} that starts anew.",
    ]  # fmt: skip
