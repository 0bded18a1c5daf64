"""What has an engine and four or more wheels."""

from __future__ import annotations

from dataclasses import dataclass

from prove.data.synth.canvas import RGB, Camera, Canvas, Draw, Point, World, circle_on, darker
from prove.data.synth.palette import BUS, CAR, GLASS, HEADLIGHT, TAILLIGHT, TRAIN, TRUCK, TYRE

_PLATE = (214, 214, 206)


@dataclass(frozen=True)
class Placement:
    """Where a vehicle stands, in metres.

    Args:
        x, z: middle of its near end; `z` is the nearer one for a vehicle that crosses the street.
        across: it crosses the street, and is seen from the side.
        oncoming: it faces the camera (or, across, it heads right).
        lights: its lamps are on.
    """

    x: float
    z: float
    across: bool = False
    oncoming: bool = False
    lights: bool = False


@dataclass(frozen=True)
class _Body:
    """A vehicle as a profile (share of length, height) with a width, drawn as side, top and end."""

    canvas: Canvas
    camera: Camera
    at: Placement
    length: float
    width: float

    @property
    def side_x(self) -> float:
        """The side that the camera sees."""
        return self.at.x + (self.width / 2 if self.at.x < self.camera.x else -self.width / 2)

    def side(self, s: float, y: float) -> Point:
        """Project a point of the visible side: s from its near end (or, across, its left) in shares of the length."""
        if self.at.across:
            return self.camera.project((self.at.x + (s - 0.5) * self.length, y, self.at.z))
        return self.camera.project((self.side_x, y, self.at.z + s * self.length))

    def end(self, side: float, y: float, s: float = 0.0) -> Point:
        """Project a point of the near end: side from -1 to 1, set back by a share of the length."""
        return self.camera.project((self.at.x + side * self.width / 2, y, self.at.z + s * self.length))

    def shadow(self) -> None:
        x, z, w = self.at.x, self.at.z, self.width / 2
        long = (self.length / 2, self.width) if self.at.across else (w + 0.15, self.length)
        corners: tuple[World, ...] = (
            (x - long[0], 0, z - 0.2),
            (x + long[0], 0, z - 0.2),
            (x + long[0], 0, z + long[1]),
            (x - long[0], 0, z + long[1]),
        )
        self.canvas.shade([self.camera.project(p) for p in corners], 45)

    def wheels(self, radius: float, shares: tuple[float, ...], label: int) -> None:
        z = self.at.z
        for share in shares:
            for r, color in ((radius, TYRE), (radius * 0.55, (120, 122, 124))):
                points = [self.side(share + a / self.length, radius + b) for a, b in circle_on(r)]
                self.canvas.polygon(points, color, label if r == radius else None, z)
        if not self.at.across:
            for sign in (-1, 1):
                tyre = [
                    self.end(sign * 0.92, 0),
                    self.end(sign * 0.92, radius),
                    self.end(sign * 0.66, radius),
                    self.end(sign * 0.66, 0),
                ]
                self.canvas.polygon(tyre, TYRE, label, z)

    def lamps(self, y: float, size: float) -> None:
        at, px = self.at, max(self.camera.size(size, self.at.z), 1.5)
        ahead = HEADLIGHT if at.oncoming else TAILLIGHT
        if at.across:
            front = 0.99 if at.oncoming else 0.01
            spots = ((self.side(front, y), HEADLIGHT), (self.side(1 - front, y), TAILLIGHT))
        else:
            spots = ((self.end(-0.8, y), ahead), (self.end(0.8, y), ahead))
        for spot, color in spots:
            light = color if at.lights else (0, 0, 0)
            self.canvas.ellipse(spot, (px, px * 0.75), color if at.lights else darker(color, 74), None, light=light)


def draw_car(canvas: Canvas, camera: Camera, draw: Draw, at: Placement, paint: RGB) -> None:
    """A saloon, estate or van."""
    van = draw.chance(0.22)
    length, width = draw.between(4.0, 4.8), draw.between(1.72, 1.9)
    roof = draw.between(1.75, 2.0) if van else draw.between(1.4, 1.55)
    waist, low = 0.62 * roof, 0.25
    body = _Body(canvas, camera, at, length, width)
    body.shadow()
    rear = (0.02, 0.1) if van or draw.chance(0.4) else (0.14, 0.28)
    front = (0.72, 0.88)
    flip = at.oncoming != at.across
    a, b, c, d = (1 - front[1], 1 - front[0], 1 - rear[1], 1 - rear[0]) if flip else (*rear, *front)
    profile = [
        (0, low),
        (0, waist),
        (a, waist + 0.06),
        (b, roof),
        (c, roof),
        (d, waist + 0.04),
        (1, waist - 0.06),
        (1, low),
    ]
    z = at.z
    canvas.polygon([body.side(s, y) for s, y in profile], darker(paint, 84), CAR, z)
    glass = [(a + 0.04, waist + 0.06), (b + 0.02, roof - 0.1), (c - 0.02, roof - 0.1), (d - 0.04, waist + 0.06)]
    canvas.polygon([body.side(s, y) for s, y in glass], GLASS, None)
    pillar = (b + c) / 2
    canvas.polygon(
        [body.side(pillar + e, y) for e, y in ((0, waist), (0, roof), (0.02, roof), (0.02, waist))],
        darker(paint, 70),
        None,
    )
    body.wheels(0.32, (0.19, 0.81), CAR)
    if not at.across:
        canvas.polygon(
            [body.end(-0.86, roof, b), body.end(0.86, roof, b), body.end(0.86, roof, c), body.end(-0.86, roof, c)],
            darker(paint, 112),
            CAR,
            z,
        )
        deck = [
            body.end(-1, waist),
            body.end(1, waist),
            body.end(0.95, waist + 0.06, a),
            body.end(-0.95, waist + 0.06, a),
        ]
        canvas.polygon(deck, darker(paint, 108), CAR, z)
        canvas.polygon(
            [body.end(-0.95, waist, a), body.end(-0.8, roof, b), body.end(0.8, roof, b), body.end(0.95, waist, a)],
            darker(paint, 96),
            CAR,
            z,
        )
        canvas.polygon(
            [
                body.end(-0.84, waist + 0.08, a),
                body.end(-0.72, roof - 0.08, b),
                body.end(0.72, roof - 0.08, b),
                body.end(0.84, waist + 0.08, a),
            ],
            GLASS,
            None,
        )
        canvas.polygon([body.end(-1, low), body.end(-1, waist), body.end(1, waist), body.end(1, low)], paint, CAR, z)
        canvas.polygon(
            [body.end(-1, low), body.end(-1, low + 0.2), body.end(1, low + 0.2), body.end(1, low)],
            darker(paint, 50),
            None,
        )
        canvas.polygon(
            [body.end(-0.25, 0.5), body.end(-0.25, 0.62), body.end(0.25, 0.62), body.end(0.25, 0.5)], _PLATE, None
        )
    body.lamps(waist - 0.16, 0.14)


def _box(
    body: _Body, low: float, top: float, paint: RGB, label: int, *, span: tuple[float, float] = (0.0, 1.0)
) -> None:
    """A box between two shares of the length: its side, roof and near end."""
    a, b = span
    z = body.at.z
    side = [(a, low), (a, top), (b, top), (b, low)]
    body.canvas.polygon([body.side(s, y) for s, y in side], darker(paint, 84), label, z)
    if not body.at.across:
        end = [body.end(-1, low, a), body.end(-1, top, a), body.end(1, top, a), body.end(1, low, a)]
        body.canvas.polygon(end, paint, label, z)


def _window_band(body: _Body, low: float, high: float, count: int, span: tuple[float, float], lit: bool) -> None:
    pane, light = ((226, 204, 150), (96, 78, 44)) if lit else (GLASS, (0, 0, 0))
    step = (span[1] - span[0]) / count
    for k in range(count):
        a, b = span[0] + step * (k + 0.08), span[0] + step * (k + 0.92)
        points = [body.side(s, y) for s, y in ((a, low), (a, high), (b, high), (b, low))]
        body.canvas.polygon(points, pane, None, light=light)


def draw_bus(canvas: Canvas, camera: Camera, draw: Draw, at: Placement, paint: RGB) -> None:
    """A city bus."""
    body = _Body(canvas, camera, at, draw.between(9.5, 12.5), 2.5)
    body.shadow()
    _box(body, 0.35, 3.1, paint, BUS)
    _window_band(body, 1.3, 2.6, 7, (0.03, 0.97), at.lights)
    body.wheels(0.48, (0.16, 0.8), BUS)
    if not at.across:
        glass = [body.end(-0.9, 1.25), body.end(-0.9, 2.6), body.end(0.9, 2.6), body.end(0.9, 1.25)]
        canvas.polygon(glass, GLASS, None)
        number = [body.end(-0.4, 2.7), body.end(-0.4, 3.0), body.end(0.4, 3.0), body.end(0.4, 2.7)]
        canvas.polygon(number, (240, 190, 60), None, light=(200, 140, 30) if at.lights else (0, 0, 0))
        canvas.polygon(
            [body.end(-1, 0.35), body.end(-1, 0.55), body.end(1, 0.55), body.end(1, 0.35)], darker(paint, 50), None
        )
    body.lamps(0.85, 0.16)


def draw_truck(canvas: Canvas, camera: Camera, draw: Draw, at: Placement, paint: RGB) -> None:
    """A lorry: a cab and a cargo box."""
    body = _Body(canvas, camera, at, draw.between(7.5, 10.5), 2.45)
    body.shadow()
    cab = draw.tint((180, 60, 50) if draw.chance(0.4) else (200, 200, 198), 20)
    cab_first = at.oncoming != at.across
    cab_span, box_span = ((0.0, 0.24), (0.27, 1.0)) if cab_first else ((0.76, 1.0), (0.0, 0.73))
    top = draw.between(3.0, 3.7)
    _box(body, 0.6, 1.0, (40, 40, 42), TRUCK)
    for span, low, high, color in sorted(((cab_span, 0.5, 2.6, cab), (box_span, 0.9, top, paint)), reverse=True):
        _box(body, low, high, color, TRUCK, span=span)
    glass = [(cab_span[0] + 0.05, 1.6), (cab_span[0] + 0.05, 2.4), (cab_span[1] - 0.05, 2.4), (cab_span[1] - 0.05, 1.6)]
    canvas.polygon([body.side(s, y) for s, y in glass], GLASS, None)
    ribs = 6
    for k in range(1, ribs):
        s = box_span[0] + (box_span[1] - box_span[0]) * k / ribs
        canvas.polygon(
            [body.side(s + e, y) for e, y in ((0, 0.95), (0, top - 0.1), (0.006, top - 0.1), (0.006, 0.95))],
            darker(paint, 68),
            None,
        )
    body.wheels(0.5, (0.14, 0.66, 0.84) if cab_first else (0.16, 0.34, 0.86), TRUCK)
    if not at.across:
        if cab_first:
            canvas.polygon(
                [body.end(-0.88, 1.5), body.end(-0.88, 2.45), body.end(0.88, 2.45), body.end(0.88, 1.5)], GLASS, None
            )
        else:
            canvas.line(body.end(0, 1.0), body.end(0, top - 0.1), camera.size(0.05, at.z), darker(paint, 60), None)
        canvas.polygon([body.end(-1, 0.5), body.end(-1, 0.75), body.end(1, 0.75), body.end(1, 0.5)], (50, 50, 52), None)
    body.lamps(0.7, 0.14)


def draw_tram(canvas: Canvas, camera: Camera, draw: Draw, at: Placement, paint: RGB) -> None:
    """A tram, which Cityscapes labels as train."""
    body = _Body(canvas, camera, at, draw.between(20, 28), 2.5)
    body.shadow()
    _box(body, 0.25, 3.5, (222, 222, 216), TRAIN)
    z = at.z
    canvas.polygon([body.side(s, y) for s, y in ((0, 0.3), (0, 1.3), (1, 1.3), (1, 0.3))], darker(paint, 88), None)
    _window_band(body, 1.5, 2.8, 12, (0.02, 0.98), at.lights)
    for joint in (0.33, 0.66):
        canvas.polygon(
            [body.side(joint + e, y) for e, y in ((0, 0.3), (0, 3.4), (0.012, 3.4), (0.012, 0.3))], (50, 50, 54), None
        )
    if at.across:
        canvas.polygon([body.side(s, y) for s, y in ((0, 0.02), (0, 0.3), (1, 0.3), (1, 0.02))], (44, 44, 46), TRAIN, z)
    else:
        canvas.polygon([body.end(-1, 0.25), body.end(-1, 1.3), body.end(1, 1.3), body.end(1, 0.25)], paint, None)
        canvas.polygon(
            [body.end(-0.85, 1.45), body.end(-0.8, 2.9), body.end(0.8, 2.9), body.end(0.85, 1.45)], GLASS, None
        )
        number = [body.end(-0.35, 3.02), body.end(-0.35, 3.36), body.end(0.35, 3.36), body.end(0.35, 3.02)]
        canvas.polygon(number, (250, 200, 70), None, light=(200, 150, 40) if at.lights else (0, 0, 0))
        canvas.polygon(
            [body.end(-0.95, 0.05), body.end(-0.95, 0.25), body.end(0.95, 0.25), body.end(0.95, 0.05)],
            (40, 40, 42),
            TRAIN,
            z,
        )
    body.lamps(0.9, 0.14)
