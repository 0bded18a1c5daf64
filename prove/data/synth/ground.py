"""The ground and the sky: computed per pixel from the world position that it shows."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from prove.data.synth.canvas import FAR_DM, RGB, Camera, Canvas, Draw
from prove.data.synth.palette import ROAD, SIDEWALK, SKY, TERRAIN

_MARKING = (214, 214, 206)


@dataclass(frozen=True)
class Street:
    """The plan of a street, in metres.

    Args:
        half: half the road's width.
        left, right: width of each sidewalk; beyond it lies grass or more pavement.
        left_green, right_green: whether grass lies beyond.
        setback: distance of the houses from the road's middle.
        crossing: where a side street crosses, (from z, to z), or None.
        zebra: where a zebra crossing begins, or None.
        rails: whether tram rails run in the left lane.
        shadow: houses on the right (+1), left (-1) or neither (0) shade the ground.
    """

    half: float
    left: float
    right: float
    left_green: bool
    right_green: bool
    setback: float
    crossing: tuple[float, float] | None
    zebra: float | None
    rails: bool
    shadow: int


def draw_ground(canvas: Canvas, camera: Camera, street: Street, draw: Draw) -> None:
    """Fill everything below the horizon with road, sidewalk and terrain."""
    height, width = canvas.shape
    first = int(camera.horizon) + 1
    rows = np.arange(first, height, dtype=np.float64) + 0.5
    z = (camera.focal * camera.y / (rows - camera.horizon))[:, None]
    columns = np.arange(width, dtype=np.float64)[None, :] + 0.5
    x = (columns - width / 2) * z / camera.focal + camera.x - camera.bend * z * z
    z = np.broadcast_to(z, x.shape)

    label = _ground_labels(x, z, street)
    base = np.zeros((256, 3), dtype=np.int16)
    base[ROAD] = draw.tint((94, 94, 98), 12)
    base[SIDEWALK] = draw.tint((142, 138, 132), 14)
    base[TERRAIN] = draw.tint((92, 112, 60), 16)
    color = base[label]
    color += _world_grain(x, z, draw)[..., None]
    _mark(color, label, x, z, street)
    if street.shadow:
        edge = street.half * draw.between(-0.4, 0.7)
        shaded = (x * street.shadow > edge) & ~_in_crossing(z, street)
        color[shaded] = color[shaded] * 11 // 20
    np.clip(color, 0, 255, out=color)
    canvas.color[first:] = color.astype(np.uint8)
    canvas.label[first:] = label
    canvas.depth[first:] = np.minimum(z * 10, FAR_DM - 1).astype(np.uint16)


def _ground_labels(x: npt.NDArray[np.float64], z: npt.NDArray[np.float64], street: Street) -> npt.NDArray[np.uint8]:
    label = np.full(x.shape, ROAD, dtype=np.uint8)
    label[np.abs(x) > street.half] = SIDEWALK
    if street.left_green:
        label[x < -street.half - street.left] = TERRAIN
    if street.right_green:
        label[x > street.half + street.right] = TERRAIN
    label[_in_crossing(z, street)] = ROAD
    label[z > 120] = TERRAIN
    label[(z > 120) & (np.abs(x) < street.half)] = ROAD
    return label


def _in_crossing(z: npt.NDArray[np.float64], street: Street) -> npt.NDArray[np.bool_]:
    if street.crossing is None:
        return np.zeros(z.shape, dtype=bool)
    return (z > street.crossing[0]) & (z < street.crossing[1])


def _world_grain(x: npt.NDArray[np.float64], z: npt.NDArray[np.float64], draw: Draw) -> npt.NDArray[np.int16]:
    """Texture fixed to the ground: coarse patches and fine grain, fading with distance."""
    table = draw.grid(64, 64).astype(np.int16) - 128
    fine = table[np.floor(x * 9).astype(np.int64) & 63, np.floor(z * 5).astype(np.int64) & 63]
    coarse = table[np.floor(x * 0.7).astype(np.int64) & 63, np.floor(z * 0.25).astype(np.int64) & 63]
    near = np.clip(24 - z, 0, 24)
    return np.asarray(fine * near / 280 + coarse / 16, dtype=np.int16)


def _mark(
    color: npt.NDArray[np.int16],
    label: npt.NDArray[np.uint8],
    x: npt.NDArray[np.float64],
    z: npt.NDArray[np.float64],
    street: Street,
) -> None:
    """Paint on the road, kerbs and paving joints."""
    away = np.abs(x)
    plain = (label == ROAD) & ~_in_crossing(z, street) & (z < 90)
    dashes = plain & (away < 0.09) & (z % 7 < 3.5)
    edges = plain & (np.abs(away - street.half + 0.35) < 0.07)
    painted = dashes | edges
    if street.zebra is not None:
        stripes = (z > street.zebra) & (z < street.zebra + 3.2) & (away < street.half - 0.3)
        painted = (painted & ~stripes) | (stripes & (x % 1.1 < 0.55))
    color[painted] = _MARKING
    if street.rails:
        rail = (np.abs(np.abs(x + street.half / 2) - 0.72) < 0.06) & (label == ROAD) & (z < 80)
        color[rail] = (58, 56, 56)
    kerb = (np.abs(away - street.half) < 0.12) & ~_in_crossing(z, street) & (z < 70)
    color[kerb] = (172, 170, 164)
    joints = (label == SIDEWALK) & ((z % 1.5 < 0.06) | (away % 1.2 < 0.05)) & (z < 25)
    color[joints] -= 18


def draw_sky(canvas: Canvas, horizon: float, top: RGB, bottom: RGB, clouds: int, cloud: RGB, draw: Draw) -> None:
    """A vertical gradient with clouds.

    Args:
        clouds: how much of the sky they cover, 0 to 100.
        cloud: their colour.
    """
    width = canvas.shape[1]
    rows = int(horizon) + 2
    share = (np.arange(rows) / rows)[:, None]
    gradient = np.array(top) + (np.array(bottom) - np.array(top)) * share
    sky = np.broadcast_to(gradient[:, None, :], (rows, width, 3))
    noise = value_noise(draw, rows, width, (rows // 4 + 2, width // 5 + 2), (rows // 12 + 2, width // 14 + 2))
    cover = np.clip((noise.astype(np.float64) - (210 - 2 * clouds)) / 60, 0, 1)[..., None]
    canvas.color[:rows] = (sky + (np.array(cloud) - sky) * cover).astype(np.uint8)
    canvas.label[:rows] = SKY
    canvas.depth[:rows] = FAR_DM


def value_noise(draw: Draw, height: int, width: int, *cells: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Smooth noise [H, W] of several scales, 0 to 255: random grids enlarged, the coarse one counting twice.

    Args:
        cells: (height, width) of a grid cell in pixels for each scale, coarse first.
    """
    total = np.zeros((height, width), dtype=np.uint16)
    weights = [2 if k == 0 else 1 for k in range(len(cells))]
    for (cell_height, cell_width), weight in zip(cells, weights, strict=True):
        grid = draw.grid(height // cell_height + 2, width // cell_width + 2)
        large = cv2.resize(
            grid, (grid.shape[1] * cell_width, grid.shape[0] * cell_height), interpolation=cv2.INTER_LINEAR_EXACT
        )
        total += large[:height, :width].astype(np.uint16) * weight
    return (total // sum(weights)).astype(np.uint8)
