"""An experiment: a named matrix with what it needs to be trained, launched and reported; one YAML file."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prove.errors import ProveError, unknown
from prove.spec.dataset_text import DatasetText
from prove.spec.expr import Value
from prove.spec.hypothesis import read_hypotheses
from prove.spec.job import METRICS
from prove.spec.located import Node, Place, Section
from prove.spec.matrix import Block, Cell, Group, Matrix, identity
from prove.spec.matrix_file import MatrixReader, anchored
from prove.spec.parse import parse
from prove.spec.settings import SETTINGS, values_of_flag

KEYS = (
    "name", "description", "extends", "matrix", "zip", "include", "exclude", "overrides", "train", "terms", "launch",
    "report",
)  # fmt: skip

REPORT = ("baseline", "metric", "smallest_effect", "checkpoint", "hypotheses")
"""Keys of the report section."""

_MERGED = ("matrix", "train", "launch", "report")
"""Mappings of which a file that extends another replaces single keys."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Experiment:
    """What is to be run and compared.

    Attributes:
        name: None for a line of flags without a name.
        matrix: every cell, with its fixed settings and overrides.
        train: the settings under ``train``: what all cells of its own matrix have, unless overridden.
        launch, report: as written; the launcher and the report give them their meaning.
        terms: YAML files of a user's own loss terms, absolute.
        description: what it shows, costs and gives: the comment that opens the file.
        file: where it was read from; None for flags.
        over: settings that win over every cell's; never an axis.
        places: where each value of each setting stands, by name and `prove.spec.matrix.identity`.
    """

    name: str | None
    matrix: Matrix
    train: Mapping[str, Value] = field(default_factory=dict)
    launch: Section = field(default_factory=Section)
    report: Section = field(default_factory=Section)
    terms: tuple[Path, ...] = ()
    description: str = ""
    file: Path | None = None
    over: Mapping[str, Value] = field(default_factory=dict)
    places: Mapping[tuple[str, Hashable], Place] = field(default_factory=dict, compare=False, repr=False)

    def cells(self) -> Iterator[Cell]:
        """The settings of every job, one dict after the other, each once; what is not in it has its default.

        A folder for each dataset has become the folder of the cell's dataset.
        """
        for cell in self.matrix.cells():
            for root in ("data_root", "gen_root"):
                folders = cell.get(root)
                if isinstance(folders, tuple):
                    del cell[root]
                    folder = dict(folders).get(cell.get("dataset"))
                    if folder is None and root == "data_root":
                        folder = _folders_of(cell.get("dataset"), dict(folders))
                    if folder is not None:
                        cell[root] = folder
            yield {**cell, **self.over}

    def values(self) -> Iterator[tuple[str, Value, Place | None]]:
        """Every setting with every value that it has somewhere, once, and where that stands: for checking names."""
        seen = set()
        for block in self.matrix.blocks:
            settings = [(name, value) for name in (*block.axes, *block.fixed) for value in block.values(name)]
            settings += [item for override in block.overrides for item in override.settings.items()]
            for name, value in settings:
                key = (name, identity(value))
                if value is not None and key not in seen:
                    seen.add(key)
                    yield name, value, self.places.get(key)

    def error(self, name: str, value: Value, error: ProveError) -> ProveError:
        """An error about a setting's value, with the place where the value stands."""
        place = self.places.get((name, identity(value)))
        return place.error(error.message, error.hint) if place else error


def read_experiment(file: Path) -> Experiment:
    """Read an experiment file; `docs/sweeps.md` describes its keys.

    Raises:
        ProveError: unreadable, not YAML, or a key or value that can't stand there; names file, line and column.
    """
    return _Files().read(file, ())


def experiment_of_flags(
    flags: Mapping[str, Any],
    *,
    name: str | None = None,
    terms: Sequence[Path] = (),
    launch: Mapping[str, Any] | None = None,
) -> Experiment:
    """The experiment of a line of flags.

    Args:
        flags: setting → what was given, in the order of the axes: text with commas and ranges for several values, a
            plain value, or None for a flag that was not given. Settings that are no axis take one value.

    Raises:
        ProveError: a value can't be that setting's, or nothing was given; names the flag.
    """
    groups, fixed = [], {}
    for setting, given in flags.items():
        if given is None:
            continue
        if not SETTINGS[setting].axis:
            fixed[setting] = of_flag(setting, given)
        elif isinstance(given, str):
            groups.append(Group.axis(setting, values_of_flag(setting, given)))
        else:
            groups.append(Group.axis(setting, [of_flag(setting, given)]))
    if not groups:
        raise ProveError(
            "Nothing to sweep over.",
            hint="Name an experiment file, or give axes, such as --aux-loss none,focal --seed 0..2.",
        )
    axes = {group.names[0] for group in groups}
    for other in ("aux_loss", "aux_weight"):
        if {"loss", other} <= axes:
            raise ProveError(
                f"--loss and --{other.replace('_', '-')} are two ways to say what is minimised.",
                hint='Use one: --loss "ce,ce + 0.3*focal" or --aux-loss none,focal.',
            )
    if name is not None and not _NAME.fullmatch(name):
        raise ProveError(f"--name {name!r} can't name an experiment.", hint=_NAME_HINT)
    return Experiment(
        name=name,
        matrix=Matrix((Block(tuple(groups), fixed),)),
        train=fixed,
        launch=Section(dict(launch or {})),
        terms=tuple(Path(term).absolute() for term in terms),
    )


_NAME_HINT = "Write letters, digits, _, - and points, at most 64, first a letter, a digit or _."


def of_flag(name: str, given: Any) -> Value:
    """The value that a flag gives to a setting.

    Raises:
        ProveError: it can't be this setting's; names the flag.
    """
    setting = SETTINGS[name]
    try:
        return setting.read_word(given) if isinstance(given, str) else setting.read(given)
    except ProveError as error:
        raise ProveError(f"--{name.replace('_', '-')}: {error.message}", hint=error.hint) from None


@dataclass
class _Files:
    """Reads a file and those that it refers to, each once."""

    experiments: dict[Path, Experiment] = field(default_factory=dict)

    def read(self, file: Path, chain: tuple[Path, ...]) -> Experiment:
        """One experiment.

        Args:
            chain: the files that led here.
        """
        known = file.resolve()
        if known not in self.experiments:
            self.experiments[known] = self._read(file, (*chain, known))
        return self.experiments[known]

    def _read(self, file: Path, chain: tuple[Path, ...]) -> Experiment:
        keys, comment = self._keys(file, chain)
        terms = _terms(keys)

        def included(node: Node) -> Sequence[Block]:
            other = self.read(self._other(node, "include", chain), chain)
            terms.extend(term for term in other.terms if term not in terms)
            places.update({key: place for key, place in other.places.items() if key not in places})
            return other.matrix.blocks

        reader = MatrixReader(keys, included)
        places = reader.places
        return Experiment(
            matrix=Matrix(reader.read()),
            train=reader.train,
            name=_name(keys, file),
            launch=_section(keys, "launch", "launch: {launcher: slurm, partition: gpu}"),
            report=_report(keys),
            terms=tuple(terms),
            description=keys["description"].text("description").strip() if "description" in keys else comment,
            file=file,
            places=places,
        )

    def _keys(self, file: Path, chain: tuple[Path, ...]) -> tuple[dict[str, Node], str]:
        """The top level with everything that it extends, and the comment that opens the file."""
        from prove.spec.yaml_file import read_yaml

        node, text = read_yaml(file, "experiment")
        keys = node.only(KEYS, "the experiment", "matrix: {...}")
        if "extends" in keys:
            other = self._other(keys["extends"], "extends", chain)
            base, _ = self._keys(other, (*chain, other.resolve()))
            keys = _extended(base, keys)
        return keys, _opening_comment(text)

    @staticmethod
    def _other(node: Node, what: str, chain: tuple[Path, ...]) -> Path:
        name = node.text(what)
        if not name.endswith((".yaml", ".yml")):
            raise node.error(f"{what} {name!r} is no YAML file.", "Name an experiment file, relative to this one.")
        file = Path(anchored(name, node.at.file))
        if not file.is_file():
            raise node.error(f"{what}: there is no file {file}.", "A relative path counts from the file it stands in.")
        if file.resolve() in chain:
            circle = (*chain[chain.index(file.resolve()) :], file)
            raise node.error(
                f"Files that refer to each other in a circle: {' -> '.join(each.name for each in circle)}."
            )
        return file


def _folders_of(dataset: Value, folders: Mapping[str, str]) -> str | None:
    """The folders of what a dataset consists of, as ``--data-root`` takes them: ``ACDC=DIR,CamVid=DIR``."""
    asked = DatasetText.read(str(dataset))
    named = {part.name: folders[part.name] for part in asked.parts if part.name in folders}
    if asked.joint:
        return ",".join(f"{name}={folder}" for name, folder in named.items()) or None
    return next(iter(named.values()), None)


def _extended(base: Mapping[str, Node], own: Mapping[str, Node]) -> dict[str, Node]:
    """All of the base but its name; mappings merge key by key, where null takes a key away."""
    keys = {key: node for key, node in base.items() if key not in ("name", "description", "extends")}
    for key, node in own.items():
        if key in _MERGED and key in keys and isinstance(node.value, dict) and isinstance(keys[key].value, dict):
            inherited = keys[key].value
            merged = {**inherited, **node.value}
            dropped = {name for name, each in node.value.items() if each.value is None and name in inherited}
            node = replace(node, value={name: each for name, each in merged.items() if name not in dropped})
        keys[key] = node
    return keys


def _opening_comment(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return "\n".join(lines).strip()


def _name(keys: Mapping[str, Node], file: Path) -> str:
    if "name" in keys:
        name = keys["name"].text("name")
        if not _NAME.fullmatch(name):
            raise keys["name"].error(f"{name!r} can't name an experiment.", _NAME_HINT)
        return name
    if not _NAME.fullmatch(file.stem):
        raise ProveError(f"{file}: {file.stem!r} can't name an experiment.", hint="Add a name to the file: name: ...")
    return file.stem


def _terms(keys: Mapping[str, Node]) -> list[Path]:
    if "terms" not in keys:
        return []
    terms = keys["terms"]
    files: list[Path] = []
    for node in terms.value if isinstance(terms.value, list) else [terms]:
        file = Path(anchored(node.text("terms"), node.at.file))
        if not file.is_file():
            raise node.error(f"terms: there is no file {file}.", "A relative path counts from the file it stands in.")
        files.append(file)
    return files


def _section(keys: Mapping[str, Node], key: str, example: str) -> Section:
    return Section.of(keys[key].mapping(key, example)) if key in keys else Section()


def _report(keys: Mapping[str, Node]) -> Section:
    """The report's mapping; the keys that PROVE knows are what they must be."""
    section = _section(keys, "report", "report: {baseline: ce, metric: mIoU}")
    for key, value in section.items():
        if key not in REPORT:
            unknown_key = unknown("key", key, REPORT, where="in report")
            raise section.error(key, unknown_key.message, unknown_key.hint)
        if key == "baseline" and not (isinstance(value, str) and value.strip()):
            raise section.error(key, f"baseline must be the text of an objective, not {value!r}.")
        if key == "baseline":
            try:
                parse(value)
            except ProveError as error:
                raise section.error(key, error.message, error.hint) from None
        if key == "metric" and not (value and all(isinstance(each, str) for each in _listed(value))):
            raise section.error(key, f"metric must be a name or a list of names, such as mIoU, not {value!r}.")
        for name in _listed(value) if key == "metric" else ():
            if name not in METRICS:
                unknown_metric = unknown("metric", name, METRICS)
                raise section.error(key, unknown_metric.message, unknown_metric.hint)
        if key == "smallest_effect" and not _is_positive(value):
            raise section.error(key, f"smallest_effect must be a number > 0, in percentage points, not {value!r}.")
        if key == "checkpoint" and value not in ("last", "best"):
            raise section.error(key, f"checkpoint must be last or best, for all runs alike, not {value!r}.")
        if key == "hypotheses":
            read_hypotheses(keys["report"].value[key])
    return section


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
