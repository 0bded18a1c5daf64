"""A sweep beside a bash loop over MMSegmentation's own ``tools/train.py``: runs per hour on the same cores."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import statistics
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from measuring import MeasurementError, Spread
from sweep_timing import Cost, Limit, Section, cost, progress, prove, seconds

ASKED = 1.5
"""Times as many runs per hour as the loop."""

EXPERIMENT = Path(__file__).resolve().parents[1] / "experiments" / "quickstart.yaml"

SWEEP, LOOP, CAREFUL = "prove sweep", "bash loop over tools/train.py", "xargs -P2, one thread each"

TRAIN = '"$0" "$1" "$3" --work-dir "$2/$(basename "$3" .py)"'
"""``$0`` is the interpreter, ``$1`` the tool, ``$2`` where the runs' folders go, ``$3`` a config."""

SCRIPTS = {
    LOOP: f'for run in configs/*.py; do set -- "$1" "$2" "$run"; {TRAIN} || exit 1; done',
    CAREFUL: f"""printf '%s\\n' configs/*.py | xargs -P2 -n1 bash -c '{TRAIN}' "$0" "$1" "$2" """,
}
"""What stands in for a sweep."""

ENVIRONMENT = {LOOP: {}, CAREFUL: {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}}

DEFAULT_HOOKS = """
default_hooks['checkpoint'] = dict(type='CheckpointHook', by_epoch=False, interval={interval}, save_last=False)
default_hooks['logger'] = dict(type='LoggerHook', interval=10, log_metric_by_epoch=False)
default_hooks['timer'] = dict(type='IterTimerHook')
"""
"""What PROVE's recorder does in a sweep, by MMEngine's own hooks: it logs and saves checkpoints."""


def train(asked: Namespace, folder: Path) -> Section:
    """The same runs, by `prove sweep` and one after the other by ``tools/train.py``."""
    names = (SWEEP, LOOP, CAREFUL) if asked.train_careful else (SWEEP, LOOP)
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    done: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    progress("train: warming up")
    _sweep(folder / "warm", asked.train_losses, 1, 2)  # kernels are compiled, images rendered
    for number in range(asked.train_rounds):
        place = folder / f"round{number}"
        for name in names:
            progress(f"train, round {number + 1} of {asked.train_rounds}: {name}")
            if name == SWEEP:
                costs[name].append(_sweep(place, asked.train_losses, asked.train_seeds, asked.train_iters))
                runs = _reported(place / "results")
                configs = _configs(place, asked.train_iters)
            else:
                command = ["bash", "-c", SCRIPTS[name], sys.executable, str(_tool()), name.split()[0]]
                costs[name].append(cost(command, folder=place, settings=ENVIRONMENT[name]))
                runs = {path.stem: _logged(place / name.split()[0] / path.stem) for path in configs}
            done[name].append(runs)
            _require_same_work(done[SWEEP][-1], runs, name, asked.train_iters)
    count = len(done[SWEEP][0])
    rates = {name: [3600 * count / each.wall for each in taken] for name, taken in costs.items()}
    faster = {name: Spread.of([a / b for a, b in zip(rates[SWEEP], rates[name], strict=True)]) for name in names}
    rows = [
        (name, *(_median(values) for values in (
            [each.wall for each in costs[name]], [each.cpu for each in costs[name]], rates[name],
            [run["mIoU"] for run in done[name][0].values()])), seconds(faster[name]))
        for name in names
    ]  # fmt: skip
    images = sorted({run["images"] for run in done[SWEEP][0].values()})
    text = [
        f"{count} runs of `experiments/quickstart.yaml` ({len(asked.train_losses)} objectives, {asked.train_seeds} "
        f"seeds), {asked.train_iters} iterations and one validation on {images[0]} images each, on {os.cpu_count()} "
        "cores. The loop trains the very `config.py` that the sweep has left in its run folders, one after the other, "
        "each with all the threads that torch takes by itself. MMEngine's CheckpointHook, LoggerHook and IterTimerHook "
        "are added to them, since PROVE's recorder, which saves and logs in a sweep, is not part of them. "
        "The configs' `custom_imports` bring PROVE's objectives, dataset and mmcv's operators, so nothing is patched. "
        "The sweep also proves each objective's wiring; kernels are compiled beforehand, images rendered.",
        "Checked: all sides made as many iterations, validated as many images as often, and saved a checkpoint.",
    ]
    limit = Limit("runs per hour, sweep to bash loop", faster[LOOP].median, ASKED, at_least=True)
    head = ("", "wall, s", "CPU, s", "runs per hour", "median mIoU", "sweep / it")
    figures = {"runs": done, "rates": rates}
    return Section("A sweep, and a loop over tools/train.py", text, head, rows, [limit], figures)


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f}"


def _sweep(place: Path, losses: Sequence[str], seeds: int, iterations: int) -> Cost:
    place.mkdir()
    file = place / "quickstart.yaml"
    axes = {"aux_loss": list(losses), "seed": f"0..{seeds - 1}"}
    settings = {"max_iters": iterations, "eval_interval": iterations}
    file.write_text(yaml.safe_dump({"extends": str(EXPERIMENT), "matrix": axes, "train": settings}))
    return cost(prove("sweep", file, "--results", place / "results"))


def _reported(results: Path) -> dict[str, dict[str, Any]]:
    """What each run of a sweep did, by its own events."""
    found = {}
    for folder in sorted((results / "runs").iterdir()):
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        end = next(each for each in events if each["kind"] == "finished")
        found[folder.name] = {
            "iterations": end["iteration"],
            "images": [each["images"] for each in events if each["kind"] == "validated"][-1],
            "validations": sum(each["kind"] == "validated" for each in events),
            "mIoU": end["last"]["metrics"]["mIoU"],
            "checkpoints": len(list((folder / "checkpoints").glob("iter_*.pth"))),
        }
    return found


def _configs(place: Path, interval: int) -> list[Path]:
    configs = place / "configs"
    configs.mkdir()
    for folder in sorted((place / "results" / "runs").iterdir()):
        text = (folder / "config.py").read_text() + DEFAULT_HOOKS.format(interval=interval)
        (configs / f"{folder.name}.py").write_text(text)
    return sorted(configs.iterdir())


def _tool() -> Path:
    """MMSegmentation's own ``tools/train.py``, where it is installed."""
    found = importlib.util.find_spec("mmseg")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / ".mim" / "tools" / "train.py"


def _logged(work: Path) -> dict[str, Any]:
    """What a run of the loop did, by MMEngine's log."""
    text = next(work.glob("*/*.log")).read_text()
    saved = re.findall(r"Saving checkpoint at (\d+) iterations", text)
    validated = re.findall(r"Iter\(val\) \[\s*(\d+)/\s*\1\].*?mIoU: ([\d.]+)", text)
    if not saved or not validated:
        raise MeasurementError(f"tools/train.py has left no sign of training or validation: {text[-500:]}")
    return {
        "iterations": int(saved[-1]),
        "images": int(validated[-1][0]),
        "validations": len(validated),
        "mIoU": float(validated[-1][1]),
        "checkpoints": len(list(work.glob("iter_*.pth"))),
    }


def _require_same_work(
    runs: dict[str, dict[str, Any]], others: dict[str, dict[str, Any]], name: str, iterations: int
) -> None:
    for key, ours in runs.items():
        theirs = others[key]
        for what in ("iterations", "images", "validations", "checkpoints"):
            if ours[what] != theirs[what]:
                raise MeasurementError(f"{key}: {what} are {ours[what]} in the sweep, {theirs[what]} by {name}.")
        if ours["iterations"] != iterations:
            raise MeasurementError(f"{key} ended after {ours['iterations']} iterations, not {iterations}.")
