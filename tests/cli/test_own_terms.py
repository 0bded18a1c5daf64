"""``--terms`` on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from prove.losses import Term
print("executed", file=sys.stderr)


class Doubt(Term):
    name = "doubt"

    def __init__(self, power: float = 2.0, ignore_index: int = 255) -> None:
        super().__init__(ignore_index)
        self.power = power

    def value(self, pixels):
        return (pixels.mass[:, None] * pixels.probs**self.power).mean()
"""

YAML = """
name: doubt
file: doubt.py
class: Doubt
summary: How sure it is.
params: {power: {default: 2.0}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "doubt.py").write_text(CODE)
    (tmp_path / "doubt.yaml").write_text(YAML)
    return tmp_path


def prove(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command, which says at its end whether it has imported torch."""
    code = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); "
    code += "from prove.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def test_show_and_list_without_executing_it(folder: Path) -> None:
    shown = prove("losses", "show", "doubt", "--terms", "doubt.yaml", "--json", cwd=folder)
    entry = json.loads(shown.stdout)
    assert (entry["summary"], entry["params"][0]["name"]) == ("How sure it is.", "power")
    assert entry["fused"] == "no: a term of your own is computed by its own code"
    listed = prove("losses", "list", "--terms", "doubt.yaml", cwd=folder)
    assert "doubt" in [line.split()[0] for line in listed.stdout.splitlines()]
    assert "sha256" not in listed.stdout
    assert shown.stderr + listed.stderr == "False\nFalse\n"  # neither the file nor torch


def test_a_run_of_a_faulty_term_is_refused_and_leaves_nothing(folder: Path, camvid: Path) -> None:
    (folder / "doubt.py").write_text(CODE.replace("power: float = 2.0", "power: float = 3.0"))
    done = prove(
        "run", "--terms", "doubt.yaml", "--loss", "ce + doubt", "--model", "fcn_tiny", "--dataset", "CamVid",
        "--data-root", str(camvid), "--crop-size", "64x64", "--max-iters", "1", "--device", "cpu", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 2
    assert "error: " + str(folder / "doubt.py") + ": Doubt gives power the default 3.0, but " in done.stderr
    assert "Traceback" not in done.stderr
    assert "executed" not in done.stderr
    assert not (folder / "results").exists()


def test_a_typo_in_the_yaml_is_refused(folder: Path) -> None:
    (folder / "doubt.yaml").write_text(YAML.replace("class:", "clas:"))
    done = prove("run", "--terms", "doubt.yaml", "--loss", "ce + doubt", cwd=folder)
    assert done.returncode == 2
    assert "doubt.yaml, line 4: Unknown key 'clas' in the term." in done.stderr
    assert "Did you mean 'class'?" in done.stderr
    assert "Traceback" not in done.stderr
