"""Exact Lovász-Softmax: one radix sort of packed 64-bit keys for each class of each group."""

from __future__ import annotations

from typing import Any

import numpy as np

from prove.losses.cpu.jit import kernel

Array = Any

_ONE_BITS = 0x3F800000
_DIGIT = 10
_DIGIT_MASK = (1 << _DIGIT) - 1


def weigh(errors: Array, labels: Array, classes: list[int], factor: float) -> float:
    """The loss of one group, and in place of its errors what each of them weighs.

    Args:
        errors: [K, C, P] errors in K images, -1 where ignored; overwritten by weights, the factor included.
        labels: [K, P] int32, -1 where ignored.
        classes: the classes that the mean runs over.
        factor: of each class in the mean.

    Returns:
        The sum of ``factor`` times the loss of each class.
    """
    images, count, pixels = errors.shape
    single = errors.dtype == np.float32
    keys, order = (np.empty(images * pixels if single else 0, np.uint64) for _ in range(2))
    value = 0.0
    for c in range(count):
        if c not in classes:
            errors[:, c] = 0
            continue
        total, lowest = _own_errors(errors, labels, c)
        if total == 0:
            flat = errors[:, c].reshape(-1) if images == 1 else errors[:, c].ravel()
            image, pixel = divmod(int(flat.argmax()), pixels)
            largest = float(errors[image, c, pixel])
            errors[:, c] = 0
            if largest >= 0.0:
                value += factor * largest
                errors[image, c, pixel] = factor
            continue
        if single:
            kept = _pack(errors, labels, c, lowest, keys)
            _sort(keys, order, kept)
            value += factor * _weigh_sorted(order[:kept], errors, c, total, factor)
        else:
            order64 = _rank(errors, labels, c)
            value += factor * _weigh_ranked(order64, errors, labels, c, total, factor)
    return value


@kernel
def _own_errors(errors: Array, labels: Array, c: int) -> tuple[int, float]:
    """How many pixels are of class c, and the smallest of their errors."""
    total, lowest = 0, errors.dtype.type(2)
    for image in range(labels.shape[0]):
        row, own = errors[image, c], labels[image]
        for i in range(own.size):
            there = own[i] == c
            total += 1 if there else 0
            lowest = row[i] if there and row[i] < lowest else lowest
    return total, lowest


@kernel
def _pack(errors: Array, labels: Array, c: int, lowest: float, keys: Array) -> int:
    """Keys that sort by falling error: the distance of the error's bits from those of 1, then whose it is and where.

    Other pixels below the smallest own error are left out: the loss is 1 when they come, and they weigh nothing.
    """
    kept, one = 0, np.float32(1)
    pixels = labels.shape[1]
    for image in range(labels.shape[0]):
        row, own = errors[image, c], labels[image]
        for i in range(own.size):
            error = row[i] if row[i] < one else one
            distance = np.uint64(np.uint32(_ONE_BITS) - np.float32(error).view(np.uint32))
            other = np.uint64(0) if own[i] == c else np.uint64(1)
            keys[kept] = (distance << np.uint64(32)) | (other << np.uint64(31)) | np.uint64(image * pixels + i)
            kept += 1 if error >= lowest and own[i] >= 0 else 0
    return kept


@kernel
def _sort(keys: Array, other: Array, count: int) -> None:
    """Sort the first ``count`` keys by their upper half, ties in their order: three passes of a radix sort.

    Args:
        other: as long as ``keys``; the result ends up in it.
    """
    counts = np.zeros((3, 1 << _DIGIT), np.int64)
    for i in range(count):
        key = keys[i] >> np.uint64(32)
        counts[0, key & np.uint64(_DIGIT_MASK)] += 1
        counts[1, (key >> np.uint64(_DIGIT)) & np.uint64(_DIGIT_MASK)] += 1
        counts[2, key >> np.uint64(2 * _DIGIT)] += 1
    source, target = keys, other
    for digit in range(3):
        start, row = 0, counts[digit]
        for k in range(row.size):
            here = row[k]
            row[k] = start
            start += here
        shift = np.uint64(32 + digit * _DIGIT)
        for i in range(count):
            key = source[i]
            place = (key >> shift) & np.uint64(_DIGIT_MASK)
            target[row[place]] = key
            row[place] += 1
        source, target = target, source


@kernel
def _weigh_sorted(order: Array, errors: Array, c: int, total: int, factor: float) -> float:
    """Weights into ``errors[:, c]`` and the value, in one walk down the ranking."""
    pixels = errors.shape[2]
    for image in range(errors.shape[0]):
        row = errors[image, c]
        for i in range(pixels):
            row[i] = row.dtype.type(0)
    value, size, above = 0.0, float(total), 0.0
    others = 0.0
    for k in range(order.size):
        key = order[k]
        index = np.int64(key & np.uint64(0x7FFFFFFF))
        error = np.float64(np.uint32(np.uint64(_ONE_BITS) - (key >> np.uint64(32))).view(np.float32))
        if key & np.uint64(0x80000000):
            others += 1.0
            weight = (size - above) / ((size + others) * (size + others - 1.0))
        else:
            weight = 1.0 / (size + others)
            above += 1.0
        value += error * weight
        errors[index // pixels, c, index % pixels] = errors.dtype.type(weight * factor)
    return value


def _rank(errors: Array, labels: Array, c: int) -> Array:
    """Indices of the valid pixels by falling error, own pixels first among equals."""
    flat, own = errors[:, c].ravel(), labels.ravel()
    valid = np.flatnonzero(own >= 0)
    return valid[np.lexsort((own[valid] != c, -flat[valid]))]


@kernel
def _weigh_ranked(order: Array, errors: Array, labels: Array, c: int, total: int, factor: float) -> float:
    pixels = errors.shape[2]
    value, size, above, others = 0.0, float(total), 0.0, 0.0
    for k in range(order.size):
        image, i = order[k] // pixels, order[k] % pixels
        if labels[image, i] == c:
            weight = 1.0 / (size + others)
            above += 1.0
        else:
            others += 1.0
            weight = (size - above) / ((size + others) * (size + others - 1.0))
        value += errors[image, c, i] * weight
        errors[image, c, i] = weight * factor
    for image in range(errors.shape[0]):
        for i in range(pixels):
            if labels[image, i] < 0:
                errors[image, c, i] = 0.0
    return value
