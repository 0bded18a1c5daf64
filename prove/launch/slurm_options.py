"""What a SLURM launch asks for: checked options, and the user's profiles of them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from prove.errors import ProveError, unknown

PackMode = Literal["sequential", "parallel"]

DEFAULT_PROFILE = "default"
PROFILE = "profile"

_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d\d?))?(?::(\d\d?))?")
_MEMORY = re.compile(r"\d+(\.\d+)?[KMGT]", re.IGNORECASE)
_GPUS = re.compile(r"([\w.-]+:)?\d+")

_OURS = {
    "array": "parallel",
    "job-name": "",
    "output": "",
    "error": "",
    "open-mode": "",
    "signal": "signal_seconds",
    "requeue": "requeue",
    "no-requeue": "requeue",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "time": "time",
    "mem": "memory",
    "constraint": "constraint",
    "cpus-per-task": "cpus",
    "gpus-per-node": "gpus",
    "nodes": "",
    "ntasks": "",
    "ntasks-per-node": "",
    "wrap": "",
    "chdir": "",
    "parsable": "",
    "wait": "",
}
"""Directives that PROVE writes itself, and the option that sets them."""


@dataclass(frozen=True)
class SlurmOptions:
    """What is asked of SLURM for each task: an array element, with one run or a pack of them.

    Attributes:
        partition, account, qos, constraint: as `sbatch` takes them; None leaves the cluster's default.
        gpus: per task, a count or ``type:count``.
        cpus: cores per task.
        memory: per task, such as ``32G``.
        time: limit per task, in SLURM's form (``12:00:00``, ``2-00:00:00``, or minutes).
        parallel: most tasks of an array that run at once.
        pack: runs per task.
        pack_mode: whether a task's runs come one after the other or side by side.
        requeue: whether a task that is preempted, stopped at its time limit or whose node fails goes back to the queue.
        signal_seconds: how long before the time limit the runs are told to save and stop.
        directives: more options of `sbatch`, long names without dashes; True for one without a value.
        setup: shell lines before the worker starts, such as ``module load cuda``.
        python: the interpreter on the nodes.
        max_attempts: how often a run is started before it counts as failed.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: str | None = None
    cpus: int = 1
    memory: str | None = None
    time: str | None = None
    parallel: int = 256
    pack: int = 1
    pack_mode: PackMode = "sequential"
    requeue: bool = True
    signal_seconds: int = 120
    directives: Mapping[str, str | int | bool] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    python: str = sys.executable
    max_attempts: int = 3

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], where: str) -> SlurmOptions:
        """The options that a mapping names, the others at their defaults; a ``profile`` in it comes first.

        Args:
            mapping: as YAML or flags give it; a value None leaves the default.
            where: where it stands, such as ``in experiments/x.yaml``, for the errors.

        Raises:
            ProveError: an unknown key, or a value that SLURM would not take; names the nearest key.
        """
        name = mapping.get(PROFILE)
        chosen = {**profile(name if name is None else str(name)), **_given(mapping, where)}
        return _consistent(cls(**chosen), where)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` reads them."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**plain, "directives": dict(self.directives), "setup": list(self.setup)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SlurmOptions:
        """The options of a launch folder; keys of its own that the launch has beside them are passed over."""
        names = {each.name for each in fields(cls)}
        known = {name: value for name, value in data.items() if name in names}
        return cls(**{**known, "setup": tuple(known.get("setup", ()))})


OPTIONS = tuple(each.name for each in fields(SlurmOptions))


def profiles_file() -> Path:
    """Where a user keeps profiles: a mapping of names to options."""
    from platformdirs import user_config_path

    return user_config_path("prove") / "slurm.yaml"


def profile(name: str | None) -> dict[str, Any]:
    """The checked options of a profile; of ``default`` (empty where there is none) without a name.

    Raises:
        ProveError: there is no such profile, or the file is wrong.
    """
    file = profiles_file()
    profiles: Mapping[str, Any] = {}
    if file.exists():
        from prove.spec.yaml_file import read_yaml

        profiles = read_yaml(file, "file of SLURM profiles")[0].plain()
    if name is None and DEFAULT_PROFILE not in profiles:
        return {}
    chosen = DEFAULT_PROFILE if name is None else name
    if not profiles:
        raise ProveError(
            f"There is no SLURM profile {chosen!r}: there is no {file}.",
            hint="Write one: `NAME: {partition: gpu, account: lab}`.",
        )
    if chosen not in profiles:
        raise unknown("SLURM profile", chosen, profiles, where=f"in {file}")
    options = profiles[chosen] or {}
    where = f"in profile {chosen!r} of {file}"
    if not isinstance(options, Mapping):
        raise ProveError(f"A profile must be a mapping {where}.", hint="Write `NAME: {partition: gpu, account: lab}`.")
    if PROFILE in options:
        raise ProveError(f"A profile can't name another {where}.")
    return _given(options, where)


def time_seconds(limit: str) -> int | None:
    """Seconds of a time limit in one of SLURM's forms; None when it is none of them, or zero."""
    match = _TIME.fullmatch(limit.strip())
    if match is None:
        return None
    days, first, second, third = (None if each is None else int(each) for each in match.groups())
    assert first is not None
    if days is not None:  # days-hours[:minutes[:seconds]]
        seconds = ((days * 24 + first) * 60 + (second or 0)) * 60 + (third or 0)
    elif third is not None:  # hours:minutes:seconds
        seconds = (first * 60 + (second or 0)) * 60 + third
    else:  # minutes[:seconds]
        seconds = first * 60 + (second or 0)
    return seconds or None


def _given(mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
    given = {}
    for key, value in mapping.items():
        if key != PROFILE and key not in OPTIONS:
            raise unknown("SLURM option", str(key), (*OPTIONS, PROFILE), where=where)
        if key != PROFILE and value is not None:
            given[key] = _checked(key, value, where)
    return given


def _checked(key: str, value: Any, where: str) -> Any:
    match key:
        case "cpus" | "parallel" | "pack" | "max_attempts" | "signal_seconds":
            return _count(key, value, where)
        case "requeue":
            if value not in (True, False, "true", "false"):
                raise _wrong(key, value, where, "true or false")
            return value in (True, "true")
        case "gpus":
            text = str(value)
            if isinstance(value, bool) or not _GPUS.fullmatch(text):
                raise _wrong(key, value, where, "a count, or a type and a count such as a100:2")
            return text
        case "memory":
            if not isinstance(value, str) or not _MEMORY.fullmatch(value.removesuffix("B")):
                raise _wrong(key, value, where, "an amount with its unit, such as 32G or 500M")
            return value.removesuffix("B").upper()
        case "time":
            return _time(value, where)
        case "pack_mode":
            if value not in get_args(PackMode):
                raise unknown("pack_mode", str(value), get_args(PackMode), where=where)
            return value
        case "setup":
            return _lines(value, where)
        case "directives":
            return _directives(value, where)
    if not isinstance(value, str) or not value.strip() or "\n" in value:
        raise _wrong(key, value, where, "a text of one line")
    return value


def _count(key: str, value: Any, where: str) -> int:
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10**6:
        raise _wrong(key, value, where, "a whole number from 1")
    return value


def _time(value: Any, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        hours, rest = divmod(value, 3600)
        as_clock = f"{hours:02}:{rest // 60:02}:{rest % 60:02}"
        raise ProveError(
            f"time: {value} {where} may be minutes, or what YAML makes of {as_clock} without quotes.",
            hint=f'Write it in quotes: time: "{as_clock}" or time: "{value}".',
        )
    if not isinstance(value, str) or time_seconds(value) is None:
        raise _wrong("time", value, where, 'a time limit, such as "12:00:00", "2-00:00:00" or "90" for minutes')
    return value.strip()


def _lines(value: Any, where: str) -> tuple[str, ...]:
    lines = value.splitlines() if isinstance(value, str) else value
    if not isinstance(lines, list | tuple) or not all(isinstance(line, str) for line in lines):
        raise _wrong("setup", value, where, "a list of shell lines, such as [module load cuda]")
    return tuple(lines)


def _directives(value: Any, where: str) -> dict[str, str | int | bool]:
    if not isinstance(value, Mapping):
        raise _wrong("directives", value, where, "a mapping, such as {mail-type: END, exclusive: true}")
    checked: dict[str, str | int | bool] = {}
    for key, content in value.items():
        name = str(key).removeprefix("--").replace("_", "-")
        if name in _OURS:
            option = _OURS[name]
            hint = f"Use the option {option!r}." if option else "Leave it out."
            raise ProveError(f"directives: PROVE sets --{name} itself {where}.", hint=hint)
        if not re.fullmatch(r"[a-z][a-z-]*", name):
            raise ProveError(f"directives: {key!r} {where} is not a long option of sbatch.", hint="Such as mail-type.")
        if not isinstance(content, str | int) or content is False or "\n" in str(content):
            raise _wrong(f"directives: {name}", content, where, "a text, a number, or true for one without a value")
        checked[name] = content
    return checked


def _consistent(options: SlurmOptions, where: str) -> SlurmOptions:
    limit = None if options.time is None else time_seconds(options.time)
    if limit is not None and options.signal_seconds >= limit:
        raise ProveError(
            f"signal_seconds: {options.signal_seconds} {where} leaves nothing of time: {options.time} to train in.",
            hint="Give more time, or a smaller signal_seconds.",
        )
    if not os.path.isabs(options.python):
        return options
    return replace(options, python=os.path.normpath(options.python))


def _wrong(key: str, value: Any, where: str, expected: str) -> ProveError:
    return ProveError(f"{key}: {value!r} {where} is not {expected}.")
