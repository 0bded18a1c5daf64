"""Class weights from the pixel counts of a training set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from prove.catalog.losses import SCHEMES
from prove.errors import ProveError, unknown


def class_weights(
    counts: Sequence[int],
    scheme: str = "auto",
    beta: float | None = None,
    pixels_around: Sequence[int] | None = None,
) -> tuple[float, ...]:
    """One weight per class, with mean 1 over the classes that occur; a class without a pixel has weight 0.

    With n_c pixels of class c:

    - ``median_frequency`` (``auto``): ``median(f) / f_c`` with ``f_c = n_c / N_c``, where N_c is the number of valid
      pixels in the images that hold the class (Eigen & Fergus 2015, section 6.3.2). Without ``pixels_around`` N_c is
      taken to be the same for all classes, and the weights are those of ``inverse``.
    - ``inverse``: ``1 / n_c``.
    - ``effective_number``: ``(1 - beta) / (1 - beta^n_c)`` (Cui 2019, arXiv:1901.05555, eq. 7). Beyond
      ``1 / (1 - beta)`` pixels more pixels count no more: with pixel counts beta has to be very near 1.

    Args:
        counts: valid training pixels per class, n_c >= 0.
        scheme: as above.
        beta: in (0, 1); for ``effective_number`` only, which needs it.
        pixels_around: N_c per class; for ``median_frequency`` only.

    Raises:
        ProveError: no pixel at all, a negative count, an unknown scheme, a beta that is missing or out of range, or
            one with which every class gets the same weight though their counts differ.
    """
    scheme = "median_frequency" if scheme == "auto" else scheme
    if scheme not in SCHEMES:
        raise unknown("scheme of class weights", scheme, (*SCHEMES, "auto"))
    if any(count < 0 for count in counts) or not any(counts):
        raise ProveError(f"Class weights need pixel counts >= 0 that are not all 0, not {list(counts)}.")
    present = [count for count in counts if count > 0]
    if scheme == "effective_number":
        if beta is None or not 0.0 < beta < 1.0:
            raise ProveError(f"effective_number needs a beta in (0, 1), not {beta}.")
        raw = [_effective(count, beta) for count in counts]
        _refuse_saturated(raw, present, beta)
    elif scheme == "inverse":
        raw = [1.0 / count if count else 0.0 for count in counts]
    else:
        around = _around(counts, pixels_around)
        frequencies = [count / total if count else 0.0 for count, total in zip(counts, around, strict=True)]
        middle = median(frequency for frequency in frequencies if frequency)
        raw = [middle / frequency if frequency else 0.0 for frequency in frequencies]
    mean = math.fsum(raw) / len(present)
    return tuple(weight / mean for weight in raw)


def _around(counts: Sequence[int], pixels_around: Sequence[int] | None) -> Sequence[int]:
    if pixels_around is None:
        return [sum(counts)] * len(counts)
    if len(pixels_around) != len(counts) or any(n > around for n, around in zip(counts, pixels_around, strict=True)):
        raise ProveError(
            f"pixels_around {list(pixels_around)} does not fit the pixel counts {list(counts)}.",
            hint="It counts, for each class, all valid pixels of the images that hold the class.",
        )
    return pixels_around


def _effective(count: int, beta: float) -> float:
    # 1 - beta^n by expm1 and log1p: beta is so near to 1 that the power would cancel
    return (1.0 - beta) / -math.expm1(count * math.log1p(beta - 1.0)) if count else 0.0


def _refuse_saturated(raw: Sequence[float], present: Sequence[int], beta: float) -> None:
    used = [weight for weight in raw if weight > 0]
    if max(used) < 1.01 * min(used) and max(present) > 1.01 * min(present):
        raise ProveError(
            f"effective_number with beta={beta:g} gives every class the same weight: the rarest class has "
            f"{min(present)} pixels, and beyond 1 / (1 - beta) = {1.0 / (1.0 - beta):.0f} pixels more count no more.",
            hint=f"Choose beta nearer to 1, such as {1.0 - 1.0 / sum(present):.12g}, or median_frequency.",
        )
