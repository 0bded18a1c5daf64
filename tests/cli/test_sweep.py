"""`prove sweep`, `cancel`, `retry`, `watch`, from the command line to what is recorded; workers train nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prove.cli import app
from prove.cli.request import Plan, RunRequest, plan
from prove.data.manifest import fingerprint
from prove.launch.folder import LaunchDir
from prove.launch.start import Request
from prove.spec.event import State
from prove.store import Store

WORKERS = Path(__file__).parent.parent / "launch"
DATASET = "SynthStreet(height=64, width=128, train=2, val=1)"
HEAD = f"""
train: {{dataset: "{DATASET}", model: segformer_mit-b0, pretrained: false, max_iters: 4, eval_interval: 4,
         batch_size: 2, crop_size: 32x32, device: cpu}}
"""
EXPERIMENT = f"matrix: {{aux_loss: [none, focal], seed: 0..1}}\n{HEAD}"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and workers that train nothing."""
    for name in ("PROVE_DB", "PROVE_RESULTS", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(WORKERS), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr("prove.cli.launching.Request", partial(Request, worker="trivial_worker:main"))
    plans(tmp_path, {"default": {"steps": 4}})
    return tmp_path


@cache
def data() -> dict[str, str]:
    """What the images and labels are known by that the jobs of these tests are trained on."""
    dataset = planned().dataset
    return {"train": fingerprint(dataset.train), "val": fingerprint(dataset.val)}


def plans(home: Path, plan: dict[str, Any]) -> None:
    (home / "results").mkdir(exist_ok=True)
    plan["default"] = {"data": data(), **plan["default"]}
    (home / "results" / "plan.json").write_text(json.dumps(plan))


def prove(*arguments: object) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


def answer(*arguments: object, code: int = 0) -> Any:
    result = prove(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def write(home: Path, text: str = EXPERIMENT, name: str = "mine.yaml") -> Path:
    (home / name).write_text(text)
    return home / name


def planned(**settings: Any) -> Plan:
    fixed = {"dataset": DATASET, "model": "segformer_mit-b0", "pretrained": False, "max_iters": 4, "eval_interval": 4,
             "batch_size": 2, "crop_size": "32x32", "device": "cpu"}  # fmt: skip
    return plan(RunRequest(**{**fixed, **settings}))


def finishes(home: Path) -> dict[str, int]:
    """How often each run says that it has finished."""
    return {
        file.parent.name: file.read_text().count('"kind":"finished"')
        for file in (home / "results" / "runs").glob("*/events.jsonl")
    }


def states(home: Path) -> dict[str, str]:
    with Store.open(home / "results") as store:
        return {run.key: run.state.value for run in store.runs()}


# the matrix


def test_a_dry_run_shows_the_matrix_and_leaves_nothing(home: Path) -> None:
    file = write(home)
    before = sorted(home.rglob("*"))
    found = answer("sweep", file, "--dry-run")
    assert (found["experiment"], found["runs"], found["counts"]["new"]) == ("mine", 4, 4)
    assert found["runs_of_unknown_cost"] == 4
    assert [(cell["loss"], cell["counts"]) for cell in found["matrix"]] == [
        ("ce", {"new": 2}),
        ("ce + 0.3*focal", {"new": 2}),
    ]
    text = prove("sweep", file, "--dry-run").stdout
    assert "mine: 4 runs" in text
    assert "2N" in text
    assert sorted(home.rglob("*")) == before


def test_a_sweep_trains_every_cell_once_as_prove_run_names_it(home: Path) -> None:
    done = answer("sweep", write(home), "--jobs", 2)
    assert done["counts"]["finished"] == done["launched"] == 4
    wanted = {planned(aux_loss=aux, seed=seed).job.key for aux, seed in product(("none", "focal"), (0, 1))}
    assert finishes(home) == dict.fromkeys(wanted, 1)
    found = answer("status", "mine")
    assert {run["key"] for run in found["runs"]} == wanted
    assert all(run["state"] == "finished" and run["mIoU"] == 12.5 for run in found["runs"])
    with Store.open(home / "results") as store:
        assert store.open_launches() == []


def test_again_launches_what_is_missing(home: Path) -> None:
    file = write(home)
    assert answer("sweep", file, "--limit", 3)["launched"] == 3
    assert answer("sweep", file)["launched"] == 1
    again = prove("sweep", file)
    assert again.exit_code == 0
    assert "nothing to launch" in again.stderr
    assert set(finishes(home).values()) == {1}


def test_an_edited_file_adds_its_new_cells_and_keeps_the_old(home: Path) -> None:
    answer("sweep", write(home))
    longer = write(home, EXPERIMENT.replace("0..1", "0..2"))
    dry = answer("sweep", longer, "--dry-run")
    assert (dry["runs"], dry["counts"]["new"], dry["counts"]["finished"]) == (6, 2, 4)
    assert dry["runs_of_unknown_cost"] == 0
    assert dry["expected_hours"] == pytest.approx(2 * 1.0 / 4 * 4 / 3600)  # as long as those that have finished
    assert answer("sweep", longer, "--dry-run", "--results", home / "elsewhere")["expected_hours"] is None
    assert answer("sweep", longer)["launched"] == 2
    assert len(finishes(home)) == 6


def test_new_runs_are_not_put_beside_runs_of_other_data(home: Path) -> None:
    answer("sweep", write(home))
    longer = write(home, EXPERIMENT.replace("0..1", "0..2"))
    folder = next((home / "results" / "runs").iterdir())
    (folder / "env.json").write_text(json.dumps({"data_fingerprint": {**data(), "val": "0" * 64}}))
    result = prove("sweep", longer)
    assert result.exit_code == 2
    assert (
        f"1 finished runs of this matrix were trained on other images or labels under the name {DATASET}"
        in result.stderr
    )
    assert folder.name in result.stderr
    assert answer("sweep", home / "mine.yaml", "--dry-run")["counts"]["planned"] == 2


MIXED = f"matrix: {{strategy: [baseline, gen_random_noise], aux_loss: [none, focal], seed: 0..1}}\n{HEAD}"


def test_other_images_by_another_strategy_are_no_other_data(home: Path) -> None:
    """Noise beside the images is what was asked for; the finished runs of the baseline are still comparable."""
    answer("sweep", write(home))
    assert answer("sweep", write(home, MIXED))["launched"] == 4


def test_other_images_by_the_same_strategy_are(home: Path) -> None:
    """The trivial workers say that all were trained on what the baseline is; of the noise that is not so."""
    answer("sweep", write(home, MIXED))
    result = prove("sweep", write(home, MIXED.replace("0..1", "0..2")))
    assert result.exit_code == 2
    assert "4 finished runs of this matrix were trained on other images" in result.stderr


def test_a_filter_is_shown_in_the_matrix(home: Path) -> None:
    file = write(home, f"matrix: {{domain_filter: [all, clear_day, cloudy+clear_day], seed: [0]}}\n{HEAD}")
    assert [cell["loss"] for cell in answer("sweep", file, "--dry-run")["matrix"]] == [
        "ce [domain_filter all]", "ce [domain_filter clear_day]", "ce [domain_filter clear_day+cloudy]",
    ]  # fmt: skip


def test_register_only_records_and_trains_nothing(home: Path) -> None:
    answer("sweep", write(home), "--register-only")
    assert set(states(home).values()) == {"planned"}
    assert not (home / "results" / "runs").exists()
    assert answer("sweep", write(home))["counts"]["finished"] == 4


def test_flags_make_the_same_jobs_as_a_file(home: Path) -> None:
    flags = ["--dataset", DATASET, "--model", "segformer_mit-b0", "--no-pretrained", "--max-iters", 4,
             "--batch-size", 2, "--eval-interval", 4, "--crop-size", "32x32", "--device", "cpu",
             "--seed", "0..1"]  # fmt: skip
    answer("sweep", *flags, "--aux-loss", "none,focal", "--name", "flags", "--register-only")
    with_expr = answer("sweep", *flags, "--loss", "ce,ce + 0.3*focal(gamma=2)", "--dry-run")
    of_file = answer("sweep", write(home), "--dry-run")
    assert with_expr["counts"]["planned"] == of_file["counts"]["planned"] == 4
    assert answer("status", "flags")["counts"]["planned"] == 4


def test_two_spellings_of_one_job_are_one_run(home: Path) -> None:
    file = write(home, f'matrix: {{loss: ["ce + 0.3*focal", "ce + 0.3*focal(gamma=2)"], seed: [0]}}\n{HEAD}')
    found = answer("sweep", file, "--dry-run")
    assert (found["runs"], found["repeated_cells"]) == (1, 1)
    assert answer("sweep", file)["launched"] == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (EXPERIMENT.replace("focal]", "focall]"), "mine.yaml:1:27: Unknown loss 'focall'"),
        (EXPERIMENT.replace("segformer_mit-b0", "segformer_mit-b9"), "segformer_mit-b0"),
        (EXPERIMENT.replace("max_iters: 4", "max_itres: 4"), "max_iters"),
        (EXPERIMENT + "launch: {launcher: slrum}\n", "slurm"),
        (EXPERIMENT + "launch: {jobz: 2}\n", "jobs"),
        (EXPERIMENT + "launch: {jobs: 0}\n", "jobs is 0"),
        (EXPERIMENT.replace("eval_interval: 4", "eval_interval: 9"), "This is the cell"),
        (EXPERIMENT + "exclude: [{seed: [0, 1]}]\n", "every cell is excluded"),
        ("", "empty"),
        (f"{EXPERIMENT}report: {{baseline: focla}}", "mine.yaml:5:20: baseline: Unknown loss"),
        (f"{EXPERIMENT}report: {{baseline: focla}}", "Did you mean 'focal'"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(home: Path, text: str, says: str) -> None:
    file = write(home, text)
    before = sorted(home.rglob("*"))
    for more in ((), ("--dry-run",)):
        result = prove("sweep", file, *more)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert says in result.stderr
        assert "Traceback" not in result.stderr
        assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize(
    ("axis", "says"),
    [
        ("domain_filter: [all, clear_dy]", "Did you mean 'clear_day'?"),
        ("strategy: [baseline, gen_synthwether]", "Did you mean gen_synthweather"),
    ],
)
def test_a_recipe_that_can_t_be_had_records_no_run(home: Path, axis: str, says: str) -> None:
    """Neither in a new folder nor beside others, where runs that never can be trained would stay in every report."""
    file = write(home, f"matrix: {{{axis}, seed: [0]}}\n{HEAD}", "wrong.yaml")
    for before in ({}, {"planned"}):
        result = prove("sweep", file)
        assert result.exit_code == 2, result.output
        assert says in result.stderr
        assert (home / "results" / "prove.db").exists() is bool(before)
        if before:
            assert len(states(home)) == 4
        answer("sweep", write(home), "--register-only")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--dataset", "CamVid", "--data-root", "nope"), "--data-root names nope, which does not exist"),
        (("--dataset", "ACDC"), "Where is ACDC?"),
        (("--dataset", "multi_CamVid+ACDC"), "Where is ACDC?"),
        (("--dataset", f"{DATASET},ACDC", "--limit", "1"), "Where is ACDC?"),
        (("--dataset", DATASET, "--max-iters", "4", "--val-images", "2"), "has 1 validation images"),
    ],
)
def test_a_dataset_that_is_not_here_records_no_run(home: Path, flags: tuple[str, ...], says: str) -> None:
    for before in (False, True):
        result = prove("sweep", *flags, "--model", "segformer_mit-b0", "--no-pretrained", "--seed", 0)
        assert result.exit_code == 2, result.output
        assert says in result.stderr
        assert (home / "results" / "prove.db").exists() is before
        if before:
            assert len(states(home)) == 4
        answer("sweep", write(home), "--register-only")


def test_only_the_data_of_what_would_be_trained_must_be_here(home: Path) -> None:
    """Runs on images that are elsewhere may be recorded; once cancelled, they keep nobody from the others."""
    flags = ("--dataset", f"{DATASET},ACDC", "--model", "segformer_mit-b0", "--no-pretrained", "--seed", "0")
    flags += (
        "--max-iters",
        "4",
        "--eval-interval",
        "4",
        "--batch-size",
        "2",
        "--crop-size",
        "32x32",
        "--device",
        "cpu",
    )
    answer("sweep", *flags, "--register-only")
    assert "Where is ACDC?" in prove("sweep", *flags).stderr
    answer("cancel", "--where", "dataset=ACDC")
    done = answer("sweep", *flags)
    assert (done["counts"]["finished"], done["counts"]["cancelled"]) == (1, 1)


@pytest.mark.parametrize("flag", [("--seed", "0"), ("--no-amp",), ("--pretrained",), ("--name", "x"), ("--lr", "0.1")])
def test_a_file_and_axes_contradict_each_other(home: Path, flag: tuple[str, ...]) -> None:
    result = prove("sweep", write(home), *flag)
    assert result.exit_code == 2
    assert "extends" in result.stderr
    assert "Nothing to sweep over" in prove("sweep").stderr


def test_where_it_runs_may_be_said_beside_a_file(home: Path) -> None:
    write(home, EXPERIMENT.replace("device: cpu", "device: cuda"))
    answer("sweep", "mine.yaml", "--device", "cpu", "--workers", 3, "--limit", 1)
    launch = json.loads(next((home / "results" / "runs").glob("*/launch.json")).read_text())
    assert (launch["placement"]["num_workers"], launch["device"]) == (3, "cpu")
    result = prove("sweep", "mine.yaml", "--data-root", home / "nowhere")
    assert (result.exit_code, "--data-root names" in result.stderr) == (2, True)


def test_an_axis_that_is_given_twice_has_the_values_of_both(home: Path) -> None:
    found = answer(
        "sweep", "--model", "fcn_tiny", "--model", "pspnet_r50,segformer_mit-b0", "--no-pretrained", "--dry-run"
    )
    assert [cell["model"] for cell in found["matrix"]] == ["fcn_tiny", "pspnet_r50", "segformer_mit-b0"]


def test_runs_that_differ_in_more_than_the_seed_are_told_apart(home: Path) -> None:
    answer("sweep", write(home), "--register-only")
    longer = write(home, EXPERIMENT.replace("max_iters: 4", "max_iters: 5").replace("[none, focal]", "[focal, lovasz]"))
    answer("sweep", longer, "--register-only")
    lines = prove("status", "mine").stdout.splitlines()
    counts = {line.rpartition("  ")[0].strip(): line.rpartition("  ")[2] for line in lines if line.startswith("ce")}
    assert counts == {
        "ce": "2P", "ce + 0.3*focal [max_iters 4]": "2P", "ce + 0.3*focal [max_iters 5]": "2P", "ce + 0.3*lovasz": "2P",
    }  # fmt: skip
    axis = answer("sweep", write(home, f"matrix: {{lr: [0.1, 0.2], amp: [true, false]}}\n{HEAD}"), "--dry-run")
    assert [cell["loss"] for cell in axis["matrix"]] == [
        "ce [amp true, lr 0.1]", "ce [amp false, lr 0.1]", "ce [amp true, lr 0.2]", "ce [amp false, lr 0.2]",
    ]  # fmt: skip


def test_a_dataset_that_is_not_there_is_said_before_anything_is_claimed(home: Path) -> None:
    file = write(home, EXPERIMENT.replace(f'dataset: "{DATASET}"', f"dataset: CamVid, data_root: {home}/nowhere"))
    result = prove("sweep", file)
    assert (result.exit_code, result.stdout) == (2, result.stdout)
    assert "nowhere" in result.stderr
    assert set(states(home).values()) <= {"planned"}
    assert answer("sweep", file, "--dry-run")["runs"] == 4  # showing the matrix needs no data


# failures, and trying again


def test_a_failed_run_is_named_kept_and_tried_again_when_asked(home: Path) -> None:
    plans(home, {"default": {"steps": 4}, "1": {"fail": "out_of_memory"}})
    file = write(home)
    done = answer("sweep", file, code=1)
    assert (done["counts"]["finished"], done["counts"]["failed"]) == (2, 2)
    shown = prove("status", "mine")
    assert "2 runs" in shown.stderr
    assert "(out_of_memory): as planned" in shown.stderr
    assert answer("sweep", file, code=1)["launched"] == 0
    assert answer("retry", "--experiment", "mine", "--kind", "diverged")["chosen"] == 0
    plans(home, {"default": {"steps": 4}})
    retried = answer("retry", "--experiment", "mine", "--kind", "out_of_memory")
    assert (retried["launched"], retried["counts"]["finished"]) == (2, 2)
    assert set(finishes(home).values()) == {1}
    assert prove("retry", "--all", "--kind", "out_of_mem").exit_code == 2


def test_a_full_disk_stops_the_sweep_and_fails_nothing(home: Path) -> None:
    plans(home, {"default": {"steps": 4}, "0": {"full": True}})
    result = prove("sweep", write(home), "--jobs", 1)
    assert result.exit_code == 130
    assert "stopped by a full disk" in result.stderr
    found = states(home)
    assert sorted(found.values()) == ["interrupted", "planned", "planned", "planned"]
    plans(home, {"default": {"steps": 4}})
    assert answer("sweep", home / "mine.yaml")["counts"]["finished"] == 4


def test_killed_too_often_is_failed_as_killed(home: Path) -> None:
    plans(home, {"default": {"steps": 4}, "1": {"steps": 4, "die": {"1": 1, "2": 2}}})
    answer("sweep", write(home), "--max-attempts", 2, code=1)
    found = answer("status")
    failed = [run for run in found["runs"] if run["state"] == "failed"]
    assert [(run["failure"], run["attempts"], run["seed"]) for run in failed] == [("killed", 2, 1)] * 2
    assert found["counts"]["finished"] == 2


def test_what_is_cancelled_before_it_starts_never_starts(home: Path) -> None:
    file = write(home)
    answer("sweep", file, "--register-only")
    assert answer("cancel", "--where", "seed=1")["cancelled"] == 2
    assert answer("sweep", file)["launched"] == 2
    assert answer("status")["counts"] == {**dict.fromkeys(map(str, State), 0), "finished": 2, "cancelled": 2}
    assert answer("retry", "--where", "seed=1")["planned"] == 2
    assert answer("sweep", file)["counts"]["finished"] == 4


def test_what_was_cancelled_in_a_queue_is_launched_again(home: Path) -> None:
    """It has no folder yet: what it takes to run it is in the folder of the launch that had it."""
    plans(home, {"default": {"steps": 2000, "seconds": 0.05}})
    with sweeping(home, write(home), "--jobs", 2) as process:
        until(lambda: iterating(home, 2))
        answer("cancel", "--experiment", "mine")
        process.communicate(timeout=60)
    until(lambda: set(states(home).values()) == {"cancelled"} or not prove("status"))
    assert len(list((home / "results" / "runs").iterdir())) == 2
    plans(home, {"default": {"steps": 4}})
    again = answer("retry", "--all")
    assert (again["launched"], again["planned"], again["counts"]["finished"]) == (4, 0, 4)
    assert set(finishes(home).values()) == {1}


@pytest.mark.parametrize("arguments", [
    ("cancel",), ("retry",), ("cancel", "--where", "sed=1"), ("cancel", "--where", "x"), ("cancel", "ffff"),
    ("cancel", "--experiment", "nope"), ("cancel", "abcd", "--all"), ("cancel", "--where", "state=runing"),
    ("cancel", "--where", "seed=x"), ("cancel", "--where", "loss=focal"), ("cancel", "--where", "failure=oom"),
])  # fmt: skip
def test_a_choice_that_chooses_nothing_is_refused(home: Path, arguments: tuple[str, ...]) -> None:
    answer("sweep", write(home), "--register-only")
    result = prove(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "hint: " in result.stderr
    assert set(states(home).values()) == {"planned"}


# processes of their own


@contextmanager
def sweeping(home: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """`prove sweep` with trivial workers, in a process of its own."""
    code = (
        "from functools import partial; import prove.cli.launching as l; from prove.launch.start import Request; "
        "l.Request = partial(Request, worker='trivial_worker:main'); from prove.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "sweep", *map(str, arguments)], cwd=home, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(holds: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.05)


def iterating(home: Path, runs: int) -> bool:
    files = list((home / "results" / "runs").glob("*/events.jsonl"))
    return sum('"kind":"train"' in file.read_text() for file in files) >= runs


def workers_of(home: Path) -> list[int]:
    """Processes that work in this folder's runs."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and str(home).encode() in (folder / "environ").read_bytes() + (
                os.readlink(folder / "cwd").encode()
            ):
                found.append(int(folder.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def test_ctrl_c_stops_and_the_same_command_goes_on(home: Path) -> None:
    plans(home, {"default": {"steps": 200, "seconds": 0.05}})
    file = write(home)
    with sweeping(home, file, "--jobs", 2) as process:
        until(lambda: iterating(home, 2))
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "goes on where this one stopped" in said
    assert sorted(states(home).values()) == ["interrupted", "interrupted", "planned", "planned"]
    plans(home, {"default": {"steps": 4}})
    assert answer("sweep", file)["counts"]["finished"] == 4
    assert set(finishes(home).values()) == {1}


def test_two_sweeps_at_once_share_the_work(home: Path) -> None:
    plans(home, {"default": {"steps": 10, "seconds": 0.02}})
    file = write(home, EXPERIMENT.replace("0..1", "0..5"))
    other = write(home, EXPERIMENT.replace("0..1", "3..8"), "other.yaml")
    with sweeping(home, file, "--jobs", 1) as one, sweeping(home, other, "--jobs", 1) as two:
        said = [process.communicate(timeout=120)[1] for process in (one, two)]
    assert (one.returncode, two.returncode) == (0, 0), said
    assert list(finishes(home).values()) == [1] * 18
    assert set(states(home).values()) == {"finished"}


def test_kill_9_of_the_sweep_leaves_no_process_and_the_next_one_goes_on(home: Path) -> None:
    plans(home, {"default": {"steps": 2000, "seconds": 0.05}})
    file = write(home)
    with sweeping(home, file, "--jobs", 2) as process:
        until(lambda: iterating(home, 2))
        process.kill()
        process.communicate()
    until(lambda: not workers_of(home))
    plans(home, {"default": {"steps": 4}})
    found = answer("status")["counts"]
    assert (found["interrupted"], found["planned"]) == (2, 2)
    assert answer("sweep", file)["counts"]["finished"] == 4
    assert set(finishes(home).values()) == {1}


def test_a_detached_sweep_goes_on_without_the_command(home: Path) -> None:
    plans(home, {"default": {"steps": 4, "seconds": 0.2}})
    done = answer("sweep", write(home), "--jobs", 2, "--detach")
    assert done["pid"]
    busy = answer("sweep", home / "mine.yaml")
    assert (busy["launched"], busy["elsewhere"]) == (0, 0)
    watched = answer("watch", "mine")
    assert watched["counts"]["finished"] == 4
    until(lambda: not workers_of(home))
    folder = LaunchDir.of(home / "results", done["launch"])
    assert "finished" in folder.log.read_text()
    assert set(finishes(home).values()) == {1}


def test_cancel_stops_what_runs_and_what_waits(home: Path) -> None:
    plans(home, {"default": {"steps": 2000, "seconds": 0.05}})
    with sweeping(home, write(home), "--jobs", 2) as process:
        until(lambda: iterating(home, 2))
        answer("cancel", "--experiment", "mine")
        said = process.communicate(timeout=60)[1]
    assert set(states(home).values()) == {"cancelled"}, said
    assert answer("status")["counts"]["cancelled"] == 4
    assert not workers_of(home)


# what can't run here is refused before anything is claimed


@pytest.mark.parametrize("more", [(), ("--detach",)])
@pytest.mark.parametrize(
    ("device", "flags", "says"),
    [("cuda", (), "--device cuda, but no CUDA device"), ("auto", ("--per-gpu", 2), "--per-gpu 2, but no GPU is")],
)
def test_what_this_machine_has_not_is_refused_before_anything_is_claimed(
    home: Path,
    device: str,
    flags: tuple[object, ...],
    says: str,
    more: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    file = write(home, EXPERIMENT.replace("device: cpu", f"device: {device}"))
    result = prove("sweep", file, *flags, *more)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert set(states(home).values()) == {"planned"}
    assert not (home / "results" / "launches").exists()


def test_the_device_that_was_asked_for_is_kept(home: Path) -> None:
    for device in ("cpu", "auto"):
        file = write(home, EXPERIMENT.replace("device: cpu", f"device: {device}"), f"{device}.yaml")
        answer("sweep", file, "--limit", 1)
    folders = (home / "results" / "runs").iterdir()
    assert sorted(json.loads((folder / "launch.json").read_text())["device"] for folder in folders) == ["auto", "cpu"]
