import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import prove
from prove.provenance import (
    DECIDING,
    UNDECIDING,
    code_in_use,
    code_sha256,
    collect,
    comparability,
    git_state,
    training_sha256,
)

IDENTITY = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


def git(folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | IDENTITY
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def test_what_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = collect({"device": "NVIDIA X", "torch_threads": 1})
    assert json.loads(json.dumps(found)) == found
    assert found["device"] == "NVIDIA X"
    assert found["packages"]["torch"] == version("torch")
    assert found["packages"]["onedl-mmsegmentation"] == version("onedl-mmsegmentation")
    assert found["prove"] == version("prove-seg")
    assert found["threads"]["OMP_NUM_THREADS"] == "3"
    assert found["python"] == sys.version.split()[0]
    assert found["code_sha256"] == code_sha256(Path(prove.__file__).parent)
    assert found["training_sha256"] == training_sha256(Path(prove.__file__).parent)


def test_torch_is_not_imported() -> None:
    code = (
        "import sys; from prove.provenance import collect; collect(); assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_hash_follows_code_and_names_alone(tmp_path: Path) -> None:
    def write(root: str, files: dict[str, str]) -> str:
        for name, text in files.items():
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return code_sha256(tmp_path / root)

    first = write("one", {"a.py": "x = 1\n", "b/c.py": "y = 2\n"})
    assert write("two", {"b/c.py": "y = 2\n", "a.py": "x = 1\n", "notes.txt": "z", "b/c.pyc": "z"}) == first
    assert write("three", {"a.py": "x = 2\n", "b/c.py": "y = 2\n"}) != first
    assert write("four", {"a.py": "x = 1\n", "b/d.py": "y = 2\n"}) != first
    assert write("five", {"a.py": "x = 1\ny = 2\n", "b/c.py": ""}) != first


def test_a_process_whose_code_changes_under_it_says_neither(tmp_path: Path) -> None:
    """It still runs the code that it has loaded, not what the files hold by now."""
    (tmp_path / "losses").mkdir()
    source = tmp_path / "losses" / "focal.py"
    source.write_text("gamma = 2\n")
    before = code_in_use(tmp_path)
    assert before == {"code_sha256": code_sha256(tmp_path), "training_sha256": training_sha256(tmp_path)}
    source.write_text("gamma = 3\n")
    after = code_in_use(tmp_path)
    assert all(after[name] not in (before[name], now) for name, now in (
        ("code_sha256", code_sha256(tmp_path)), ("training_sha256", training_sha256(tmp_path)),
    ))  # fmt: skip
    source.write_text("gamma = 2\n")
    assert code_in_use(tmp_path) == before


def changes(package: Path, name: str) -> bool:
    """Whether a change of a file of PROVE's source changes the hash of what decides a result."""
    before = training_sha256(package)
    path = package / name
    kept = path.read_bytes() if path.exists() else None
    path.write_bytes((kept or b"") + b"\n# changed")
    after = training_sha256(package)
    if kept is None:
        path.unlink()
    else:
        path.write_bytes(kept)
    assert training_sha256(package) == before
    return after != before


def test_only_what_decides_a_result_changes_the_hash_of_training(tmp_path: Path) -> None:
    package = tmp_path / "prove"
    shutil.copytree(Path(prove.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    decides = ("training/runner.py", "losses/objective.py", "metrics/reduce.py", "build/model.py", "spec/job.py",
               "data/labels.py", "catalog/models.py", "catalog/label_spaces.csv", "losses/brand_new.py")  # fmt: skip
    for name in decides:
        assert changes(package, name), name
    for name in ("cli/run.py", "store/store.py", "launch/pool.py", "report/study.py", "errors.py", "losses/notes.txt"):
        assert not changes(package, name), name
    for name in UNDECIDING:
        assert (package / name).exists()  # a file that was renamed would decide again
        assert not changes(package, name), name
    assert all((package / folder).is_dir() for folder in DECIDING)


def test_what_makes_runs_comparable_from_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = {
        "device": "cpu",
        "placement": {"cuda": False},
        "weights_sha256": "3e",
        "metric_version": 4,
        "deterministic": False,
        "data_fingerprint": {"train": "7a", "val": "0b"},
    }
    recorded = collect(worker)
    facts = comparability(recorded, batch_size=8, amp=True, resumed=False)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["code"] == recorded["training_sha256"]
    assert facts["packages"] == recorded["packages"]
    said = ("data_train", "data_val", "weights_sha256", "metric_version", "device_kind", "batch_size_per_device")
    assert [facts[name] for name in said] == ["7a", "0b", "3e", 4, "cpu", 8]
    assert (facts["amp"], facts["resumed"], facts["deterministic"]) == (False, False, False)
    on_gpu = comparability({**recorded, "placement": {"cuda": True}}, batch_size=8, amp=True, resumed=True)
    assert (on_gpu["device_kind"], on_gpu["amp"], on_gpu["resumed"]) == ("cuda", True, True)
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    monkeypatch.setattr(sys, "argv", ["another command"])
    assert comparability(collect(worker), batch_size=8, amp=True, resumed=False) == facts


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_state_of_a_repository(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None  # nothing committed yet
    (tmp_path / "a.py").write_text("x = 1\n")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "untracked.txt").touch()
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "a.py").write_text("x = 2\n")
    assert git_state(tmp_path) == {"commit": commit, "dirty": True}


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert collect()["git"] is None
