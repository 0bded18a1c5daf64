"""`prove report` as a user calls it."""

import csv
import io
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prove.cli import app
from prove.rundir import RunDir
from tests.report.campaign import LOSSES, Cell, campaign

SKILL = {"ce": 0.70, "ce + 0.3*focal": 0.75, "ce + 0.3*lovasz": 0.70}

TABLES = ("tables", "classes", "domains", "cost", "power", "hypotheses", "integrity")


def plain(loss: str, seed: int) -> Cell:
    return Cell(skill=SKILL[loss] + 0.002 * seed)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PROVE_DB", "PROVE_RESULTS", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(*arguments: object) -> Any:
    result = CliRunner().invoke(app, ["report", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def records(*arguments: object) -> list[dict[str, str]]:
    result = report(*arguments, "--format", "csv")
    assert result.exit_code == 0, result.output
    return list(csv.DictReader(io.StringIO(result.stdout)))


def test_the_table_says_what_the_runs_reported(home: Path) -> None:
    keys = campaign(home / "results", plain)
    rows = records("tables")
    for loss in LOSSES:
        events = [RunDir.of(home / "results", keys["segformer_mit-b0", loss, seed]).events for seed in range(3)]
        last = [json.loads(file.read_text().splitlines()[-1]) for file in events]
        values = [each["last"]["metrics"]["mIoU"] for each in last]
        row = next(row for row in rows if row["loss"] == loss)
        assert float(row["mean"]) == pytest.approx(statistics.mean(values), abs=1e-9)
        assert float(row["seed_sd"]) == pytest.approx(statistics.stdev(values), abs=1e-9)


def test_a_large_effect_is_found_and_none_is_made_up(home: Path) -> None:
    campaign(home / "results", plain)
    verdicts = {row["loss"]: row["verdict"] for row in records("tables")}
    assert verdicts["ce + 0.3*focal"] == "better"
    assert verdicts["ce + 0.3*lovasz"] in ("inconclusive", "equivalent")


@pytest.mark.parametrize("command", TABLES)
@pytest.mark.parametrize("form", ["rich", "md", "latex", "csv", "html", "json"])
def test_every_table_in_every_format(home: Path, command: str, form: str) -> None:
    campaign(home / "results", plain)
    result = report(command, "--format", form)
    assert result.exit_code == 0, result.output
    assert "lovasz" in result.stdout
    if form == "json":
        json.loads(result.stdout)
    if form == "rich":
        assert max(map(len, result.stdout.splitlines())) <= 100


def test_the_files_ending_says_the_format(home: Path) -> None:
    campaign(home / "results", plain)
    for ending, sign in ((".md", "|"), (".tex", r"\toprule"), (".csv", "loss"), (".html", "<table"), (".json", "{")):
        result = report("tables", "-o", home / "out" / f"t{ending}")
        assert (result.exit_code, result.stdout) == (0, "")
        assert sign in (home / "out" / f"t{ending}").read_text()
    refused = report("tables", "-o", home / "t.docx")
    assert refused.exit_code == 2
    assert "--format" in refused.stderr
    assert not (home / "t.docx").exists()


def test_json_is_one_document_and_nothing_else(home: Path) -> None:
    campaign(home / "results", plain)
    document = json.loads(report("tables", "--json").stdout)
    assert document["tables"][0]["records"]


def test_what_is_not_comparable_is_named_and_allow_mixed_marks_it(home: Path) -> None:
    keys = campaign(
        home / "results",
        lambda loss, seed: Cell(
            SKILL[loss], environment={"code": "e" * 64} if (loss, seed) == ("ce + 0.3*focal", 2) else {}
        ),
    )
    odd = keys["segformer_mit-b0", "ce + 0.3*focal", 2]
    shown = report("tables", "--format", "md").stdout
    assert odd in shown
    assert "other code" in shown
    row = next(row for row in records("tables") if row["loss"] == "ce + 0.3*focal")
    assert row["seeds"] == "2"
    mixed = next(row for row in records("tables", "--allow-mixed") if row["loss"] == "ce + 0.3*focal")
    assert mixed["seeds"] == "3"
    assert odd in report("tables", "--allow-mixed", "--format", "md").stdout


def test_a_failed_run_is_a_failure_and_no_number(home: Path) -> None:
    campaign(
        home / "results",
        lambda loss, seed: Cell(
            SKILL[loss], "failed" if (loss, seed) == ("ce + 0.3*lovasz", 1) else "finished", message="nan | <b>\\x$"
        ),
    )
    row = next(row for row in records("tables") if row["loss"] == "ce + 0.3*lovasz")
    assert row["seeds"] == "2"
    assert "diverged" in report("tables").stdout


def test_one_seed_gets_an_interval_of_its_images_a_sentence_and_exit_code_2(home: Path) -> None:
    campaign(home / "results", plain, seeds=range(1))
    result = report("tables", "--format", "csv")
    assert result.exit_code == 2
    assert "one seed" in result.stderr
    row = next(row for row in csv.DictReader(io.StringIO(result.stdout)) if row["loss"] == "ce + 0.3*focal")
    assert float(row["delta_low"]) < float(row["delta"]) < float(row["delta_high"])
    assert row["verdict"] == "no verdict"
    assert row["basis"] == "images"


COMPARING = [*(name for name in TABLES if name not in ("cost", "integrity")), "plots", "html"]
"""The commands that need something to compare."""


@pytest.mark.parametrize("command", COMPARING)
@pytest.mark.parametrize(
    ("cell", "arguments", "said"),
    [
        (Cell(state="failed"), (), "has finished: 9 failed"),
        (Cell(state="planned"), (), "has finished: 9 planned"),
        (Cell(metrics={"mIoU": None}), (), "undefined (NaN)"),
        (Cell(), ("--metric", "mIuO"), "Did you mean 'mIoU'"),
        (Cell(), ("--baseline", "ce + dice"), "No run has the baseline"),
        (Cell(), ("--checkpoint", "first"), "last"),
        (Cell(), ("nosuch",), "Unknown experiment 'nosuch'"),
        (Cell(), ("nosuch.yaml",), "nosuch.yaml"),
        (Cell(), ("--smallest-effect", "-1"), "> 0"),
    ],
)
def test_nonsense_is_refused_in_two_lines(home: Path, command: str, cell: Cell, arguments: Any, said: str) -> None:
    campaign(home / "results", lambda loss, seed: cell)
    result = report(command, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert result.stderr.startswith("error: ")
    assert {path.name for path in home.iterdir()} == {"results"}  # nothing half-written


@pytest.mark.parametrize("state", ["failed", "planned"])
def test_costs_and_what_became_of_the_runs_need_no_comparison(home: Path, state: str) -> None:
    campaign(home / "results", lambda loss, seed: Cell(state=state))
    for command in ("integrity", "cost"):
        result = report(command, "--format", "md")
        assert result.exit_code == 0, result.output
        assert "lovasz" in result.stdout
    assert ("diverged" in report("integrity").stdout) == (state == "failed")


def test_counts_that_are_not_the_runs_own_count_for_nothing_and_it_is_said(home: Path) -> None:
    keys = campaign(home / "results", plain)
    one, other = (RunDir.of(home / "results", keys["segformer_mit-b0", loss, 0]).confusion for loss in LOSSES[:2])
    one.rename(one.with_suffix(".x"))
    other.rename(one)
    one.with_suffix(".x").rename(other)
    result = report("tables", "--format", "md")
    assert keys["segformer_mit-b0", "ce", 0] in result.stdout
    assert "do not give the mIoU that it has recorded" in result.stdout
    assert {row["basis"] for row in records("tables") if row["delta"]} == {"seeds"}


def test_a_loss_that_scatters_more_is_judged_by_its_own_scatter_and_it_is_said(home: Path) -> None:
    restless = (0.55, 0.85, 0.62, 0.80, 0.70)

    def cell(loss: str, seed: int) -> Cell:
        return Cell(restless[seed] if "lovasz" in loss else SKILL[loss] + 0.002 * seed)

    campaign(home / "results", cell, seeds=range(5))
    rows = {row["loss"]: row for row in records("tables")}
    assert rows["ce + 0.3*lovasz"]["noisier"] == "true"
    assert rows["ce + 0.3*focal"]["noisier"] == "false"
    widths = {loss: float(row["delta_high"]) - float(row["delta_low"]) for loss, row in rows.items() if row["delta"]}
    assert widths["ce + 0.3*lovasz"] > widths["ce + 0.3*focal"]
    assert "Scatters more over seeds" in report("tables", "--format", "md").stdout


def test_seeds_in_common_with_nobody(home: Path) -> None:
    campaign(home / "results", plain, losses=LOSSES[:1], seeds=range(3))
    campaign(home / "results", plain, losses=LOSSES[1:], seeds=range(3, 6))
    result = report("tables")
    assert result.exit_code == 2
    assert "no objective has a seed in common" in result.stderr


def test_a_mask_models_own_criterion_is_pooled_with_cross_entropy(home: Path) -> None:
    campaign(home / "results", plain, losses=LOSSES[:2])
    campaign(
        home / "results",
        lambda loss, seed: Cell(0.8 if "focal" in loss else 0.7),
        losses=("m2f", "m2f + 0.3*focal"),
        models=("mask2former_swin-b",),
    )
    result = report("tables", "--format", "csv")
    assert result.exit_code == 0, result.output
    rows = [row for row in csv.DictReader(io.StringIO(result.stdout)) if row["table"].startswith("across")]
    assert {row["loss"] for row in rows} == {"ce + 0.3*focal"}


def test_contradictions_about_the_output_are_refused(home: Path) -> None:
    campaign(home / "results", plain)
    for wrong in (
        ("tables", "--json", "-o", home / "x.tex"),
        ("tables", "--json", "--format", "md"),
        ("html", "-o", home / "x.pdf"),
        ("plots", "-o", ""),
    ):
        assert report(*wrong).exit_code == 2, wrong
    assert {path.name for path in home.iterdir()} == {"results"}
    assert report("tables", "--format", "md", "-o", "-").stdout == report("tables", "--format", "md").stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_a_pipe(home: Path) -> None:
    campaign(home / "results", plain)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "prove.cli", "report", "tables"], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 2
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("command", [*TABLES, "plots", "html"])
def test_nothing_at_all(home: Path, command: str) -> None:
    result = report(command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "prove sweep" in result.stderr
    assert list(home.iterdir()) == []


def test_one_run(home: Path) -> None:
    campaign(home / "results", plain, losses=("ce",), seeds=range(1))
    result = report("tables")
    assert result.exit_code == 2
    assert "nothing to compare it with" in result.stderr


def test_axes(home: Path) -> None:
    campaign(home / "results", plain, models=("segformer_mit-b0", "pspnet_r50"))
    assert "pspnet_r50" in report("tables").stdout
    assert report("tables", "--rows", "model", "--columns", "loss").exit_code == 0
    for wrong in (("--rows", "colour"), ("--rows", "loss", "--columns", "loss"), ("--by", "colour")):
        result = report("tables", *wrong)
        assert result.exit_code == 2, wrong
        assert result.stdout == ""


def test_by_class_and_by_condition_are_the_other_commands(home: Path) -> None:
    campaign(home / "results", plain)
    assert report("tables", "--by", "class").stdout == report("classes").stdout
    assert report("tables", "--by", "condition").stdout == report("domains").stdout


def test_plots_and_html_write_what_they_say(home: Path) -> None:
    campaign(home / "results", plain)
    plots = report("plots", "--figure", "forest", "--format", "svg", "-o", home / "figures")
    assert plots.exit_code == 0, plots.output
    assert {path.name for path in (home / "figures").iterdir()} == {"forest.svg", "forest.csv"}
    assert report("plots", "--figure", "forrest").exit_code == 2
    page = report("html", "-o", home / "r.html")
    assert page.exit_code == 0, page.output
    written = (home / "r.html").read_text()
    assert written.startswith("<!DOCTYPE html>") or written.lower().startswith("<!doctype html>")


def test_a_file_that_cant_be_written(home: Path) -> None:
    campaign(home / "results", plain)
    (home / "file").write_text("x")
    for arguments in (("tables", "-o", home / "file" / "t.md"), ("html", "-o", home / "file" / "r.html")):
        result = report(*arguments)
        assert result.exit_code == 2
        assert "can't be written" in result.stderr


def test_tables_import_nothing_heavy(home: Path) -> None:
    campaign(home / "results", plain)
    code = (
        "import sys; from prove.cli import app\n"
        "try: app(['report', 'tables'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'mmseg', 'pandas', 'statsmodels', 'matplotlib', 'scipy.stats', 'sqlalchemy', 'jinja2'}\n"
        "found = heavy & set(sys.modules)\n"
        "sys.exit(f'imported: {found}' if found else 0)"
    )
    for _ in range(2):  # the first also resamples the images
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=home)
        assert done.returncode == 0, done.stderr


def test_the_same_question_has_the_same_answer(home: Path) -> None:
    campaign(home / "results", plain)
    first, second = (report("tables", "--format", "json").stdout for _ in range(2))
    assert first == second


def test_help_names_every_format_and_metric() -> None:
    shown = re.sub(r"\s+", " ", report("tables", "--help").stdout)
    for word in ("rich, md, latex, csv, html, json", "mIoU, aAcc, mAcc, fwIoU, bIoU, bF1, ECE", "--allow-mixed"):
        assert word in shown
