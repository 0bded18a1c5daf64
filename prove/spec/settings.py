"""The settings that a job is described by, in an experiment file and in the flags of a sweep."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from prove.errors import ProveError, unknown
from prove.spec.expr import Value
from prove.spec.job import EarlyStop
from prove.spec.located import kind_of
from prove.spec.parse import parse

Kind = Literal["text", "objective", "integer", "number", "flag", "size", "folders"]

MAX_VALUES = 100_000
"""Values of one axis; a range longer than that is a slip of the finger."""

_RANGE = re.compile(r"\s*([-+]?\d+)\s*\.\.\s*([-+]?\d+)(?:\s*\.\.\s*([-+]?\d+))?\s*")


@dataclass(frozen=True)
class Setting:
    """A setting by its name in `prove run`, where ``batch_size`` is ``--batch-size``.

    Attributes:
        kind: ``text``; ``objective`` (text that is a sum of loss terms); ``integer``; ``number``; ``flag``; ``size``
            (``HxW``); ``folders`` (a folder, or one for each dataset).
        axis: whether it is part of what the job is. The others say where and how it runs, and stand in ``train`` only.
        low: smallest value; above_low: itself not allowed.
        high: largest value.
        choices: the only values of a text, when not empty.
        path: suffixes that make a text the path of a file.
    """

    name: str
    kind: Kind
    axis: bool = True
    low: float = -math.inf
    above_low: bool = False
    high: float = math.inf
    choices: tuple[str, ...] = ()
    path: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """What it takes, for a message."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        bound = "" if self.low == -math.inf else f" {'>' if self.above_low else '>='} {self.low:g}"
        if self.high < math.inf:
            bound = f" in [{self.low:g}, {self.high:g}]"
        return {
            "text": "text",
            "objective": "the text of an objective",
            "integer": f"an integer{bound}",
            "number": f"a number{bound}",
            "flag": "true or false",
            "size": "HEIGHTxWIDTH, such as 512x512",
            "folders": "a folder, or a mapping of datasets to folders",
        }[self.kind]

    def read(self, value: Any, written: str | None = None) -> Value:
        """The value in its one form.

        Args:
            value: plain data, as YAML gives it.
            written: how it is written in the file, when it is not in quotes.

        Raises:
            ProveError: it can't be this setting's; without a place, which the caller knows.
        """
        if self.kind == "flag":
            if isinstance(value, bool):
                return value
        elif self.kind == "integer":
            if _is_finite(value) and int(value) == value:
                return int(self._bounded(value))
        elif self.kind == "number":
            if isinstance(value, str) and _is_number(value):
                value = float(value)  # YAML 1.1 takes 1e-4, without a point, for text
            if _is_finite(value):
                return float(self._bounded(value))
        elif self.kind == "folders" and isinstance(value, Mapping):
            return tuple((str(name), self.read(folder)) for name, folder in value.items())
        elif isinstance(value, str) and value.strip():
            return self._text(value.strip())
        raise ProveError(f"{self.name} must be {self.expected}, not {kind_of(value)}.", hint=self._hint(value, written))

    def read_word(self, word: str) -> Value:
        """The value that a word of the command line gives.

        Raises:
            ProveError: as `read`.
        """
        if self.kind == "flag" and word.lower() in ("true", "false"):
            return word.lower() == "true"
        if self.kind == "integer" and re.fullmatch(r"[-+]?\d{1,18}", word):
            return self.read(int(word))
        return self.read(word)

    def _bounded(self, value: float) -> int | float:
        if not self.low <= value <= self.high or (self.above_low and value == self.low):
            raise ProveError(f"{self.name} must be {self.expected}, not {value}.")
        if self.kind == "integer" and value >= 2**31:
            raise ProveError(f"{self.name} must be less than 2**31, not {value:g}.")
        return value

    def _text(self, text: str) -> str:
        if self.choices and text not in self.choices:
            raise unknown(self.name, text, self.choices)
        if self.name == "monitor":
            return EarlyStop(monitor=text).monitor
        if self.name == "aux_loss" and text.lower() == "none":
            return "none"
        if self.kind == "objective":
            parse(text)
        if self.kind == "size":
            match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
            if match is None:
                raise ProveError(f"{self.name} must be {self.expected}, not {text!r}.")
            return f"{int(match[1])}x{int(match[2])}"
        return text

    def _hint(self, value: Any, written: str | None) -> str:
        if self.name == "aux_loss" and (value is None or value is False):
            return "For no auxiliary loss write none: to YAML that is text, and null, no and off are not."
        if value is None:
            return f"Leave {self.name} out for its default."
        if self.kind in ("text", "objective") and isinstance(value, bool | int | float):
            return f'YAML takes {written} for {kind_of(value)}; put it in quotes: "{written}".' if written else ""
        if self.kind == "size" and isinstance(value, int) and not isinstance(value, bool):
            return f"Write {value}x{value}."
        if isinstance(value, str) and written is None and self.kind in _IN_QUOTES and _IN_QUOTES[self.kind](value):
            return "Write it without quotes."
        return ""


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text.strip()) is not None


def _is_finite(value: Any) -> bool:
    """Whether it is a number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


_IN_QUOTES: Mapping[str, Callable[[str], bool]] = {
    "integer": _is_number,
    "flag": lambda text: text.lower() in ("true", "false"),
}
"""Kinds whose values are no text to YAML, and what they look like in quotes."""

_ALL = (
    Setting("dataset", "text", path=(".yaml", ".yml")),
    Setting("model", "text", path=(".py",)),
    Setting("strategy", "text"),
    Setting("domain_filter", "text"),
    Setting("real_gen_ratio", "number", low=0, high=1),
    Setting("aux_loss", "objective"),
    Setting("aux_weight", "number", low=0),
    Setting("loss", "objective"),
    Setting("seed", "integer", low=0),
    Setting("max_iters", "integer", low=1),
    Setting("batch_size", "integer", low=1),
    Setting("crop_size", "size"),
    Setting("lr", "number", low=0, above_low=True),
    Setting("eval_interval", "integer", low=1),
    Setting("val_images", "integer", low=1),
    Setting("early_stop", "flag"),
    Setting("patience", "integer", low=1),
    Setting("min_delta", "number", low=0, above_low=True),
    Setting("monitor", "text"),
    Setting("pretrained", "flag"),
    Setting("amp", "flag"),
    Setting("weights", "text", path=(".pth", ".pt", ".safetensors")),
    Setting("data_root", "folders", axis=False),
    Setting("gen_root", "folders", axis=False),
    Setting("device", "text", axis=False, choices=("auto", "cpu", "cuda")),
    Setting("workers", "integer", axis=False, low=0),
    Setting("threads", "integer", axis=False, low=1),
)

SETTINGS: Mapping[str, Setting] = {setting.name: setting for setting in _ALL}
"""Every setting of a job by its name."""

AXES: tuple[str, ...] = tuple(setting.name for setting in _ALL if setting.axis)
"""The settings that can be an axis of a matrix."""


def expand_range(name: str, text: str) -> range | None:
    """``0..4`` is 0, 1, 2, 3, 4 and ``0..10..5`` is 0, 5, 10; None for a text that is no range.

    Raises:
        ProveError: the range is empty, runs backwards or is longer than `MAX_VALUES`.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        if re.fullmatch(r"[-+\d\s.eE]*\.\.[-+\d\s.eE]*", text):
            raise ProveError(
                f"{name}: {text!r} is no range of integers.", hint="Write FIRST..LAST or FIRST..LAST..STEP."
            )
        return None
    first, last, step = (int(part) if part else 1 for part in (match[1], match[2], match[3]))
    if step < 1 or last < first:
        hint = f"Write {last}..{first}." if step >= 1 else "A step is an integer >= 1."
        raise ProveError(f"{name}: the range {text.strip()} holds nothing.", hint=hint)
    if (last - first) // step >= MAX_VALUES:
        raise ProveError(f"{name}: the range {text.strip()} holds more than {MAX_VALUES:,} values.")
    return range(first, last + 1, step)


def values_of_flag(name: str, text: str) -> tuple[Value, ...]:
    """The values of a flag that names several, such as ``--seed 0..2,7`` or ``--dataset A,B``.

    Commas inside brackets and quotes separate nothing: ``ce + 0.3*focal(gamma=2, alpha=none),ce`` are two values.

    Args:
        name: a key of `SETTINGS`.

    Raises:
        ProveError: a value is missing or can't be this setting's; names the flag.
    """
    setting, flag = SETTINGS[name], f"--{name.replace('_', '-')}"
    values: list[Value] = []
    for word in _split(flag, text):
        try:
            expanded = expand_range(name, word) if setting.kind == "integer" else None
            values.extend(map(setting.read, expanded) if expanded is not None else [setting.read_word(word)])
        except ProveError as error:
            raise ProveError(f"{flag}: {error.message}", hint=error.hint) from None
    return tuple(values)


def _split(flag: str, text: str) -> list[str]:
    words, word, closers, quote = [], "", [], ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "([{":
            closers.append(")]}"["([{".index(character)])
        elif closers and character == closers[-1]:
            closers.pop()
        elif character == "," and not closers:
            words.append(word)
            word = ""
            continue
        word += character
    if quote or closers:
        raise ProveError(f"{flag} {text!r}: {quote or closers[-1]!r} is missing at the end.")
    words = [_unquoted(each.strip()) for each in (*words, word)]
    if not all(words):
        raise ProveError(f"{flag} {text!r}: a value between commas is missing.")
    return words


def _unquoted(word: str) -> str:
    whole = len(word) >= 2 and word[0] == word[-1] and word[0] in "\"'" and word[0] not in word[1:-1]
    return word[1:-1].strip() if whole else word
