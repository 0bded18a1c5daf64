"""Which things stand where: a random street with everything on it, drawn from far to near."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from prove.data.synth import people, structures, vehicles
from prove.data.synth.canvas import RGB, SUPERSAMPLING, VOID, Camera, Canvas, Draw
from prove.data.synth.ground import Street, draw_ground, draw_sky
from prove.data.synth.palette import (
    BICYCLE,
    BUS,
    BUS_PAINTS,
    CAR_PAINTS,
    FENCE,
    MOTORCYCLE,
    PERSON,
    RIDER,
    TERRAIN,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    TRAIN,
    TRUCK,
    TRUCK_PAINTS,
    WALL,
)
from prove.data.synth.vehicles import Placement

RARE = (WALL, FENCE, TRAFFIC_LIGHT, TRAFFIC_SIGN, TERRAIN, PERSON, RIDER, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE)
"""Classes that a random street may lack; every image is made to show some of them."""

# condition: sky above, sky at the horizon, cloud cover in percent, cloud colour
_SKIES: dict[str, tuple[RGB, RGB, int, RGB]] = {
    "clear_day": ((84, 136, 204), (188, 212, 232), 30, (244, 246, 248)),
    "cloudy": ((150, 158, 168), (196, 200, 204), 75, (214, 216, 220)),
    "dawn_dusk": ((92, 96, 140), (250, 176, 110), 45, (230, 140, 120)),
    "foggy": ((186, 190, 192), (200, 202, 204), 20, (206, 208, 210)),
    "rainy": ((110, 116, 124), (160, 166, 172), 80, (134, 138, 146)),
    "snowy": ((176, 182, 190), (210, 214, 220), 70, (222, 226, 230)),
    "night": ((14, 18, 34), (44, 42, 56), 40, (30, 32, 46)),
}
_LAMPS_ON = ("night", "dawn_dusk", "rainy", "foggy")
_LIT_WINDOWS = {"night": 0.26, "dawn_dusk": 0.18, "rainy": 0.08, "foggy": 0.05}


@dataclass
class _Scene:
    canvas: Canvas
    camera: Camera
    street: Street
    draw: Draw
    shown: frozenset[int]
    dark: bool
    lamps: bool
    things: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def add(self, z: float, paint: Callable[[], None]) -> None:
        self.things.append((z, paint))

    def wanted(self, train_id: int, probability: float) -> bool:
        """Whether to show a class: always if this image has to, else by chance."""
        return self.draw.chance(probability) or train_id in self.shown

    def lane(self, side: int) -> float:
        """The middle of the lane on one side of the road."""
        return side * self.street.half * 0.46


def draw_scene(
    height: int, width: int, condition: str, shown: frozenset[int], draw: Draw, seen: str | None = None
) -> tuple[Canvas, Camera]:
    """Draw one street in flat light; `prove.data.synth.weather` relights it.

    Args:
        height, width: of the final image.
        condition: decides, with `draw`, what stands where.
        shown: train ids out of `RARE` that must be there.
        seen: the condition whose sky, windows and lamps it has; everything stands where it stands in `condition`.
    """
    seen = condition if seen is None else seen
    canvas = Canvas(height, width)
    street = _plan(draw, shown)
    camera = Camera(
        width * SUPERSAMPLING,
        height * SUPERSAMPLING,
        focal=width * SUPERSAMPLING * draw.between(0.55, 0.72),
        horizon=height * SUPERSAMPLING * draw.between(0.42, 0.5),
        x=street.half * 0.46 + draw.between(-0.3, 0.3),
        y=draw.between(1.35, 1.75),
        bend=draw.between(-0.0016, 0.0016),
    )
    scene = _Scene(canvas, camera, street, draw, shown, seen in ("night", "dawn_dusk"), seen in _LAMPS_ON)
    top, bottom, clouds, cloud = _SKIES[seen]
    draw_sky(
        canvas, camera.horizon, draw.tint(top, 10), draw.tint(bottom, 8), clouds + draw.integer(-15, 15), cloud, draw
    )
    draw_ground(canvas, camera, street, draw)
    structures.draw_skyline(canvas, camera, draw, 140)
    _houses(scene, (_LIT_WINDOWS.get(condition, 0.0), _LIT_WINDOWS.get(seen, 0.0)))
    for side in (-1, 1):
        _roadside(scene, side)
        _pavement(scene, side)
    _traffic(scene)
    for _, paint in sorted(scene.things, key=lambda thing: -thing[0]):
        paint()
    if draw.chance(0.6):
        _ego_hood(canvas, draw)
    return canvas, camera


def _plan(draw: Draw, shown: frozenset[int]) -> Street:
    half = draw.between(4.0, 6.4)
    left, right = draw.between(1.8, 3.6), draw.between(1.8, 3.6)
    green = draw.chance(0.35) or TERRAIN in shown
    crossing = None
    if draw.chance(0.4):
        start = draw.between(16, 34)
        crossing = (start, start + draw.between(6, 9))
    zebra = crossing[0] - 4.2 if crossing and draw.chance(0.7) else (draw.between(7, 22) if draw.chance(0.2) else None)
    return Street(
        half,
        left,
        right,
        left_green=green and draw.chance(0.7),
        right_green=green,
        setback=half + max(left, right) + (draw.between(2.5, 6) if green else draw.between(0.2, 1.2)),
        crossing=crossing,
        zebra=zebra,
        rails=TRAIN in shown or draw.chance(0.1),
        shadow=draw.pick((-1, 0, 1)),
    )


def _houses(scene: _Scene, lit: tuple[float, float]) -> None:
    draw, street = scene.draw, scene.street
    for side in (-1, 1):
        lots: list[tuple[float, float, float]] = []
        z = draw.between(-4, 6)
        while z < 110:
            deep = draw.between(7, 18)
            inside = street.crossing is not None and z < street.crossing[1] and z + deep > street.crossing[0]
            if inside and street.crossing is not None:
                if street.crossing[0] - z > 4:
                    lots.append((z, street.crossing[0], draw.between(5, 17)))
                z = street.crossing[1]
                continue
            if draw.chance(0.86) and z + deep > 2:
                lots.append((z, z + deep, draw.between(5, 17)))
            z += deep + (draw.between(2, 9) if draw.chance(0.3) else 0.0)
        for start, end, tall in reversed(lots):
            structures.draw_house(scene.canvas, scene.camera, draw, side, (start, end), street.setback, tall, lit)


def _clear_of_crossing(scene: _Scene, z: tuple[float, float]) -> tuple[float, float]:
    crossing = scene.street.crossing
    if crossing is None or z[1] < crossing[0] or z[0] > crossing[1]:
        return z
    return (z[0], crossing[0]) if z[0] < crossing[0] else (crossing[1], max(z[1], crossing[1] + 1))


def _roadside(scene: _Scene, side: int) -> None:
    """What lies between pavement and houses: walls, fences, hedges, trees."""
    draw, street, canvas, camera = scene.draw, scene.street, scene.canvas, scene.camera
    edge = side * (street.half + (street.right if side > 0 else street.left) + 0.15)
    for fence, train_id in ((False, WALL), (True, FENCE)):
        must = train_id in scene.shown and side == (1 if fence else -1)
        if must or draw.chance(0.14):
            start = draw.between(3, 8) if must else draw.between(3, 30)
            z = _clear_of_crossing(scene, (start, start + draw.between(9, 22)))
            tall = draw.between(1.0, 1.5) if fence else draw.between(1.1, 2.4)
            structures.draw_barrier(canvas, camera, draw, edge, z, tall, fence)
    roomy = street.setback - abs(edge) > 2
    if roomy and draw.chance(0.6):
        start = draw.between(6, 25)
        structures.draw_hedge(
            canvas,
            camera,
            draw,
            edge + side * 1.2,
            _clear_of_crossing(scene, (start, start + draw.between(5, 15))),
            draw.between(0.7, 1.5),
        )
    x = side * (street.setback - 1.3) if roomy else side * (street.half + 0.9)
    if draw.chance(0.75):
        gap, z_tree = draw.between(6, 13), draw.between(9, 16)
        while z_tree < 75:
            if street.crossing is None or not street.crossing[0] - 1 < z_tree < street.crossing[1] + 1:
                at, tall = z_tree, draw.between(4.5, 9)
                scene.add(at, lambda at=at, tall=tall: structures.draw_tree(canvas, camera, draw, x, at, tall))  # type: ignore[misc]
            z_tree += gap * draw.between(0.8, 1.3)


def _pavement(scene: _Scene, side: int) -> None:
    """What stands and walks on one sidewalk."""
    draw, street, canvas, camera = scene.draw, scene.street, scene.canvas, scene.camera
    kerb = side * (street.half + 0.45)
    wide = street.right if side > 0 else street.left
    z = draw.between(7, 16)
    while z < 80:
        scene.add(z, lambda z=z: structures.draw_lamp(canvas, camera, kerb, z, 6.2, scene.dark))  # type: ignore[misc]
        z += draw.between(16, 24)
    lights_at = street.crossing[0] - 1.5 if street.crossing else draw.between(11, 20)
    if (street.crossing and draw.chance(0.55)) or (TRAFFIC_LIGHT in scene.shown and side > 0):
        near = min(lights_at, 22.0) if TRAFFIC_LIGHT in scene.shown else lights_at
        scene.add(near, lambda: structures.draw_traffic_light(canvas, camera, draw, kerb, near))
    signs = draw.integer(0, 2) + (1 if TRAFFIC_SIGN in scene.shown and side > 0 else 0)
    for k in range(signs):
        at = draw.between(7, 14) if k == 0 else draw.between(9, 40)
        scene.add(at, lambda at=at: structures.draw_sign(canvas, camera, draw, kerb + side * 0.2, at))  # type: ignore[misc]
    walkers = draw.integer(0, 4) + (2 if PERSON in scene.shown and side > 0 else 0)
    for k in range(walkers):
        at = draw.between(5.5, 11) if k == 0 and PERSON in scene.shown else draw.between(7, 40)
        x = side * (street.half + draw.between(0.5, wide - 0.2))
        scene.add(at, lambda x=x, at=at: people.draw_person(canvas, camera, draw, x, at))  # type: ignore[misc]
    if scene.wanted(BICYCLE, 0.18) and (side > 0 or BICYCLE not in scene.shown):
        for k in range(draw.integer(1, 3)):
            at, heading = draw.between(6, 9) + 0.8 * k, draw.pick(people.HEADINGS)
            x = side * (street.half + draw.between(0.8, 1.3))
            scene.add(at, lambda x=x, at=at, h=heading: people.draw_bicycle(canvas, camera, draw, x, at, h, False))  # type: ignore[misc]
    if scene.wanted(MOTORCYCLE, 0.08) and (side > 0 or MOTORCYCLE not in scene.shown):
        at, heading = draw.between(6.5, 10), draw.pick(people.HEADINGS)
        x = side * (street.half - 0.6)
        scene.add(at, lambda: people.draw_motorcycle(canvas, camera, draw, x, at, heading, False, False))
    if draw.chance(0.4):
        at = draw.between(5.5, 20)
        scene.add(at, lambda: structures.draw_bin(canvas, camera, draw, kerb + side * 0.3, at))


def _traffic(scene: _Scene) -> None:
    draw, street, canvas, camera = scene.draw, scene.street, scene.canvas, scene.camera
    if TRAIN in scene.shown or (street.rails and draw.chance(0.5)):
        at = Placement(-street.half / 2, draw.between(11, 24), oncoming=True, lights=scene.lamps)
        paint = draw.tint(draw.pick(BUS_PAINTS), 12)
        scene.add(at.z, lambda: vehicles.draw_tram(canvas, camera, draw, at, paint))
    else:
        z = draw.between(9, 26)
        while z < 80:
            _vehicle(scene, Placement(scene.lane(-1), z, oncoming=True, lights=scene.lamps), big=0.16)
            z += draw.between(9, 34)
    ahead = draw.between(10, 24)
    if BUS in scene.shown:
        at_bus = Placement(scene.lane(1) + 0.4, draw.between(11, 19), lights=scene.lamps)
        paint_bus = draw.tint(draw.pick(BUS_PAINTS), 12)
        scene.add(at_bus.z, lambda: vehicles.draw_bus(canvas, camera, draw, at_bus, paint_bus))
        ahead = 32
    while ahead < 80:
        _vehicle(scene, Placement(scene.lane(1) + draw.between(-0.3, 0.3), ahead, lights=scene.lamps), big=0.14)
        ahead += draw.between(10, 30)
    _parked(scene)
    if scene.wanted(RIDER, 0.28):
        at_z, heading = (
            draw.between(6, 11) if RIDER in scene.shown else draw.between(7, 24),
            draw.pick(people.HEADINGS[1:5]),
        )
        x = scene.lane(draw.pick((-1, 1))) + draw.between(0.6, 1.4)
        if draw.chance(0.6):
            scene.add(at_z, lambda: people.draw_bicycle(canvas, camera, draw, x, at_z, heading, True))
        else:
            scene.add(at_z, lambda: people.draw_motorcycle(canvas, camera, draw, x, at_z, heading, True, scene.lamps))
    if street.crossing and draw.chance(0.6):
        z_mid = (street.crossing[0] + street.crossing[1]) / 2
        across = Placement(draw.between(-3, 3), z_mid, across=True, oncoming=draw.chance(0.5), lights=scene.lamps)
        _vehicle(scene, across, big=0.35)
    if street.zebra is not None and draw.chance(0.7):
        for _ in range(draw.integer(1, 3)):
            x, z_zebra = draw.between(-street.half, street.half), street.zebra + draw.between(0.4, 2.6)
            if z_zebra > 5:
                scene.add(z_zebra, lambda x=x, z=z_zebra: people.draw_person(canvas, camera, draw, x, z))  # type: ignore[misc]


def _parked(scene: _Scene) -> None:
    draw, street, canvas, camera = scene.draw, scene.street, scene.canvas, scene.camera
    if TRUCK in scene.shown:
        at = Placement(street.half - 0.7, draw.between(10, 18), lights=False)
        paint = draw.tint(draw.pick(TRUCK_PAINTS), 14)
        scene.add(at.z, lambda: vehicles.draw_truck(canvas, camera, draw, at, paint))
    for side in (-1, 1):
        if street.half < 5 or draw.chance(0.35) or (side > 0 and TRUCK in scene.shown) or (side < 0 and street.rails):
            continue
        z = draw.between(7, 14)
        while z < 60:
            if draw.chance(0.75) and (
                street.crossing is None or not street.crossing[0] - 6 < z < street.crossing[1] + 1
            ):
                _vehicle(scene, Placement(side * (street.half - 0.75), z, oncoming=side < 0), big=0.05)
            z += draw.between(5.4, 7)


def _vehicle(scene: _Scene, at: Placement, big: float) -> None:
    """A car, or with the probability `big` a lorry or bus."""
    draw, canvas, camera = scene.draw, scene.canvas, scene.camera
    if draw.chance(big):
        if draw.chance(0.6):
            paint = draw.tint(draw.pick(TRUCK_PAINTS), 14)
            scene.add(at.z, lambda: vehicles.draw_truck(canvas, camera, draw, at, paint))
        else:
            paint = draw.tint(draw.pick(BUS_PAINTS), 14)
            scene.add(at.z, lambda: vehicles.draw_bus(canvas, camera, draw, at, paint))
        return
    paint = draw.tint(draw.pick(CAR_PAINTS), 12)
    scene.add(at.z, lambda: vehicles.draw_car(canvas, camera, draw, at, paint))


def _ego_hood(canvas: Canvas, draw: Draw) -> None:
    """The bonnet of the car that carries the camera: to be ignored."""
    height, width = canvas.shape
    paint = draw.tint((44, 46, 50), 14)
    rise = draw.between(0.05, 0.1) * height
    canvas.ellipse((width / 2, height + rise * 0.6), (width * 0.62, rise * 1.6), paint, VOID, 1)
    canvas.ellipse((width / 2, height + rise * 1.0), (width * 0.5, rise * 1.5), draw.tint((70, 74, 80), 10), None)
