"""A loss term of a user's own, as its YAML file describes it. Its Python file is read here, never executed."""

from __future__ import annotations

import ast
import hashlib
import keyword
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from prove.catalog.loss_entry import Form, LossEntry, Param
from prove.catalog.user_terms import SOURCE
from prove.errors import ProveError, nearest
from prove.spec.expr import Value, text_of
from prove.spec.schedule import SHAPES

FORMS: tuple[str, ...] = get_args(Form)

RESERVED = {
    SOURCE: "PROVE fills it in: it says which code computes the term",
    "ignore_index": "every term gets it",
    "self": "Python gives it",
    "class_weight": "computed weights are for ce alone; call a list of your own weights",
}
"""Names that no parameter may have, and why."""


@dataclass(frozen=True)
class UserTerm:
    """A term of a user's own: what the catalogue says of it, and the code that computes it.

    Attributes:
        entry: its catalogue entry; the last parameter is `SOURCE`.
        class_name: the class in the Python file.
        file, code: the YAML file and the Python file, absolute.
        python: bytes of the Python file, the ones that `source` was computed from.
        text: the YAML file's content, with the Python file beside it under the term's name.
    """

    entry: LossEntry
    class_name: str
    file: Path = field(compare=False)
    code: Path = field(compare=False)
    python: bytes = field(repr=False)
    text: str = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        """Its name in an objective."""
        return self.entry.name

    @property
    def source(self) -> str:
        """``sha256_`` and the first 12 hex digits of the Python file's hash."""
        return source_of(self.python)


def source_of(python: bytes) -> str:
    """The value of `SOURCE` for a Python file: a word, so that it can stand in an objective's text."""
    return f"sha256_{hashlib.sha256(python).hexdigest()[:12]}"


class _ParamSpec(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    default: Any
    doc: str = ""
    takes: list[str] = Field(default_factory=list)
    words: list[str] = Field(default_factory=list)
    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False
    below_high: bool = False

    @field_validator("takes", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class _TermSpec(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    file: str
    class_name: str = Field(alias="class")
    summary: str = Field(min_length=1)
    formula: str = ""
    paper: str = ""
    avoid: str = ""
    params: dict[str, _ParamSpec] = Field(default_factory=dict)


class _File:
    """A YAML file, its content and the line of each key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.suffix not in (".yaml", ".yml"):
            raise ProveError(f"{path} is no YAML file.", hint="Name the YAML file of the term.")
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ProveError(f"Can't read the term's file {path}: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise ProveError(f"The term's file {path} is not UTF-8 text.") from error
        self.lines: dict[tuple[str, ...], int] = {(): 1}
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if not isinstance(node, yaml.MappingNode):
                raise ProveError(f"{path} holds no mapping.", hint=f"A term has the keys {', '.join(keys(_TermSpec))}.")
            self._note_lines(node, ())
            self.content: dict[Any, Any] = loader.construct_document(node)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ProveError(f"{path}, line {line}: not valid YAML: {error.problem}.") from error
        except yaml.YAMLError as error:
            raise ProveError(f"{path} is not valid YAML: {error}") from error
        finally:
            loader.dispose()

    def _note_lines(self, node: yaml.MappingNode, place: tuple[str, ...]) -> None:
        for key_node, value_node in node.value:
            here = (*place, str(key_node.value))
            line = key_node.start_mark.line + 1
            if key_node.tag != "tag:yaml.org,2002:str":  # on, yes, 1, ...
                raise ProveError(
                    f"{self.path}, line {line}: {here[-1]!r} is not text to YAML.", hint="Put it in quotes."
                )
            if here in self.lines:
                raise ProveError(f"{self.path}, line {line}: {here[-1]!r} stands twice.")
            self.lines[here] = line
            if isinstance(value_node, yaml.MappingNode) and len(here) < 3:  # params, one of them, its keys
                self._note_lines(value_node, here)

    def error(self, place: Sequence[str], message: str, hint: str = "") -> ProveError:
        """An error that names the line of a key, or of the nearest key around it."""
        here = tuple(place)
        while here not in self.lines:
            here = here[:-1]
        return ProveError(f"{self.path}, line {self.lines[here]}: {message}", hint=hint)


def read_term(path: Path) -> UserTerm:
    """Read a term's YAML file; `docs/losses.md` describes its keys.

    Raises:
        ProveError: the YAML or the Python file is missing or malformed, a key or value can't stand there, or the
            Python file defines no class of that name; says where.
    """
    file = _File(path)
    try:
        spec = _TermSpec.model_validate(file.content)
    except ValidationError as error:
        raise _first_fault(file, error) from None
    _check_name(file, spec.name)
    code = (path.parent / Path(spec.file).expanduser()).resolve()
    python = _python(file, code, spec.class_name)
    params = tuple(_param(file, name, each) for name, each in spec.params.items())
    source = source_of(python)
    own = Param(SOURCE, source, ("word",), f"the SHA-256 of {code.name}: PROVE fills it in", words=(source,))
    entry = LossEntry(
        name=spec.name,
        summary=spec.summary,
        formula=spec.formula or f"as {spec.class_name} in {code.name} computes it",
        params=(*params, own),
        paper=spec.paper or "a term of your own",
        averages=f"as {spec.class_name} computes it",
        pixel_weight=f"taken, unless {spec.class_name} refuses it",
        cost="as its code costs",
        avoid=spec.avoid or "not said",
        unfused_because="a term of your own is computed by its own code",
    )
    moved = {**spec.model_dump(by_alias=True, exclude_unset=True), "file": f"{spec.name}.py"}
    text = yaml.safe_dump(moved, sort_keys=False, allow_unicode=True)
    return UserTerm(entry, spec.class_name, path.absolute(), code, python, text)


def keys(spec: type[BaseModel]) -> tuple[str, ...]:
    """The keys of a mapping in the file."""
    return tuple(each.alias or name for name, each in spec.model_fields.items())


def _first_fault(file: _File, error: ValidationError) -> ProveError:
    faults = error.errors()  # an unknown key explains the one that is missing
    fault = next((each for each in faults if each["type"] == "extra_forbidden"), faults[0])
    place = [str(part) for part in fault["loc"]]
    key, inside = place[-1], ".".join(place[:-1]) or "the term"
    if fault["type"] == "extra_forbidden":
        valid = keys(_ParamSpec if place[0] == "params" else _TermSpec)
        close = nearest(key, valid)
        meant = f"Did you mean {close[0]!r}? " if close else ""
        return file.error(place, f"Unknown key {key!r} in {inside}.", f"{meant}Valid: {', '.join(valid)}.")
    if fault["type"] == "missing":
        return file.error(place, f"{key!r} is missing in {inside}.")
    if place == ["params"] or (len(place) == 2 and place[0] == "params"):
        hint = 'Write params: {strength: {default: 1.0, low: 0, doc: "..."}}.'
        return file.error(place, f"{'.'.join(place)} must be a mapping.", hint)
    hint = _float_hint(fault["input"])
    return file.error(place, f"{'.'.join(place)}: {fault['msg']}, not {fault['input']!r}.", hint)


def _float_hint(value: Any) -> str:
    """YAML 1.1 takes ``1e-3`` for text."""
    try:
        number = float(value) if isinstance(value, str) else None
    except ValueError:
        number = None
    return "" if number is None else f"YAML reads {value} as text; with a point and a sign, as in 1.0e-3, as a number."


def _check_name(file: _File, name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or re.search(r"_\d+$", name) or name in (*SHAPES, "true", "false"):
        raise file.error(
            ["name"],
            f"{name!r} can't name a term in an objective.",
            "Write small letters, digits and _, first a letter; not linear, cosine, step or constant, and no number "
            "after a last _ (a second term of one name is labelled so).",
        )


def _python(file: _File, code: Path, class_name: str) -> bytes:
    """The bytes of the Python file, which defines the class."""
    try:
        python = code.read_bytes()
    except OSError as error:
        hint = "file is relative to this YAML file."
        raise file.error(["file"], f"Can't read {code}: {error.strerror}.", hint) from error
    try:
        tree = ast.parse(python, filename=str(code))
    except SyntaxError as error:
        raise ProveError(f"{code}, line {error.lineno}: not valid Python: {error.msg}.") from error
    except ValueError as error:
        raise ProveError(f"{code} is not valid Python: {error}.") from error
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    if class_name not in classes:
        close = nearest(class_name, classes)
        meant = f"Did you mean {close[0]!r}? " if close else ""
        hint = f"{meant}It defines: {', '.join(classes)}." if classes else "It defines no class."
        raise file.error(["class"], f"{code} defines no class {class_name!r}.", hint)
    return python


def _param(file: _File, name: str, spec: _ParamSpec) -> Param:
    place = ["params", name]
    if name in RESERVED:
        raise file.error(place, f"A parameter can't be called {name!r}: {RESERVED[name]}.")
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or keyword.iskeyword(name):
        raise file.error(place, f"{name!r} can't name a parameter.", "Write letters, digits and _, as in Python.")
    default = _value(file, [*place, "default"], spec.default)
    forms = _forms(file, place, spec, default)
    if ("classes" in forms) != (name == "classes"):
        raise file.error(place, "A list of class indices is the parameter 'classes', and that takes nothing else.")
    param = Param(
        name, default, forms, spec.doc or f"a parameter of {file.content['class']}", spec.low, spec.high,
        spec.above_low, spec.below_high, tuple(spec.words),
    )  # fmt: skip
    try:
        canonical = param.read(default)
    except ValueError:
        hint = _float_hint(default) or "Give words, low and high so that the default is allowed."
        message = f"the default {text_of(default)} is not what the parameter takes: {param.expected or 'nothing'}."
        raise file.error([*place, "default"], f"params.{name}: {message}", hint) from None
    return Param(**{**vars(param), "default": canonical})


def _value(file: _File, place: list[str], written: Any) -> Value:
    if isinstance(written, list) and all(type(item) in (int, float) for item in written):
        return tuple(written)
    if isinstance(written, bool | int | float | str | None):
        return None if written == "none" else written
    raise file.error(
        place,
        f"{'.'.join(place)}: {written!r} is not a value.",
        "It is true or false, a number, a word, none or a list of numbers.",
    )


def _forms(file: _File, place: list[str], spec: _ParamSpec, default: Value) -> tuple[Form, ...]:
    """What the parameter takes: as written, otherwise what its default is; words are taken where there are any."""
    for each in spec.takes:
        if each not in FORMS:
            close = nearest(each, FORMS)
            meant = f"Did you mean {close[0]!r}? " if close else ""
            raise file.error([*place, "takes"], f"Unknown form {each!r}.", f"{meant}Valid: {', '.join(FORMS)}.")
    for word in spec.words:
        if not re.fullmatch(r"[A-Za-z_]\w*", word, re.ASCII) or word in ("true", "false"):
            raise file.error([*place, "words"], f"{word!r} is not a word that can stand in an objective.")
    if spec.takes:
        written = list(dict.fromkeys(spec.takes))
    elif isinstance(default, bool):
        written = ["flag"]
    elif isinstance(default, int):
        written = ["integer"]
    elif isinstance(default, float):
        written = ["number"]
    elif isinstance(default, tuple):
        written = ["classes" if place[-1] == "classes" else "numbers"]
    else:
        written = ["word"]
    if spec.words and "word" not in written:
        written.insert(0, "word")
    if "word" in written and not spec.words:
        hint = _float_hint(default) or "Write words: [first, second], the words it takes."
        raise file.error([*place, "default"], f"params.{place[-1]}: it takes a word, but no words are listed.", hint)
    return tuple(form for form in get_args(Form) if form in written)
