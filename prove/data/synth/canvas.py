"""What scenes are drawn on, colour, label, depth and emitted light in one, and the camera that projects onto it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
World = tuple[float, float, float]
RGB = tuple[int, int, int]
T = TypeVar("T")

SUPERSAMPLING = 2
VOID = 255
FAR_DM = 65535
"""Depth of the sky; depths are kept in decimetres."""

_NEAREST_M = 1.2
_SUBPIXEL_BITS = 4
_LIMIT = 40_000.0
_CIRCLE = tuple((math.cos(math.pi * k / 12), math.sin(math.pi * k / 12)) for k in range(24))


class Draw:
    """Random draws for one image; the stream depends on the seeds alone."""

    def __init__(self, *seeds: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seeds)))

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def integer(self, low: int, high: int) -> int:
        """A whole number in low..high, both included."""
        return int(self._generator.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return float(self._generator.random()) < probability

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.integer(0, len(options) - 1)]

    def grid(self, height: int, width: int) -> npt.NDArray[np.uint8]:
        """Uniform bytes [height, width]."""
        return self._generator.integers(0, 256, (height, width), dtype=np.uint8)

    def tint(self, color: RGB, spread: int) -> RGB:
        """A colour near the given one: mostly lighter or darker, a little of another hue."""
        shift, hue = self.integer(-spread, spread), max(1, spread // 3)
        r, g, b = (min(255, max(0, k + shift + self.integer(-hue, hue))) for k in color)
        return r, g, b


@dataclass(frozen=True)
class Camera:
    """A pinhole camera looking down the street.

    World: x to the right from the road's middle, y up from the ground, z ahead, in metres.

    Args:
        width, height: of the canvas in pixels.
        focal: in pixels.
        horizon: its row.
        x, y: where the camera is.
        bend: how far the street curves sideways, in metres at z = 1 (grows with z squared).
    """

    width: int
    height: int
    focal: float
    horizon: float
    x: float
    y: float
    bend: float

    def project(self, point: World) -> Point:
        """Canvas position of a world point; points behind the near plane are moved onto it."""
        x, y, z = point
        z = max(z, _NEAREST_M)
        u = self.width / 2 + self.focal * (x - self.x + self.bend * z * z) / z
        v = self.horizon + self.focal * (self.y - y) / z
        return u, v

    def size(self, metres: float, z: float) -> float:
        """Length in pixels of something at distance z."""
        return self.focal * metres / max(z, _NEAREST_M)


class Canvas:
    """Colour [H, W, 3], label [H, W], depth [H, W] in decimetres and emitted light [H, W, 3], all drawn on together.

    Args:
        height, width: of the final image; the canvas is `SUPERSAMPLING` times larger.
    """

    def __init__(self, height: int, width: int) -> None:
        shape = (height * SUPERSAMPLING, width * SUPERSAMPLING)
        self.color = np.zeros((*shape, 3), dtype=np.uint8)
        self.light = np.zeros((*shape, 3), dtype=np.uint8)
        self.label = np.full(shape, VOID, dtype=np.uint8)
        self.depth = np.full(shape, FAR_DM, dtype=np.uint16)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in canvas pixels."""
        return self.label.shape[0], self.label.shape[1]

    def polygon(
        self, points: Sequence[Point], color: RGB | None, label: int | None, z: float = 0.0, light: RGB = (0, 0, 0)
    ) -> None:
        """Fill a polygon that any horizontal line enters and leaves once at most, such as a convex one.

        `cv2.fillPoly` could fill others, but to different pixels in OpenCV 4 and 5.

        Args:
            color: None for what is seen through: only label and depth change.
            label: None for a detail on what is there: label and depth stay.
        """
        shape = np.clip(np.array(points, dtype=np.float64), -_LIMIT, _LIMIT) * (1 << _SUBPIXEL_BITS)
        fixed = np.rint(shape).astype(np.int32)
        if color is not None:
            cv2.fillConvexPoly(self.color, fixed, color, cv2.LINE_8, _SUBPIXEL_BITS)
            cv2.fillConvexPoly(self.light, fixed, light, cv2.LINE_8, _SUBPIXEL_BITS)
        if label is not None:
            cv2.fillConvexPoly(self.label, fixed, label, cv2.LINE_8, _SUBPIXEL_BITS)
            cv2.fillConvexPoly(self.depth, fixed, min(int(z * 10), FAR_DM), cv2.LINE_8, _SUBPIXEL_BITS)

    def ellipse(
        self, at: Point, radii: Point, color: RGB | None, label: int | None, z: float = 0.0, light: RGB = (0, 0, 0)
    ) -> None:
        """Fill an upright ellipse."""
        points = [(at[0] + radii[0] * c, at[1] + radii[1] * s) for c, s in _CIRCLE]
        self.polygon(points, color, label, z, light)

    def dome(self, at: Point, radii: Point, color: RGB, label: int, z: float) -> None:
        """Fill the upper half of an ellipse."""
        points = [(at[0] + radii[0] * c, at[1] - radii[1] * abs(s)) for c, s in _CIRCLE[:13]]
        self.polygon(points, color, label, z)

    def line(
        self,
        start: Point,
        end: Point,
        width: float,
        color: RGB,
        label: int | None,
        z: float = 0.0,
        light: RGB = (0, 0, 0),
    ) -> None:
        """A straight bar; never thinner than a pixel of the final image."""
        half = max(width, SUPERSAMPLING) / 2
        dx, dy = end[0] - start[0], end[1] - start[1]
        norm = math.sqrt(dx * dx + dy * dy) or 1.0
        ox, oy = -dy / norm * half, dx / norm * half
        corners = [
            (start[0] + ox, start[1] + oy),
            (end[0] + ox, end[1] + oy),
            (end[0] - ox, end[1] - oy),
            (start[0] - ox, start[1] - oy),
        ]
        self.polygon(corners, color, label, z, light)

    def shade(self, points: Sequence[Point], percent: int) -> None:
        """Darken what is inside a polygon to a percentage."""
        height, width = self.shape
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        left, right = max(0, int(min(xs))), min(width, int(max(xs)) + 2)
        top, bottom = max(0, int(min(ys))), min(height, int(max(ys)) + 2)
        if left >= right or top >= bottom:
            return
        mask = np.zeros((bottom - top, right - left), dtype=np.uint8)
        local = np.clip(np.array(points) - (left, top), -_LIMIT, _LIMIT)
        cv2.fillConvexPoly(mask, np.rint(local).astype(np.int32), 1)
        region = self.color[top:bottom, left:right]
        darker = (region.astype(np.uint16) * percent // 100).astype(np.uint8)
        np.copyto(region, darker, where=mask[..., None] > 0)


def circle_on(axis: float) -> list[tuple[float, float]]:
    """Points of a circle of radius `axis` around the origin."""
    return [(axis * c, axis * s) for c, s in _CIRCLE]


def darker(color: RGB, percent: int) -> RGB:
    """A colour scaled to a percentage, at most 255."""
    r, g, b = (min(255, k * percent // 100) for k in color)
    return r, g, b
