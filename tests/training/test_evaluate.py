"""A finished run on other datasets: the numbers, and what is kept of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training_runs import Runs, events

from prove.cli.evaluate import about, find_target, finished_run, folder_name, kept
from prove.cli.execute import set_aside
from prove.data.compose import compose
from prove.data.definition import resolve_dataset
from prove.data.manifest import fingerprint
from prove.data.source import open_dataset
from prove.errors import ProveError
from prove.rundir import RunDir, read_json, write_json
from prove.spec import Job
from prove.store import Store
from tests.journal import make_run, started

SYNTH = "SynthStreet(height=64, width=96, train=4, val=4)"
CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
OF_CAMVID = ("sky", "building", "pole", "road", "sidewalk", "vegetation", "traffic sign", "fence", "car", "person",
             "rider")  # fmt: skip


@pytest.fixture(scope="module")
def trained(camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run on SynthStreet, finished, its best checkpoint not the last."""
    runs = Runs(camvid, tmp_path_factory.mktemp("trained"))
    run = runs.make(
        dataset=SYNTH, data_root=None, model="mask2former_tiny", loss="m2f + 0.3*lovasz", pretrained=False, max_iters=3,
        eval_interval=1, lr=0.01,
    )  # fmt: skip
    assert runs.train(run) == 0, run.log.read_text()
    return run


@pytest.fixture
def finished(trained: RunDir, tmp_path: Path) -> RunDir:
    """A copy of it in a results folder of its own."""
    results = tmp_path / "results"
    shutil.copytree(trained.path, results / "runs" / trained.key)
    return RunDir.of(results, trained.key)


def asked(
    run: RunDir, dataset: str, checkpoint: str = "last", root: str | None = None, **changes: Any
) -> dict[str, Any]:
    launch = read_json(run.launch)["placement"]
    target = find_target(run, launch, dataset, root)
    return {
        "name": folder_name(target.definition, checkpoint, None),
        "source": target.source,
        "data_root": root,
        "checkpoint": checkpoint,
        "val_images": None,
        "cuda": False,
        "workers": 0,
        "threads": 1,
        "about": about(run, launch, target),
        **changes,
    }


def evaluated(run: RunDir, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Evaluate in a fork of this process, which has imported the stack; its result."""
    from prove.training import registered  # noqa: F401 - imported once, for every fork
    from prove.training.evaluate import main

    child = os.fork()
    if not child:
        code = 70
        try:
            code = main([str(run.path), json.dumps(request)])
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    folder = run.evaluation(request["name"])
    return code, read_json(folder.result) if folder.result.exists() else {}


@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_on_its_own_dataset_it_is_what_training_recorded(finished: RunDir, checkpoint: str) -> None:
    code, document = evaluated(finished, asked(finished, SYNTH, checkpoint))
    assert code == 0
    (recorded,) = events(finished, "finished")
    assert document["result"] == recorded[checkpoint]
    assert document["checkpoint"]["iteration"] == recorded[checkpoint]["iteration"]
    kept = finished.confusion if checkpoint == "last" else finished.best_confusion
    name = document["evaluated"]["name"]
    with np.load(kept) as trained, np.load(finished.evaluation(name).counts) as again:
        assert sorted(trained.files) == sorted(again.files)
        for each in trained.files:
            assert (trained[each] == again[each]).all(), each
    assert document["data"]["fingerprint"] == read_json(finished.env)["data_fingerprint"]["val"]
    assert document["evaluated"]["about"]["maps"] == []
    assert document["evaluated"]["about"]["shared"] == {"images": 0}


def test_the_two_checkpoints_differ(trained: RunDir) -> None:
    (recorded,) = events(trained, "finished")
    assert recorded["best"] != recorded["last"]  # else the test above shows less than it says


def test_labels_of_another_space_are_counted_as_the_classes_of_the_run(finished: RunDir, camvid: Path) -> None:
    code, document = evaluated(finished, asked(finished, "CamVid", root=str(camvid)))
    assert code == 0
    pixels = dict.fromkeys(CLASSES, 0)
    for path in sorted((camvid / "valannot").iterdir()):
        values, counts = np.unique(np.asarray(Image.open(path)), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            if value < 11:
                pixels[OF_CAMVID[value]] += count
    result = document["result"]
    assert {name: each["support"] for name, each in result["classes"].items()} == pixels
    assert sorted(result["conditions"]) == ["day", "dusk"]
    present = [each["IoU"] for each in result["classes"].values() if each["support"]]
    assert result["metrics"]["mIoU"] == pytest.approx(np.mean(present))
    said = document["evaluated"]["about"]
    assert said["unreachable"] == [name for name in CLASSES if name not in OF_CAMVID]
    assert [each["map"] for each in said["maps"]] == ["camvid11 to cityscapes19"]
    assert {"dataset": "CamVid", "class": "car", "counted_as": "car", "also": "trucks, buses, trains"} in said["wide"]


def test_several_datasets_at_once(finished: RunDir, camvid: Path) -> None:
    text = f"multi_CamVid+{SYNTH}"
    code, document = evaluated(finished, asked(finished, text, root=f"CamVid={camvid}"))
    assert code == 0
    assert document["result"]["images"] == 7
    assert {name.split("/")[0] for name in document["result"]["conditions"]} == {"CamVid", "SynthStreet"}
    assert document["evaluated"]["about"]["unreachable"] == []


def test_a_checkpoint_that_does_not_belong_is_refused(finished: RunDir, trained: RunDir) -> None:
    request = asked(finished, SYNTH)
    finished.kept_checkpoint("last").write_bytes(b"PK nothing of use")
    code, document = evaluated(finished, request)
    assert (code, document) == (2, {})
    shutil.rmtree(finished.checkpoints)
    with pytest.raises(ProveError, match=r"last checkpoint of run .* is not in"):
        finished.kept_checkpoint("last")


def test_a_failure_leaves_the_log_and_no_result(finished: RunDir) -> None:
    text = finished.config.read_text()
    finished.config.write_text(text.replace("'ImageCountsMetric'", "'NoSuchMetric'"))
    request = asked(finished, SYNTH)
    code, document = evaluated(finished, request)
    assert (code, document) == (1, {})
    assert "NoSuchMetric" in finished.evaluation(request["name"]).log.read_text()
    assert finished.saved_evaluations() == []


def test_images_that_were_trained_on_are_said(finished: RunDir, tmp_path: Path) -> None:
    root = Path(read_json(finished.env)["data_root"])
    copy = tmp_path / "copy"
    (copy / "images").mkdir(parents=True)
    (copy / "labels").mkdir()
    sources = [*sorted((root / "train/images").rglob("*.png"))[:2], *sorted((root / "val/images").rglob("*.png"))[:1]]
    for index, path in enumerate(sources):
        shutil.copy(path, copy / "images" / f"{index}.png")
        shutil.copy(str(path).replace("/images/", "/labels/"), copy / "labels" / f"{index}.png")
    (tmp_path / "own.yaml").write_text(
        f"name: Own\nroot: copy\nclasses: [{', '.join(CLASSES)}]\n"
        "train: {images: images, labels: labels}\nval: {images: images, labels: labels}\n"
    )
    said = asked(finished, str(tmp_path / "own.yaml"))["about"]
    assert said["shared"] == {"images": 2, "first": "0"}
    assert said["maps"] == []
    launch = read_json(finished.launch)["placement"]
    target = find_target(finished, launch, str(tmp_path / "own.yaml"), None)
    assert about(finished, launch, target, val_images=1)["shared"] == {
        "images": 1,
        "first": "0",
    }  # of what is evaluated


def test_a_dataset_of_one_s_own_with_faults_names_the_command_that_lists_them(finished: RunDir, tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "val" / "0.png").write_text("no image")
    file = tmp_path / "my own.yaml"
    file.write_text(
        f"name: Own\nclasses: [{', '.join(CLASSES)}]\n"
        "train: {images: val, labels: labels}\nval: {images: val, labels: labels}\n"
    )
    with pytest.raises(ProveError) as caught:
        find_target(finished, read_json(finished.launch)["placement"], str(file), None)
    assert caught.value.hint == f"`prove data check '{file}'` lists them all."


@pytest.mark.parametrize("recipe", ["filter", "noise", "changed"])
def test_only_images_that_were_trained_on_are_said(finished: RunDir, tmp_path: Path, recipe: str) -> None:
    """Of a run that was narrowed to a condition, or given noise for images; and of one whose images have changed."""
    dataset = open_dataset(resolve_dataset(SYNTH))
    mine = dataset.train.samples[1].condition
    strategy, changed = {
        "filter": ("baseline", {"domain_filter": [mine]}),
        "noise": ("gen_random_noise", {"real_gen_ratio": 0.0}),
        "changed": ("baseline", {"domain_filter": [mine]}),
    }[recipe]
    job, env = read_json(finished.job), read_json(finished.env)
    job |= {"strategy": strategy, "train": {**job["train"], **changed}}
    write_json(finished.job, job)
    if recipe != "changed":
        trained = fingerprint(compose(dataset, Job.from_dict(job).recipe).train)
        write_json(finished.env, {**env, "data_fingerprint": {**env["data_fingerprint"], "train": trained}})
    root = dataset.root
    (tmp_path / "own.yaml").write_text(
        f"name: Own\nroot: {root}\nclasses: [{', '.join(CLASSES)}]\n"
        "train: {images: val/images, labels: val/labels}\nval: {images: train/images, labels: train/labels}\n"
    )
    shared = asked(finished, str(tmp_path / "own.yaml"))["about"]["shared"]
    expected = {
        "filter": {"images": 1, "first": dataset.train.samples[1].id},
        "noise": {"images": 0},
        "changed": {
            "images": None,
            "reason": f"The training images in {root} are no longer those that it was trained on.",
        },
    }
    assert shared == expected[recipe]


def test_what_can_t_be_evaluated_is_refused_by_name(finished: RunDir, camvid: Path, tmp_path: Path) -> None:
    launch = read_json(finished.launch)["placement"]
    for text, said in (
        ("Camvit", "Unknown dataset 'Camvit'"),
        ("CamVid@union42", "CamVid@union42 has the classes of union42, and run .* predicts others"),
        ("ADE20K", r"labels of ADE20K \(ade20k150\) can't be read as 'cityscapes19'"),
        ("ACDC", "Where is ACDC"),
    ):
        with pytest.raises(ProveError, match=said):
            find_target(finished, launch, text, None)
    with np.load(finished.confusion) as arrays:
        kept = dict(arrays)
    np.savez(finished.confusion, **{**kept, "classes": np.array([f"c{k}" for k in range(19)])})
    with pytest.raises(ProveError, match=r"predicts 19 classes of its own, and no map leads from those of CamVid"):
        find_target(finished, launch, "CamVid", str(camvid))


def test_a_restart_puts_evaluations_aside(finished: RunDir) -> None:
    evaluated(finished, asked(finished, SYNTH))
    assert len(finished.saved_evaluations()) == 1
    set_aside(finished)
    assert finished.saved_evaluations() == []


def prove(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "prove"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def test_the_command(finished: RunDir, camvid: Path, tmp_path: Path) -> None:
    data = tmp_path / "camvid"
    shutil.copytree(camvid, data)
    command = ["evaluate", finished.key[:6], "--dataset", "CamVid", "--data-root", str(data), "--device", "cpu"]
    first = prove(*command, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "Gap: " in first.stdout
    assert "from day to the mean of dusk" in first.stdout
    assert "CamVid's car also holds trucks, buses, trains." in first.stdout
    assert "not labelled there" in first.stdout
    assert "WARNING" not in first.stdout

    (folder,) = (each.path for each in finished.saved_evaluations())
    written = (folder / "result.json").stat().st_mtime_ns
    again = json.loads(prove(*command, "--json", cwd=tmp_path).stdout)
    assert again["evaluated_now"] is False
    assert (folder / "result.json").stat().st_mtime_ns == written
    assert sorted(path.name for path in folder.iterdir()) == ["counts.npz", "log.txt", "result.json"]
    shown = json.loads(prove("show", finished.key, "--json", cwd=tmp_path).stdout)
    assert shown["evaluations"][0]["result"] == again["result"]
    assert prove("db", "export", "runs.tgz", cwd=tmp_path).returncode == 0
    assert prove("db", "import", "runs.tgz", "--results", "other", cwd=tmp_path).returncode == 0
    travelled = RunDir.of(tmp_path / "other", finished.key).evaluation(folder.name)
    assert travelled.result.read_bytes() == (folder / "result.json").read_bytes()
    assert travelled.counts.read_bytes() == (folder / "counts.npz").read_bytes()

    launch = read_json(finished.launch)["placement"]
    name = finished.evaluation(folder.name)
    assert kept(name, finished, find_target(finished, launch, "CamVid", str(data)), "last") is not None
    assert kept(name, finished, find_target(finished, launch, "CamVid", str(data)), "best") is None
    label = next(iter(sorted((data / "valannot").iterdir())))
    Image.fromarray(np.zeros((72, 96), np.uint8)).save(label)
    assert kept(name, finished, find_target(finished, launch, "CamVid", str(data)), "last") is None

    wrong = prove("evaluate", finished.key, "--dataset", "MapillaryVista", "--json", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "MapillaryVistas" in json.loads(wrong.stdout)["hint"]


def test_only_a_finished_run_is_evaluated(tmp_path: Path) -> None:
    run = make_run(tmp_path, [started()])
    with Store.open(tmp_path) as store:
        store.upsert(Job.from_dict(read_json(run.job)), "ce")
    with pytest.raises(ProveError, match=f"Run {run.key} is .*, and only a finished run can be evaluated"):
        finished_run(tmp_path, run.key[:6])
    with pytest.raises(ProveError, match="nothing"):
        finished_run(tmp_path, "nothing")


def test_folders_have_names_that_any_file_system_takes() -> None:
    names = {
        folder_name(resolve_dataset(text), checkpoint, images)
        for text in ("CamVid", "CamVid@cityscapes19", SYNTH, f"multi_2*{SYNTH}+CamVid", "multi_CamVid+ACDC+BDD10k")
        for checkpoint in ("last", "best")
        for images in (None, 5)
    }
    assert len(names) == 20
    assert all(len(name) <= 100 and not set(name) & set('/\\:*?"<>| ') for name in names)
