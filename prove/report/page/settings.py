"""How the runs were configured and what they ran on: what all have in common, and where they differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prove.errors import ProveError
from prove.report.study import Study, Trained
from prove.rundir import read_json

VALUES_SHOWN = 6
"""Values of one setting that are listed; of the others, how many there are."""

RUNS_READ = 24
"""Runs whose ``env.json`` is read, at most one of each environment."""

_PAGE_SAFE = (
    "platform",
    "cpu",
    "cpu_count",
    "torch_cuda",
    "cudnn",
    "gpu_memory_mib",
    "prove_git",
    "code_sha256",
    "prove",
)
"""What is taken from ``env.json``: not the host, the command line or folders, which name people and machines."""

_WIDE = 72


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        values: (text, number of runs) the most frequent first.
        more: further values that are not listed.
    """

    name: str
    values: tuple[tuple[str, int], ...]
    more: int = 0


@dataclass(frozen=True)
class Settings:
    """Settings of one kind, such as the packages; `of` says what is counted."""

    title: str
    of: str
    varying: tuple[Setting, ...]
    common: tuple[Setting, ...]


def settings(study: Study) -> tuple[Settings, ...]:
    """What the runs were asked to do, what they ran on, and the packages that they used; empty parts are left out."""
    asked, ran_on, packages = Tally(), Tally(), Tally()
    for facts, count in _distinct(study.runs):
        for name, value in _flat(facts):
            name = name.removeprefix("definition.")
            kind, _, rest = name.partition(".")
            if kind == "versions":
                packages.add(rest, value, count)
            elif kind != "libraries":  # their full versions are among the packages
                (ran_on if kind in _ENVIRONMENT else asked).add(name, value, count)
    machines = Tally()
    read = _environments(study)
    for found in read:
        for name, value in _flat({name: found[name] for name in _PAGE_SAFE if name in found}):
            machines.add(name, value, 1)
        for name, version in _flat(found.get("packages") or {}):
            if not packages.has(name):
                packages.add(name, version, 1)
    parts = (
        asked.settings("What the runs were asked to do", "runs"),
        ran_on.settings("What they ran on", "runs"),
        packages.settings("Packages", "runs"),
        machines.settings("Code and machines", f"{len(read)} {'run' if len(read) == 1 else 'runs'} looked at"),
    )
    return tuple(part for part in parts if part.common or part.varying)


_ENVIRONMENT = frozenset(
    {"data_train", "data_val", "metric_version", "weights_sha256", "batch_size_per_device", "code", "code_sha256",
     "device", "device_kind", "amp", "deterministic", "resumed", "iteration", "prove", "python", "dirty", "packages"}
)  # fmt: skip


class Tally:
    """Counts the values of settings."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}

    def add(self, name: str, value: str, count: int) -> None:
        """``count`` runs have this value."""
        self._counts.setdefault(name, Counter())[value] += count

    def has(self, name: str) -> bool:
        """Whether a setting was counted."""
        return name in self._counts

    def settings(self, title: str, of: str) -> Settings:
        """What was counted."""
        listed = [
            Setting(name, tuple(counts.most_common(VALUES_SHOWN)), max(0, len(counts) - VALUES_SHOWN))
            for name, counts in self._counts.items()
        ]
        varying = tuple(setting for setting in listed if len(setting.values) > 1)
        return Settings(title, of, varying, tuple(setting for setting in listed if len(setting.values) == 1))


def _distinct(runs: Iterable[Trained]) -> Iterable[tuple[Mapping[str, Any], int]]:
    """Facts that differ, with how many runs have them: most runs share theirs, and taking them apart is slow."""
    found: dict[tuple[Any, ...], tuple[Mapping[str, Any], int]] = {}
    for run in runs:
        key = tuple(str(value) for value in run.facts.values()), tuple(run.facts)
        facts, count = found.get(key, (run.facts, 0))
        found[key] = facts, count + 1
    return found.values()


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Names with dots, and short texts; what is JSON is taken apart."""
    for name, given in facts.items():
        value = _parsed(given)
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value not in ("", None):
            yield f"{prefix}{name}", _short(value)


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("{"):
        for text in (value, value + "}"):  # the definition of a dataset is the head of a job's text: never closed
            try:
                return json.loads(text)
            except ValueError:
                continue
    return value


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if len(text) in (40, 64) and all(letter in "0123456789abcdef" for letter in text):
        return text[:12]  # a hash
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 3]}..."


def _environments(study: Study) -> list[Mapping[str, Any]]:
    """``env.json`` of one run of each environment that the facts tell apart."""
    chosen: dict[tuple[str, ...], Trained] = {}
    for run in study.runs:
        if run.iteration:
            chosen.setdefault(tuple(str(run.facts.get(name)) for name in ("code", "versions", "device")), run)
    found = []
    for run in list(chosen.values())[:RUNS_READ]:
        try:
            read = read_json(study.folder(run).env)
        except ProveError:  # the folder is gone: what the database knows of it is among the facts
            continue
        if isinstance(read, Mapping):
            found.append(read)
    return found
