"""Writes what a worker reads into its run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from prove.launch.folder import Assignment, LaunchDir
from prove.rundir import RunDir, write_atomically, write_json

TermFiles = tuple[bytes, bytes]
"""The YAML file and the Python file of a loss term of the user's own."""


def prepare(
    run: RunDir,
    job: Mapping[str, Any],
    placement: Mapping[str, Any],
    *,
    model_config: bytes | None = None,
    terms: Mapping[str, TermFiles] | None = None,
    launcher: str = "local",
    device: str | None = None,
    proof_only: bool = False,
    lasting: bool = True,
) -> None:
    """Write what the worker of a run reads; the folder is there already.

    Args:
        job: the job's canonical form.
        placement: a `prove.build.job_config.Placement` as a mapping.
        model_config: the flattened config, for a model given as a file.
        terms: the files of the user's own loss terms, by name.
        launcher: what the run's record says of who started it.
        device: what was asked for, kept for another start: ``auto``, ``cpu`` or ``cuda``. None where the placement's
            device was meant.
        proof_only: prove the wiring and train nothing.
        lasting: wait until a power cut can't take it back.

    Raises:
        OSError: it can't be written.
    """
    write_json(run.job, job, lasting=lasting)
    where = {"launcher": launcher, "placement": dict(placement), "proof_only": proof_only}
    if device is not None:
        where["device"] = device
    write_json(run.launch, where, lasting=lasting)
    if model_config is not None:
        write_atomically(run.model_config, lambda file: file.write(model_config), lasting=lasting)
    for name, files in (terms or {}).items():
        run.terms.mkdir(exist_ok=True)
        for path, content in zip(run.term_files(name), files, strict=True):
            write_atomically(path, lambda file, content=content: file.write(content), lasting=lasting)  # type: ignore[misc]


def prepare_assigned(
    launch: LaunchDir, assignment: Assignment, placement: Mapping[str, Any], *, launcher: str
) -> RunDir:
    """Make the folder of an assigned run, as `prepare` does, with the files that its launch keeps.

    Nothing waits for the disk: what a power cut takes back, the next attempt writes again.

    Raises:
        ProveError: the folder can't be made.
        OSError: it can't be written, or a file of the launch is gone.
    """
    run = RunDir.of(launch.results, assignment.key)
    run.create()
    config = None if assignment.model_config is None else (launch.files / assignment.model_config).read_bytes()
    terms = {
        name: ((launch.files / f"{stem}.yaml").read_bytes(), (launch.files / f"{stem}.py").read_bytes())
        for name, stem in assignment.terms.items()
    }
    prepare(
        run,
        assignment.job,
        placement,
        model_config=config,
        terms=terms,
        launcher=launcher,
        device=assignment.device,
        lasting=False,
    )
    return run


def complain(run: RunDir, why: str) -> None:
    """Leave in a run's log why its worker could not start; where that can't be written, it is left out."""
    with suppress(OSError), open(run.log, "a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  could not start: {why}\n")
