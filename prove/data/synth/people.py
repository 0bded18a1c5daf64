"""People, bicycles, motorcycles, and the people on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prove.data.synth.canvas import Camera, Canvas, Draw, Point, circle_on, darker
from prove.data.synth.palette import (
    BICYCLE,
    CLOTHES,
    HEADLIGHT,
    MOTORCYCLE,
    PERSON,
    RIDER,
    SKINS,
    TAILLIGHT,
    TYRE,
)

# Directions as exact (across, along) pairs: no sine or cosine.
HEADINGS = ((1.0, 0.0), (0.8, 0.6), (0.6, 0.8), (-0.8, 0.6), (-0.6, 0.8), (-1.0, 0.0), (0.28, 0.96))


@dataclass(frozen=True)
class _Side:
    """The plane of a two-wheeler: s along it (0 in its middle), y up."""

    camera: Camera
    x: float
    z: float
    heading: tuple[float, float]

    def __call__(self, s: float, y: float) -> Point:
        return self.camera.project((self.x + s * self.heading[0], y, self.z + s * self.heading[1]))


def draw_person(canvas: Canvas, camera: Camera, draw: Draw, x: float, z: float) -> None:
    """Someone who walks or stands. What they carry is labelled as they are, as Cityscapes does."""
    tall = draw.between(1.15, 1.35) if draw.chance(0.12) else draw.between(1.58, 1.9)
    top, legs = draw.tint(draw.pick(CLOTHES), 14), draw.tint(draw.pick(CLOTHES), 14)
    skin, stride = draw.pick(SKINS), draw.between(0.02, 0.26)
    swing = draw.pick((-1, 1))

    def at(dx: float, y: float) -> Point:
        return camera.project((x + dx * tall / 1.75, y * tall / 1.75, z))

    def limb(a: tuple[float, float], b: tuple[float, float], wide: float, color: tuple[int, int, int]) -> None:
        canvas.line(at(*a), at(*b), camera.size(wide * tall / 1.75, z), color, PERSON, z)

    canvas.shade([at(-0.35, 0), at(0.35, 0), at(0.45, 0.06), at(-0.25, 0.06)], 60)
    limb((-0.06, 0.9), (-stride, 0.04), 0.15, darker(legs, 84))
    limb((0.06, 0.9), (stride, 0.04), 0.15, legs)
    limb((0.19 * swing, 1.4), (0.19 * swing + stride * 0.8, 0.85), 0.1, darker(top, 78))
    coat = 0.62 if draw.chance(0.3) else 0.86
    canvas.polygon([at(-0.22, 1.45), at(0.22, 1.45), at(0.2, coat), at(-0.2, coat)], top, PERSON, z)
    limb((-0.2 * swing, 1.4), (-0.2 * swing - stride * 0.8, 0.85), 0.1, darker(top, 112))
    limb((0, 1.44), (0, 1.55), 0.1, skin)
    head = (camera.size(0.11 * tall / 1.75, z), camera.size(0.14 * tall / 1.75, z))
    canvas.ellipse(at(0, 1.63), head, skin, PERSON, z)
    canvas.ellipse(at(0, 1.69), (head[0] * 1.05, head[1] * 0.6), draw.tint((52, 40, 32), 18), PERSON, z)
    if draw.chance(0.25):
        bag = [at(0.2 * swing, 1.05), at(0.4 * swing, 1.05), at(0.4 * swing, 0.75), at(0.2 * swing, 0.75)]
        canvas.polygon(bag, draw.tint((90, 60, 40), 20), PERSON, z)


def draw_bicycle(
    canvas: Canvas, camera: Camera, draw: Draw, x: float, z: float, heading: tuple[float, float], ridden: bool
) -> None:
    """A bicycle, with its rider or parked. The wheels' insides are labelled, as annotators do, but seen through."""
    side = _Side(camera, x, z, heading)
    frame = draw.tint(draw.pick(((180, 40, 40), (40, 60, 120), (50, 50, 52), (60, 130, 80), (200, 200, 200))), 16)
    for middle in (-0.52, 0.52):
        rim = [side(middle + a, 0.34 + b) for a, b in circle_on(0.34)]
        canvas.polygon(rim, None, BICYCLE, z)
        _outline(canvas, rim, camera.size(0.05, z), BICYCLE, z)
        _keep_width(canvas, side(middle, 0.0), side(middle, 0.68), camera.size(0.06, z), BICYCLE, z)
    hub, crank, seat, neck, front = (-0.52, 0.34), (-0.1, 0.32), (-0.18, 0.86), (0.4, 0.9), (0.52, 0.34)
    bars = ((hub, seat), (seat, neck), (neck, front), (crank, neck), (hub, crank), (neck, (0.38, 1.02)))
    for a, b in bars:
        canvas.line(side(*a), side(*b), camera.size(0.055, z), frame, BICYCLE, z)
    canvas.line(side(-0.3, 0.92), side(-0.06, 0.92), camera.size(0.08, z), (30, 30, 30), BICYCLE, z)
    if ridden:
        _draw_rider(canvas, camera, draw, side, z, seat=(-0.2, 0.95), hands=(0.38, 1.02), foot=(-0.05, 0.25))


def draw_motorcycle(
    canvas: Canvas,
    camera: Camera,
    draw: Draw,
    x: float,
    z: float,
    heading: tuple[float, float],
    ridden: bool,
    lights: bool,
) -> None:
    """A motorcycle or scooter, with its rider or parked."""
    side = _Side(camera, x, z, heading)
    paint = draw.tint(draw.pick(((170, 30, 30), (30, 30, 34), (40, 70, 140), (200, 150, 40))), 16)
    for middle in (-0.68, 0.68):
        tyre = [side(middle + a, 0.31 + b) for a, b in circle_on(0.31)]
        canvas.polygon(tyre, TYRE, MOTORCYCLE, z)
        canvas.polygon([side(middle + a, 0.31 + b) for a, b in circle_on(0.15)], (130, 130, 132), None)
        _keep_width(canvas, side(middle, 0.0), side(middle, 0.62), camera.size(0.16, z), MOTORCYCLE, z)
    seat = ((-0.75, 0.6), (-0.5, 0.82), (0.1, 0.78), (0.4, 0.4), (-0.4, 0.3))
    tank = ((0.1, 0.78), (0.35, 1.0), (0.5, 0.95), (0.4, 0.4))
    for part in (seat, tank):
        canvas.polygon([side(s, y) for s, y in part], paint, MOTORCYCLE, z)
    u, v = side(0, 0.35)
    half = max(camera.size(0.18, z), 1.5)
    canvas.polygon(
        [(u - half, v), (u + half, v), (u + half, v - camera.size(0.6, z)), (u - half, v - camera.size(0.6, z))],
        darker(paint, 80),
        MOTORCYCLE,
        z,
    )
    canvas.line(side(0.68, 0.31), side(0.4, 1.05), camera.size(0.08, z), (120, 120, 122), MOTORCYCLE, z)
    canvas.line(side(-0.55, 0.84), side(0.0, 0.84), camera.size(0.1, z), (28, 28, 30), MOTORCYCLE, z)
    lamp = camera.size(0.09, z)
    ends: tuple[tuple[tuple[float, float], tuple[int, int, int]], ...] = (
        ((0.56, 0.92), HEADLIGHT),
        ((-0.78, 0.66), TAILLIGHT),
    )
    for (s, y), color in ends:
        light = color if lights else (0, 0, 0)
        canvas.ellipse(side(s, y), (lamp, lamp), color if lights else darker(color, 70), None, light=light)
    if ridden:
        _draw_rider(canvas, camera, draw, side, z, seat=(-0.25, 0.88), hands=(0.36, 1.05), foot=(0.0, 0.3))


def _draw_rider(
    canvas: Canvas,
    camera: Camera,
    draw: Draw,
    side: Callable[[float, float], Point],
    z: float,
    seat: tuple[float, float],
    hands: tuple[float, float],
    foot: tuple[float, float],
) -> None:
    coat, legs, helmet = (draw.tint(draw.pick(CLOTHES), 16) for _ in range(3))
    hip, shoulder = side(*seat), side(seat[0] + 0.22, seat[1] + 0.55)
    knee, sole = side(seat[0] + 0.38, seat[1] - 0.28), side(*foot)
    canvas.line(hip, knee, camera.size(0.18, z), legs, RIDER, z)
    canvas.line(knee, sole, camera.size(0.14, z), darker(legs, 84), RIDER, z)
    canvas.line(hip, shoulder, camera.size(0.36, z), coat, RIDER, z)
    canvas.line(shoulder, side(*hands), camera.size(0.11, z), darker(coat, 80), RIDER, z)
    head = side(seat[0] + 0.3, seat[1] + 0.76)
    canvas.line(shoulder, head, camera.size(0.12, z), draw.pick(SKINS), RIDER, z)
    canvas.ellipse(head, (camera.size(0.13, z), camera.size(0.15, z)), draw.pick(SKINS), RIDER, z)
    canvas.ellipse(
        (head[0], head[1] - camera.size(0.05, z)), (camera.size(0.15, z), camera.size(0.12, z)), helmet, RIDER, z
    )


def _outline(canvas: Canvas, points: list[Point], width: float, label: int, z: float) -> None:
    for a, b in zip(points, [*points[1:], points[0]], strict=True):
        canvas.line(a, b, width, TYRE, label, z)


def _keep_width(canvas: Canvas, foot: Point, top: Point, width: float, label: int, z: float) -> None:
    """Seen end-on a wheel is a line; without this it would vanish."""
    if abs(top[1] - foot[1]) > 2:
        canvas.line(foot, top, min(width, abs(top[1] - foot[1]) / 3), TYRE, label, z)
