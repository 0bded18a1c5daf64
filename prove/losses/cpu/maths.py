"""Exponential and logarithm that vectorise: polynomials in float32, the C library in float64.

The logarithm's coefficients are Cephes' (S. Moshier, netlib.org/cephes). Relative errors are about 3e-7 at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from prove.losses.cpu.jit import FAST

f4, i4 = np.float32, np.int32
_OPTIONS: Any = {"fastmath": FAST, "error_model": "numpy"}


def exp(x: Any) -> Any:
    """e^x for x <= 0; 0 below -87 in float32."""
    return math.exp(x)


def log(x: Any) -> Any:
    """The natural logarithm of a normal x; -inf of 0, NaN of NaN."""
    return math.log(x)


def log1p(x: Any) -> Any:
    """log(1 + x) for x in [0, 1]."""
    return math.log1p(x)


@overload(exp, jit_options=_OPTIONS)  # type: ignore[untyped-decorator]
def _exp(x: Any) -> Callable[[Any], Any]:
    if x == types.float64:

        def double(x: Any) -> Any:
            return math.exp(x)

        return double

    def single(x: Any) -> Any:
        # 2^(n + f), f in [-1/2, 1/2]; the polynomial is the best of its degree in relative error, 9e-8
        n = np.floor(x * f4(1.4426950408889634) + f4(0.5))
        f = x * f4(1.4426950408889634) - n
        p = f4(1.3254669029e-3)
        p = p * f + f4(9.6719954164e-3)
        p = p * f + f4(5.5507790297e-2)
        p = p * f + f4(2.4022231996e-1)
        p = p * f + f4(6.9314694405e-1)
        p = p * f + f4(1.0)
        power = i4((i4(n) + i4(127)) << i4(23))
        return f4(0.0) if x < f4(-87.0) else p * f4(power.view(np.float32))

    return single


@overload(log, jit_options=_OPTIONS)  # type: ignore[untyped-decorator]
def _log(x: Any) -> Callable[[Any], Any]:
    if x == types.float64:

        def double(x: Any) -> Any:
            return math.log(x) if x > 0.0 else (x if x != x else -np.inf)

        return double

    def single(x: Any) -> Any:
        # x = m 2^k with m in [sqrt(1/2), sqrt(2))
        shifted = i4(f4(x).view(np.int32) - i4(0x3F3504F3))
        k = f4(i4(shifted >> i4(23)))
        m = i4(i4(shifted & i4(0x7FFFFF)) + i4(0x3F3504F3)).view(np.float32) - f4(1.0)
        square = m * m
        p = f4(7.0376836292e-2)
        p = p * m - f4(1.1514610310e-1)
        p = p * m + f4(1.1676998740e-1)
        p = p * m - f4(1.2420140846e-1)
        p = p * m + f4(1.4249322787e-1)
        p = p * m - f4(1.6668057665e-1)
        p = p * m + f4(2.0000714765e-1)
        p = p * m - f4(2.4999993993e-1)
        p = p * m + f4(3.3333331174e-1)
        r = m * square * p
        r = r + k * f4(-2.12194440e-4) - f4(0.5) * square
        found = m + r + k * f4(0.693359375)
        return found if x > f4(0.0) else (x if x != x else f4(-np.inf))

    return single


@overload(log1p, jit_options=_OPTIONS)  # type: ignore[untyped-decorator]
def _log1p(x: Any) -> Callable[[Any], Any]:
    if x == types.float64:

        def double(x: Any) -> Any:
            return math.log1p(x)

        return double

    def single(x: Any) -> Any:
        # 2 atanh(t): no 1 + x that would round a small x away
        t = x / (x + f4(2.0))
        square = t * t
        p = f4(1.0 / 13.0)
        p = p * square + f4(1.0 / 11.0)
        p = p * square + f4(1.0 / 9.0)
        p = p * square + f4(1.0 / 7.0)
        p = p * square + f4(1.0 / 5.0)
        p = p * square + f4(1.0 / 3.0)
        p = p * square + f4(1.0)
        return f4(2.0) * t * p

    return single
