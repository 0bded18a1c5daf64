"""What stands still: houses, walls, fences, trees, poles, lights, signs."""

from __future__ import annotations

from prove.data.synth.canvas import RGB, VOID, Camera, Canvas, Draw, Point, darker
from prove.data.synth.palette import (
    BUILDING,
    FACADES,
    FENCE,
    GLASS,
    LAMP_LIGHT,
    LEAVES,
    METAL,
    POLE,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    VEGETATION,
    WALL,
)

_LIT_WINDOW = (232, 186, 112)
_WINDOW_LIGHT = (112, 84, 46)


def draw_house(
    canvas: Canvas,
    camera: Camera,
    draw: Draw,
    side: int,
    z: tuple[float, float],
    setback: float,
    height: float,
    lit: tuple[float, float],
) -> None:
    """A house along the street.

    Args:
        side: +1 right, -1 left of the street.
        z: where its facade begins and ends.
        setback: distance of the facade from the road's middle.
        lit: share of windows with light behind them, as the street is drawn and as it is seen; the first decides what
            is drawn from `draw`, so that a house stands the same by day and by night.
    """
    near, far = max(z[0], 1.5), z[1]
    paint = draw.tint(draw.pick(FACADES), 14)
    x, deep = side * setback, side * (setback + 14)
    gable = height + (draw.between(1.5, 3.5) if draw.chance(0.4) else 0.0)
    front = [(deep, 0.0, near), (deep, height, near), ((x + deep) / 2, gable, near), (x, height, near), (x, 0.0, near)]
    canvas.polygon([camera.project(p) for p in front], darker(paint, 82), BUILDING, near)

    def facade(a: float, b: float, low: float, high: float) -> list[Point]:
        return [camera.project(p) for p in ((x, low, a), (x, high, a), (x, high, b), (x, low, b))]

    canvas.polygon(facade(near, far, 0, height), paint, BUILDING, near)
    canvas.polygon(facade(near, far, 0, 0.5), darker(paint, 70), None)
    canvas.polygon(facade(near, far, height - 0.3, height), darker(paint, 60), None)
    floors = max(1, int(height / 3.1))
    columns = max(1, int((far - near) / draw.between(2.4, 3.4)))
    pane = draw.tint(GLASS, 12)
    shop = draw.chance(0.5)
    for floor in range(floors):
        for column in range(columns):
            a, b = near + (far - near) * (column + 0.22) / columns, near + (far - near) * (column + 0.78) / columns
            low = floor * 3.1 + (0.4 if floor == 0 and shop else 1.0)
            if camera.size(1.6, b) < 2:
                continue
            chance = draw.between(0, 1)
            glass = pane if chance < lit[0] else draw.tint(pane, 6)
            color, light = (_LIT_WINDOW, _WINDOW_LIGHT) if chance < lit[1] else (glass, (0, 0, 0))
            if camera.size(1.6, b) > 14:
                canvas.polygon(facade(a - 0.12, b + 0.12, low - 0.12, low + 1.8), darker(paint, 118), None)
            canvas.polygon(facade(a, b, low, low + 1.65), color, None, light=light)
    if camera.size(1, near) > 6:
        _front_windows(canvas, camera, draw, (min(x, deep), max(x, deep)), near, floors, pane, lit[1])


def _front_windows(
    canvas: Canvas, camera: Camera, draw: Draw, x: tuple[float, float], z: float, floors: int, pane: RGB, lit: float
) -> None:
    for floor in range(floors):
        for k in range(3):
            left = x[0] + (x[1] - x[0]) * (k + 0.3) / 3
            low = floor * 3.1 + 1.0
            corners = ((left, low, z), (left, low + 1.6, z), (left + 1.6, low + 1.6, z), (left + 1.6, low, z))
            is_lit = draw.chance(lit)
            color, light = (_LIT_WINDOW, _WINDOW_LIGHT) if is_lit else (pane, (0, 0, 0))
            canvas.polygon([camera.project(p) for p in corners], color, None, light=light)


def draw_skyline(canvas: Canvas, camera: Camera, draw: Draw, z: float) -> None:
    """Hills, trees and towers where the street ends."""
    width = canvas.shape[1]
    left = 0.0
    while left < width:
        step = draw.between(0.02, 0.08) * width
        green = draw.chance(0.6)
        top = camera.horizon - camera.size(draw.between(5, 14) if green else draw.between(10, 34), z)
        if green:
            leaf = draw.tint(draw.pick(LEAVES), 10)
            middle = (left + step / 2, camera.horizon + 2)
            canvas.dome(middle, (step, camera.horizon + 2 - top), leaf, VEGETATION, z)
        else:
            box = [(left, camera.horizon + 2), (left, top), (left + step, top), (left + step, camera.horizon + 2)]
            canvas.polygon(box, draw.tint((132, 136, 142), 14), BUILDING, z)
        left += step * 0.9


def draw_barrier(
    canvas: Canvas, camera: Camera, draw: Draw, x: float, z: tuple[float, float], height: float, fence: bool
) -> None:
    """A wall or a fence along the street. Fences are see-through, and labelled as a whole, as annotators do."""
    near, far = max(z[0], 1.5), z[1]

    def panel(a: float, b: float, low: float, high: float) -> list[Point]:
        return [camera.project(p) for p in ((x, low, a), (x, high, a), (x, high, b), (x, low, b))]

    if not fence:
        paint = draw.tint((150, 140, 130), 26)
        canvas.polygon(panel(near, far, 0, height), paint, WALL, near)
        canvas.polygon(panel(near, far, height - 0.12, height), darker(paint, 125), None)
        rows = int(height / 0.35)
        for k in range(1, rows):
            if camera.size(0.35, near) > 4:
                canvas.polygon(panel(near, far, k * 0.35, k * 0.35 + 0.04), darker(paint, 84), None)
        return
    paint = draw.tint(METAL, 24)
    canvas.polygon(panel(near, far, 0, height), None, FENCE, near)
    for low in (0.15, height * 0.5, height - 0.08):
        canvas.polygon(panel(near, far, low, low + 0.08), paint, None)
    bars = int(min(120, (far - near) / 0.35))
    for k in range(bars + 1):
        z_bar = near + (far - near) * k / max(bars, 1)
        wide = 0.07 if k % 6 else 0.14
        if camera.size(wide, z_bar) > 0.8:
            canvas.polygon(panel(z_bar, z_bar + wide * 2, 0, height), paint, None)


def draw_tree(canvas: Canvas, camera: Camera, draw: Draw, x: float, z: float, height: float) -> None:
    """A trunk and a crown of leaf clusters, both vegetation."""
    trunk = draw.tint((78, 62, 48), 10)
    foot, fork = camera.project((x, 0, z)), camera.project((x, height * 0.5, z))
    canvas.line(foot, fork, camera.size(0.28, z), trunk, VEGETATION, z)
    leaf = draw.tint(draw.pick(LEAVES), 14)
    radius = height * 0.3
    clusters = 16
    for k in range(clusters):
        dx, dy = draw.between(-radius, radius), draw.between(-0.26, 0.3) * height
        at = camera.project((x + dx, height * 0.68 + dy, z))
        size = camera.size(radius * draw.between(0.35, 0.6), z)
        shade = 76 + 40 * k // clusters + (14 if dy > 0 else -8)
        canvas.ellipse(at, (size, size * 0.85), darker(leaf, shade), VEGETATION, z)


def draw_hedge(canvas: Canvas, camera: Camera, draw: Draw, x: float, z: tuple[float, float], height: float) -> None:
    """A row of bushes."""
    leaf = draw.tint(draw.pick(LEAVES), 12)
    steps = max(3, int((z[1] - z[0]) / 0.7))
    for k in range(steps, -1, -1):
        at_z = max(1.5, z[0] + (z[1] - z[0]) * k / steps)
        tall = height * draw.between(0.8, 1.15)
        at = camera.project((x + draw.between(-0.2, 0.2), tall / 2, at_z))
        radii = (camera.size(0.55, at_z), camera.size(tall / 2, at_z))
        canvas.ellipse(at, radii, darker(leaf, draw.integer(76, 116)), VEGETATION, at_z)


def draw_pole(canvas: Canvas, camera: Camera, x: float, z: float, height: float, thick: float = 0.14) -> Point:
    """An upright pole; returns its top on the canvas."""
    foot, top = camera.project((x, 0, z)), camera.project((x, height, z))
    canvas.line(foot, top, camera.size(thick, z), METAL, POLE, z)
    return top


def draw_lamp(canvas: Canvas, camera: Camera, x: float, z: float, height: float, is_on: bool) -> None:
    """A street lamp whose arm reaches over the road."""
    top = draw_pole(canvas, camera, x, z, height)
    reach = -1.6 if x > 0 else 1.6
    tip = camera.project((x + reach, height + 0.25, z))
    canvas.line(top, tip, camera.size(0.1, z), METAL, POLE, z)
    glow = LAMP_LIGHT if is_on else (0, 0, 0)
    size = camera.size(0.32, z)
    canvas.ellipse(tip, (size, size * 0.45), LAMP_LIGHT if is_on else (150, 150, 146), POLE, z, glow)


def draw_traffic_light(canvas: Canvas, camera: Camera, draw: Draw, x: float, z: float) -> None:
    """A pole with a three-lamp head, and sometimes a second one over the road."""
    top = draw_pole(canvas, camera, x, z, 3.6)
    heads = [(x, 3.3)]
    if draw.chance(0.5):
        reach = -3.0 if x > 0 else 3.0
        arm = camera.project((x + reach, 5.2, z))
        canvas.line(top, camera.project((x, 5.2, z)), camera.size(0.14, z), METAL, POLE, z)
        canvas.line(camera.project((x, 5.2, z)), arm, camera.size(0.12, z), METAL, POLE, z)
        heads.append((x + reach, 5.0))
    burning = draw.integer(0, 2)
    for at_x, at_y in heads:
        _signal_head(canvas, camera, at_x, at_y, z, burning)


def _signal_head(canvas: Canvas, camera: Camera, x: float, y: float, z: float, burning: int) -> None:
    u, v = camera.project((x, y, z))
    half, tall = max(camera.size(0.24, z), 2.0), max(camera.size(0.62, z), 5.0)
    canvas.polygon(
        [(u - half, v - tall), (u + half, v - tall), (u + half, v + tall), (u - half, v + tall)],
        (28, 30, 30),
        TRAFFIC_LIGHT,
        z,
    )
    lamps = ((240, 40, 34), (248, 176, 40), (40, 214, 110))
    for k, lamp in enumerate(lamps):
        on = k == burning
        at = (u, v + (k - 1) * tall * 0.62)
        size = half * 0.62
        canvas.ellipse(at, (size, size), lamp if on else darker(lamp, 24), None, light=lamp if on else (0, 0, 0))


def draw_sign(canvas: Canvas, camera: Camera, draw: Draw, x: float, z: float) -> None:
    """A traffic sign on its pole: round, triangular, square or a large board."""
    kind = draw.integer(0, 4)
    height = 2.4 if kind < 4 else 3.4
    draw_pole(canvas, camera, x, z, height + 0.2, 0.09)
    u, v = camera.project((x, height, z))
    s = max(camera.size(0.42, z), 3.5)
    if kind == 0:
        canvas.ellipse((u, v), (s, s), (200, 30, 34), TRAFFIC_SIGN, z)
        canvas.ellipse((u, v), (s * 0.7, s * 0.7), (236, 236, 232), None)
    elif kind == 1:
        canvas.polygon([(u, v - s), (u + s, v + s * 0.8), (u - s, v + s * 0.8)], (204, 34, 34), TRAFFIC_SIGN, z)
        canvas.polygon(
            [(u, v - s * 0.5), (u + s * 0.58, v + s * 0.52), (u - s * 0.58, v + s * 0.52)], (240, 238, 226), None
        )
    elif kind == 2:
        canvas.polygon([(u - s, v - s), (u + s, v - s), (u + s, v + s), (u - s, v + s)], (32, 80, 170), TRAFFIC_SIGN, z)
        canvas.polygon(
            [(u, v - s * 0.6), (u + s * 0.5, v + s * 0.5), (u - s * 0.5, v + s * 0.5)], (236, 236, 236), None
        )
    elif kind == 3:
        canvas.polygon([(u, v - s), (u + s, v), (u, v + s), (u - s, v)], (236, 232, 220), TRAFFIC_SIGN, z)
        canvas.polygon([(u, v - s * 0.7), (u + s * 0.7, v), (u, v + s * 0.7), (u - s * 0.7, v)], (240, 190, 30), None)
    else:
        board = [
            (u - 2.4 * s, v - 1.1 * s),
            (u + 2.4 * s, v - 1.1 * s),
            (u + 2.4 * s, v + 1.1 * s),
            (u - 2.4 * s, v + 1.1 * s),
        ]
        canvas.polygon(board, (36, 96, 64) if draw.chance(0.5) else (230, 200, 60), TRAFFIC_SIGN, z)
        canvas.line((u - 1.8 * s, v - 0.4 * s), (u + 1.6 * s, v - 0.4 * s), s * 0.24, (236, 236, 232), None)
        canvas.line((u - 1.8 * s, v + 0.4 * s), (u + 0.9 * s, v + 0.4 * s), s * 0.24, (236, 236, 232), None)


def draw_bin(canvas: Canvas, camera: Camera, draw: Draw, x: float, z: float) -> None:
    """A litter bin, box or meter: no class of the 19, so it is ignored."""
    wide, tall = draw.between(0.3, 0.6), draw.between(0.7, 1.2)
    paint = draw.tint(draw.pick(((60, 70, 60), (150, 110, 60), (70, 74, 84))), 12)
    corners = ((x - wide, 0, z), (x - wide, tall, z), (x + wide, tall, z), (x + wide, 0, z))
    canvas.polygon([camera.project(p) for p in corners], paint, VOID, z)
    lid = ((x - wide, tall - 0.12, z), (x - wide, tall, z), (x + wide, tall, z), (x + wide, tall - 0.12, z))
    canvas.polygon([camera.project(p) for p in lid], darker(paint, 70), None)
