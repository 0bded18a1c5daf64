"""Terms of a user's own: their classes, loaded from the Python files that `prove.catalog.user_terms` has registered.

This is the one place where such a file is executed.
"""

from __future__ import annotations

import inspect
import json
import sys
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from prove.catalog.losses import resolve
from prove.catalog.user_terms import SOURCE, USER_TERMS, register_terms
from prove.errors import ProveError
from prove.losses.pixels import Pixels
from prove.losses.term import Term
from prove.spec.expr import LossExpr, LossTerm, Value, text_of

if TYPE_CHECKING:
    from prove.catalog.term_file import UserTerm


_WRITTEN = "_term_as_written"


def load_terms(*files: str | Path) -> tuple[str, ...]:
    """Make terms of your own usable in objectives of this process.

    >>> load_terms("curvature.yaml")
    ('curvature',)
    >>> objective = Objective("ce + 0.3*curvature(strength=2)")

    Args:
        files: YAML files, each beside the Python file that it names; `docs/losses.md` describes them.

    Returns:
        Their names.

    Raises:
        ProveError: a file is at fault, its class is not a `Term`, or what it takes is not what the YAML says.
    """
    terms = register_terms(files)
    for term in terms:
        term_class(term.name)
    return tuple(term.name for term in terms)


def term_class(name: str) -> type[Term] | None:
    """The class of a registered term, loaded and checked when it is first asked for; None for any other name.

    Raises:
        ProveError: the file can't be executed, or its class is not what its YAML says.
    """
    return _class_of(USER_TERMS.get(name)) if name in USER_TERMS else None


def build_own(term: LossTerm, ignore_index: int = 255) -> Term | None:
    """The module of one term that a user registered; None for any other term.

    Raises:
        ProveError: as `resolve` and `term_class`, or the class refuses these parameters.
    """
    cls = term_class(term.name)
    if cls is None:
        return None
    term = resolve(LossExpr((term,))).primary
    module = _built(USER_TERMS.get(term.name), cls, _arguments(dict(term.params)), ignore_index)
    module.__dict__[_WRITTEN] = term
    return module


def own_spec(module: Term) -> LossTerm | None:
    """The resolved term that `build_own` made a module from; None for any other module."""
    written: LossTerm | None = module.__dict__.get(_WRITTEN)
    return written


def has_reference(name: str) -> bool:
    """Whether the value of a term can be compared with a second implementation: False for a user's without one."""
    cls = term_class(name)
    return cls is None or hasattr(cls, "reference")


def own_reference(term: LossTerm, logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor | None:
    """The value that a user's term must have, in float64; None for any other term.

    Computed by the class's own ``reference``, or, without one, by the term itself in float64.

    Args:
        term: resolved.
        logits: [N, C, H, W]; labels: [N, H, W].

    Raises:
        ProveError: what is computed is not one number.
    """
    cls = term_class(term.name)
    if cls is None:
        return None
    reference = getattr(cls, "reference", None)
    if reference is None:
        module = build_own(term, ignore_index)
        assert module is not None
        value: object = module.value(Pixels.of(logits.double(), labels, ignore_index))
    else:
        value = reference(_arguments(dict(term.params)), logits.double(), labels.long(), ignore_index)
    return scalar(value, f"{term.name}: {'reference' if reference is not None else 'value'}")


def scalar(value: object, what: str) -> Tensor:
    """The value of a term, which must be one number in a tensor.

    Raises:
        ProveError: it is not.
    """
    if not isinstance(value, Tensor) or value.dim() != 0:
        got = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else f"{type(value).__name__}"
        raise ProveError(
            f"{what} returned {got}; a term is one number.",
            hint="Return a scalar tensor, such as the mean over pixels.",
        )
    return value


def main(files: list[str]) -> int:
    """Load terms and say on stdout, as the last line, what is wrong with them: ``{"message": .., "hint": ..}``.

    For `prove run`, which executes no user's code itself.

    Returns:
        0, or 2 when they can't be used.
    """
    try:
        load_terms(*files)
    except ProveError as error:
        print("\n" + json.dumps({"message": error.message, "hint": error.hint}))
        return 2
    return 0


@cache
def _class_of(term: UserTerm) -> type[Term]:
    cls = getattr(_executed(term), term.class_name, None)
    if not isinstance(cls, type) or not issubclass(cls, Term):
        raise ProveError(
            f"{term.code}: {term.class_name} is not a Term.",
            hint=f"Write class {term.class_name}(Term), from prove.losses.",
        )
    _check(term, cls)
    return cls


def _executed(term: UserTerm) -> ModuleType:
    """The file as a module; of the bytes that were registered, whatever the file holds by now."""
    module_name = f"prove_user_terms_{term.name}_{term.source}"
    module = ModuleType(module_name)
    module.__file__ = str(term.code)
    sys.modules[module_name] = module  # dataclasses and the like look their module up while it is executed
    try:
        exec(compile(term.python, str(term.code), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # arbitrary Python: whatever it raises is the user's answer
        own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(term.code)]
        where = f", line {own[-1]}" if own else ""
        hint = "The file travels alone: it may import what is installed, not other files beside it."
        raise ProveError(
            f"{term.code}{where}: {type(error).__name__}: {error}", hint=hint if isinstance(error, ImportError) else ""
        ) from error
    return module


def _check(term: UserTerm, cls: type[Term]) -> None:
    """The class must be what the YAML file says."""
    what = f"{term.code}: {term.class_name}"
    if getattr(cls, "name", None) != term.name:
        raise ProveError(f"{what}.name is {getattr(cls, 'name', None)!r}, but {term.file} says {term.name!r}.")
    if hasattr(nn.ModuleDict, term.name):
        raise ProveError(
            f"{term.file}: {term.name!r} can't name a term: modules of PyTorch have a method of that name.",
            hint="Choose another name.",
        )
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise ProveError(f"{what} has no {missing}().", hint="Write def value(self, pixels: Pixels) -> Tensor.")
    _check_signature(term, what, inspect.signature(cls).parameters)
    if (reference := getattr(cls, "reference", None)) is not None:
        try:
            inspect.signature(reference).bind({}, None, None, 255)
        except TypeError as error:
            hint = "Write @staticmethod def reference(params, logits, labels, ignore_index) -> Tensor."
            raise ProveError(f"{what}.reference can't be called: {error}.", hint=hint) from error
    defaults = {param.name: param.default for param in term.entry.params}
    module = _built(term, cls, _arguments(defaults), ignore_index=254)
    if getattr(module, "ignore_index", None) != 254:
        raise ProveError(f"{what} loses its ignore_index.", hint="Start __init__ with super().__init__(ignore_index).")
    held = [*dict(module.named_parameters()), *dict(module.named_buffers())]
    if held:
        raise ProveError(
            f"{what} holds {held[0]!r}, but a term has no parameters and no buffers.",
            hint="Make constants in value(), with pixels.logits.new_tensor(...), so that they fit its type and device.",
        )


def _check_signature(term: UserTerm, what: str, taken: Mapping[str, inspect.Parameter]) -> None:
    """The constructor must take the YAML's parameters, with their defaults, and ``ignore_index``."""
    said = {param.name: param for param in term.entry.params if param.name != SOURCE}
    hint = f"Its __init__ takes {', '.join(['self', *said, 'ignore_index'])}, as {term.file} says."
    for name, parameter in taken.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ProveError(f"{what} takes {parameter}, which no name in the YAML file stands for.", hint=hint)
        if name not in (*said, "ignore_index"):
            raise ProveError(f"{what} takes {name!r}, which {term.file} does not name.", hint=hint)
    for name in (*said, "ignore_index"):
        if name not in taken:
            raise ProveError(f"{what} does not take {name!r}.", hint=hint)
    for name, param in said.items():
        default = taken[name].default
        if default is inspect.Parameter.empty or not _same(default, param.default):
            has = "no default" if default is inspect.Parameter.empty else f"the default {default!r}"
            raise ProveError(
                f"{what} gives {name} {has}, but {term.file} says {text_of(param.default)}.",
                hint="Write the same in both. In the YAML file, 1 takes whole numbers only and 1.0 any number.",
            )


def _same(given: object, said: Value) -> bool:
    """Whether a default in Python is the one in the YAML file."""
    if isinstance(given, list | tuple):
        return isinstance(said, tuple) and len(given) == len(said) and all(map(_same, given, said))
    whole = isinstance(said, int) and not isinstance(said, bool)
    if isinstance(given, bool) != isinstance(said, bool) or (whole and not isinstance(given, int)):
        return False
    return given == said


def _arguments(params: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in params.items() if name != SOURCE}


def _built(term: UserTerm, cls: Any, arguments: Mapping[str, Value], ignore_index: int) -> Term:
    try:
        module: Term = cls(ignore_index=ignore_index, **arguments)
    except ProveError:
        raise
    except Exception as error:  # the user's code
        written = LossTerm(term.name).with_params(dict(arguments)).body
        raise ProveError(f"{term.code}: {written} can't be made: {type(error).__name__}: {error}") from error
    return module
