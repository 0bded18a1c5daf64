"""``python -m prove.training.evaluate RUN_DIR REQUEST``: a finished run on the validation set of a dataset.

REQUEST is a JSON document, the fields of `Request`. What happens is told on stdout, a JSON document per line:
``{"done": k, "of": n}``, and at the end ``{"error": ..., "hint": ...}`` where it failed. The result is written to the
run folder, the counts first and ``result.json`` last.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from prove.errors import ProveError
from prove.rundir import RunDir, read_json, sha256, write_atomically, write_json

SAY_SECONDS = 2.0
"""How often it is told how far it is."""

Say = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Request:
    """What is to be evaluated.

    Attributes:
        name: of the evaluation's folder.
        source: the dataset in the label space of the run, as `prove.data.source.resolve_dataset` takes it.
        data_root: its folder, None for where it lies otherwise.
        checkpoint: ``best`` or ``last``.
        val_images: evaluate on this many images, evenly spaced; None takes all.
        cuda: whether on a GPU.
        workers: processes that load data.
        threads: threads of torch.
        about: goes into the result as it is.
    """

    name: str
    source: str
    data_root: str | None
    checkpoint: str
    val_images: int | None
    cuda: bool
    workers: int
    threads: int
    about: Mapping[str, Any]


def main(arguments: list[str]) -> int:
    """Evaluate.

    Returns:
        0 done, 1 it failed, 2 the request was wrong.
    """
    if len(arguments) != 2:
        print("usage: python -m prove.training.evaluate RUN_DIR REQUEST", file=sys.stderr)
        return 2
    run = RunDir(Path(arguments[0]).resolve())
    request = Request(**json.loads(arguments[1]))
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # no checkpoint executes pickled code
    os.environ["OMP_NUM_THREADS"] = str(request.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if not request.cuda:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    folder = run.evaluation(request.name)
    folder.path.mkdir(parents=True, exist_ok=True)
    told = _log_to(folder.log)

    def say(line: Mapping[str, Any]) -> None:
        told.write(json.dumps(line) + "\n")
        told.flush()

    try:
        evaluate(run, request, say)
    except ProveError as error:
        say({"error": error.message, "hint": error.hint})
        return 2
    except Exception as error:  # the model may fail in any way on images of another kind
        traceback.print_exc()
        say({"error": f"{type(error).__name__}: {error}", "hint": f"The whole story is in {folder.log}."})
        return 1
    finally:
        shutil.rmtree(folder.path / "scratch", ignore_errors=True)
    return 0


def evaluate(run: RunDir, request: Request, say: Say) -> None:
    """Run the checkpoint over the dataset as validation during training does, and write what comes out.

    Raises:
        ProveError: the checkpoint can't be read or belongs to another job, the dataset is unsound or speaks of other
            classes than the model.
    """
    from prove.training import registered  # noqa: F401 - before anything else brings up a part of the stack  # isort: skip

    import numpy as np
    import torch

    from prove.data.manifest import fingerprint
    from prove.metrics import METRIC_VERSION
    from prove.provenance import collect
    from prove.spec import Job
    from prove.training.runner import load_checkpoint
    from prove.training.seeding import seed_torch
    from prove.training.session import result_of
    from prove.training.worker import device_name

    job = Job.from_dict(read_json(run.job))
    runner = _runner(run, request)
    dataset = runner.val_loop.dataloader.dataset
    file = run.kept_checkpoint(request.checkpoint)
    state = load_checkpoint(file)
    if state.get("prove", {}).get("job") != job.key:
        raise ProveError(f"The {request.checkpoint} checkpoint of {run.key} belongs to another job.")
    runner.model.load_state_dict(state["state_dict"], strict=True)
    _report(runner, len(dataset), say)
    seed_torch("validation", runner.seed_value, int(state["iteration"]))
    runner.val_loop.run()
    arrays = runner.val_evaluator.metrics[0].arrays
    folder = run.evaluation(request.name)
    counts = io.BytesIO()
    np.savez_compressed(counts, **arrays)
    write_atomically(folder.counts, lambda file: file.write(counts.getvalue()))
    environment = collect({"device": device_name(), "torch_threads": torch.get_num_threads()})
    write_json(
        folder.result,
        {
            "run": job.key,
            "evaluated": asdict(request),
            "checkpoint": {
                "which": request.checkpoint,
                "iteration": int(state["iteration"]),
                "sha256": sha256(file),
            },
            "data": {"root": str(dataset.root), "fingerprint": fingerprint(dataset.manifest)},
            "metric_version": METRIC_VERSION,
            "counts_sha256": hashlib.sha256(counts.getvalue()).hexdigest(),
            "result": {"iteration": int(state["iteration"]), **result_of(arrays)},
            "environment": environment,
        },
    )


def _runner(run: RunDir, request: Request) -> Any:
    """The runner of the config that was trained, with nothing in it but the model and the dataset to evaluate on."""
    import torch

    from prove.build.configs import load
    from prove.losses.user_terms import load_terms
    from prove.training.runner import ProveRunner
    from prove.training.stack import quiet_known_warnings, see_devices, set_threads

    load_terms(*run.saved_terms())
    quiet_known_warnings()
    set_threads(request.threads)
    see_devices()
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if request.cuda and not torch.cuda.is_available():
        raise ProveError(
            "torch can't use CUDA here.", hint="`prove doctor` says why; --device cpu evaluates on the CPU."
        )
    config = load(run.config)
    for name in ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler"):
        config[name] = None
    for name in ("test_dataloader", "test_cfg", "test_evaluator"):
        config[name] = None
    config.custom_hooks = []
    config.default_hooks = {**config.default_hooks, "param_scheduler": None}
    config.val_dataloader.num_workers = request.workers
    config.val_dataloader.persistent_workers = request.workers > 0
    config.val_dataloader.dataset = {
        **config.val_dataloader.dataset,
        "source": request.source,
        "root": request.data_root,
        "limit": request.val_images,
    }
    config.work_dir = str(run.evaluation(request.name).path / "scratch")
    config.log_level = "WARNING"
    config.experiment_name = run.evaluation(request.name).path.name
    runner = ProveRunner.from_cfg(config)
    dataset = runner.val_loop.dataloader.dataset
    classes = tuple(config.val_evaluator.classes)
    if dataset.manifest.label_space.classes != classes:
        raise ProveError(f"{request.source} has other classes than the model of {run.key}.")
    return runner


def _report(runner: Any, images: int, say: Say) -> None:
    """Have it told how far the evaluation is."""
    from mmengine.hooks import Hook

    class Told(Hook):  # type: ignore[misc]
        said = time.monotonic()

        def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            now = time.monotonic()
            if now - self.said >= SAY_SECONDS:
                self.said = now
                say({"done": batch_idx + 1, "of": images})

    runner.register_hook(Told())


def _log_to(path: Path) -> TextIO:
    """From here on, whatever anyone prints goes to this file. Returns what was stdout before."""
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout = sys.stderr = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115 - till the end
    return told


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
