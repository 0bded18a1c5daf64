"""Which code computes the terms; no torch, so that a command can look before it starts anything."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal, cast, get_args

from prove.errors import unknown

Backend = Literal["fused", "torch", "reference"]
"""How terms are computed: fused kernels where there are any, plain torch, or the slow float64 references."""

VARIABLE = "PROVE_LOSSES"


def checked(name: str, where: str = "") -> Backend:
    """A backend by its name.

    Raises:
        ProveError: there is none of that name.
    """
    if name not in get_args(Backend):
        raise unknown("loss backend", name, get_args(Backend), where=where)
    return cast(Backend, name)


def chosen_backend(env: Mapping[str, str] = os.environ) -> Backend:
    """The backend that the environment variable ``PROVE_LOSSES`` names, ``fused`` by default.

    Raises:
        ProveError: it names something else.
    """
    return checked(env.get(VARIABLE) or "fused", where=f"in the environment variable {VARIABLE}")
