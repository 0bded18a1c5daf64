"""Every path inside a run folder, and the only code that writes there."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from prove.errors import ProveError


class RunDir:
    """The folder of one run, ``results/runs/<key>/``.

    ::

        job.json        the Job: its identity
        launch.json     where it runs: data root, device, workers; not part of the identity
        model.py        the flattened config file, when the model was given as a file
        terms/          <name>.yaml and <name>.py of each loss term of the user's own
        config.py       the complete MMSegmentation config that was trained
        evidence.json   what the wiring proof saw
        events.jsonl    what the worker reports, append only
        log.txt         the worker's log: plain lines of what happens
        env.json        git state, package versions, device, data fingerprint
        checkpoints/    iter_<n>.pth, the newest two, and best.pth
        confusion.npz   per-image counts of the last iteration; confusion_best.npz of the best
        predictions.npz what the last iteration predicts on a few images; predictions_best.npz of the best
        evaluations/    <name>/result.json, counts.npz and log.txt of each dataset that it was evaluated on
        worker.lock     held by the living worker
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @classmethod
    def of(cls, results: Path, key: str) -> RunDir:
        """The folder of a run, below a results folder."""
        return cls(Path(results) / "runs" / key)

    @property
    def key(self) -> str:
        """Key of the run: the folder's name."""
        return self.path.name

    @property
    def job(self) -> Path:
        """The Job: its identity."""
        return self.path / "job.json"

    @property
    def launch(self) -> Path:
        """Where it runs: data root, device, workers."""
        return self.path / "launch.json"

    @property
    def model_config(self) -> Path:
        """The flattened config file, when the model was given as a file."""
        return self.path / "model.py"

    @property
    def terms(self) -> Path:
        """Folder of the loss terms of the user's own; absent where there are none."""
        return self.path / "terms"

    def term_files(self, name: str) -> tuple[Path, Path]:
        """The YAML file and the Python file of one of these terms."""
        return self.terms / f"{name}.yaml", self.terms / f"{name}.py"

    def saved_terms(self) -> list[Path]:
        """The YAML files of these terms."""
        return sorted(self.terms.glob("*.yaml"))

    @property
    def config(self) -> Path:
        """The complete MMSegmentation config that was trained."""
        return self.path / "config.py"

    @property
    def evidence(self) -> Path:
        """What the wiring proof saw."""
        return self.path / "evidence.json"

    @property
    def events(self) -> Path:
        """What the worker reports, append only."""
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        """The worker's log."""
        return self.path / "log.txt"

    @property
    def env(self) -> Path:
        """Git state, package versions, device, data fingerprint."""
        return self.path / "env.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    def checkpoint(self, iteration: int) -> Path:
        """The checkpoint of one iteration."""
        return self.checkpoints / f"iter_{iteration}.pth"

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint that validated best."""
        return self.checkpoints / "best.pth"

    def saved_iterations(self) -> list[int]:
        """Iterations of the checkpoints on disk, newest first."""
        stems = (path.stem.removeprefix("iter_") for path in self.checkpoints.glob("iter_*.pth"))
        return sorted((int(stem) for stem in stems if stem.isdigit()), reverse=True)

    def kept_checkpoint(self, which: str) -> Path:
        """The ``best`` or the ``last`` checkpoint.

        Raises:
            ProveError: it is gone.
        """
        newest = self.saved_iterations()[:1]
        path = self.best_checkpoint if which == "best" else self.checkpoint(newest[0]) if newest else None
        if path is None or not path.exists():
            raise ProveError(
                f"The {which} checkpoint of run {self.key} is not in {self.checkpoints}.",
                hint="Copy it back, or train the run again with --restart.",
            )
        return path

    @property
    def confusion(self) -> Path:
        """Per-image counts of the last iteration."""
        return self.path / "confusion.npz"

    @property
    def best_confusion(self) -> Path:
        """Per-image counts of the best checkpoint."""
        return self.path / "confusion_best.npz"

    @property
    def predictions(self) -> Path:
        """What the last iteration predicts on a few validation images."""
        return self.path / "predictions.npz"

    @property
    def best_predictions(self) -> Path:
        """What the best checkpoint predicts on them."""
        return self.path / "predictions_best.npz"

    @property
    def evaluations(self) -> Path:
        """Folder of the evaluations on other datasets."""
        return self.path / "evaluations"

    def evaluation(self, name: str) -> EvaluationDir:
        """One of these, by the name of its folder."""
        return EvaluationDir(self.evaluations / name)

    def saved_evaluations(self) -> list[EvaluationDir]:
        """Those that are complete, by name."""
        return [EvaluationDir(path.parent) for path in sorted(self.evaluations.glob("*/result.json"))]

    @property
    def worker_lock(self) -> Path:
        """Held by the living worker, and by who moves what is in the folder."""
        return self.path / "worker.lock"

    def create(self) -> None:
        """Make the folder.

        Raises:
            ProveError: it can't be written.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise ProveError(
                f"The results folder can't be written: {self.path} ({error.strerror}).",
                hint="Choose another with --results DIR or $PROVE_RESULTS.",
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder as its one worker; the system lets go when the process dies, however it dies.

        Raises:
            ProveError: another worker holds it.
        """
        with hold(self.worker_lock) as held:
            if held is None:
                raise ProveError(
                    f"Run {self.key} is being trained by another process.",
                    hint=f"Follow it with `prove logs {self.key} -f`.",
                )
            yield

    def is_held(self) -> bool:
        """Whether a living worker on this machine holds the folder."""
        return is_held(self.worker_lock)


class EvaluationDir:
    """The folder of one evaluation, ``evaluations/<name>/`` in a run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def result(self) -> Path:
        """The metrics and what they rest on; written last."""
        return self.path / "result.json"

    @property
    def counts(self) -> Path:
        """Per-image counts."""
        return self.path / "counts.npz"

    @property
    def log(self) -> Path:
        """What was printed meanwhile."""
        return self.path / "log.txt"


@contextmanager
def hold(path: Path) -> Iterator[int | None]:
    """Hold a lock file until the block ends or the process dies, however it dies.

    Yields:
        the descriptor that holds it; None when another process does.
    """
    file, had = _opened(path)
    with file:
        if had:
            _held.add(file)
        try:
            yield file.fileno() if had else None
        finally:
            _held.discard(file)


def is_held(path: Path) -> bool:
    """Whether a living process on this machine holds a lock file."""
    try:
        with open(path, encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look don't see each other
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


_held: set[IO[str]] = set()


def _let_go_in_child() -> None:
    for file in _held:
        file.close()
    _held.clear()


# A lock lives until the last process that inherited it is gone: without this, the data-loading processes of a killed
# worker would keep its folder held.
os.register_at_fork(after_in_child=_let_go_in_child)


def _opened(path: Path) -> tuple[IO[str], bool]:
    """A lock file, and whether the lock could be had."""
    while True:
        file = open(path, "a", encoding="ascii")  # noqa: SIM115 - closed by the caller, or here
        try:
            had = _locked(file)
            if _is_at(file, path):
                return file, had
        except BaseException:
            file.close()
            raise
        file.close()


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file is still what others find there: its folder may have been moved or deleted meanwhile."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _locked(file: IO[str]) -> bool:
    """Whether the lock could be had; tries for a second, since `is_held` takes it for an instant to look."""
    for _ in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception, or one that it was raised from, says that there is no room left."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], *, lasting: bool = True) -> None:
    """Call ``write`` on a temporary file beside ``path`` and rename it there: all or nothing.

    Args:
        lasting: wait until a power cut can't take it back.
    """
    # Not mkstemp: its files are closed to the colleagues who share the folder, whatever the umask says.
    name = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(name, "xb") as file:
            write(file)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise
    if not lasting:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sha256(path: Path) -> str:
    """Of a file's bytes.

    Raises:
        ProveError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ProveError(f"Can't read {path}: {error.strerror}.") from error


def write_json(path: Path, data: Any, *, lasting: bool = True) -> None:
    """Write a JSON document by `write_atomically`; NaN is refused, since not every reader takes it."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()), lasting=lasting)


def read_json(path: Path) -> Any:
    """Read a JSON document.

    Raises:
        ProveError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProveError(f"There is no {path}.") from None
    except (OSError, ValueError) as error:
        raise ProveError(f"{path} can't be read: {error}") from error
