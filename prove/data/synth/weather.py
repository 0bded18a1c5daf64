"""Light, air and precipitation: what turns the flat drawing into a photograph of a clear day or a rainy night."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from prove.data.synth.canvas import SUPERSAMPLING, Camera, Canvas, Draw
from prove.data.synth.ground import value_noise
from prove.data.synth.palette import (
    BUILDING,
    CAR,
    ROAD,
    SIDEWALK,
    SKY,
    TERRAIN,
    TRUCK,
    VEGETATION,
    WALL,
)

Float = npt.NDArray[np.floating[Any]]
UInt8 = npt.NDArray[np.uint8]

# How strongly surfaces are mottled, in percent; the other classes are smooth.
_GRAIN = {VEGETATION: 46, TERRAIN: 34, ROAD: 9, SIDEWALK: 10, BUILDING: 10, WALL: 16, SKY: 0}


@dataclass(frozen=True)
class View:
    """A drawn scene at the final size: colour and light [H, W, 3] in levels of 0 to 255, label [H, W], depth [H, W] in
    metres."""

    color: Float
    light: Float
    label: UInt8
    depth: Float
    horizon: int


def shrink(canvas: Canvas, camera: Camera) -> View:
    """Average colours over the supersampled pixels; labels and depths are taken from one of them."""
    n = SUPERSAMPLING
    label = canvas.label[n - 1 :: n, n - 1 :: n].copy()
    depth = canvas.depth[n - 1 :: n, n - 1 :: n].astype(np.float32) / 10
    return View(_mean(canvas.color), _mean(canvas.light), label, depth, int(camera.horizon) // n)


def _mean(image: UInt8) -> Float:
    n = SUPERSAMPLING
    total = np.zeros((image.shape[0] // n, image.shape[1] // n, 3), dtype=np.uint16)
    for row in range(n):
        for column in range(n):
            total += image[row::n, column::n]
    return np.asarray(total / np.float32(n * n), dtype=np.float32)


def photograph(view: View, condition: str, draw: Draw) -> UInt8:
    """What a camera sees of the scene in a condition. Returns uint8 [H, W, 3], RGB."""
    image = _mottle(view, draw)
    image = _EFFECTS[condition](view, image, draw)
    return _sensor(image, draw, noise=5 if condition == "night" else 3)


def _mottle(view: View, draw: Draw) -> Float:
    height, width = view.label.shape
    amount = np.zeros(256, dtype=np.float32)
    for train_id, percent in _GRAIN.items():
        amount[train_id] = percent / 100
    noise = value_noise(draw, height, width, (7, 7), (3, 3), (2, 2)).astype(np.float32) / 128 - 1
    return view.color * (1 + amount[view.label] * noise)[..., None]


def _rgb(red: float, green: float, blue: float) -> Float:
    return np.array([red, green, blue], dtype=np.float32)


def _haze(image: Float, depth: Float, air: Float, reach: float) -> Float:
    """Blend towards the air's colour with distance; half is left at 0.41 × `reach` metres."""
    clear = (1 / ((1 + depth / reach) * (1 + depth / reach)))[..., None]
    return image * clear + air * (1 - clear)


def _soft(image: Float, size: int) -> Float:
    """Box blur, twice. Returns float32 like the input, rounded to whole levels."""
    levels = np.clip(image, 0, 255).astype(np.uint8)
    return np.asarray(cv2.blur(cv2.blur(levels, (size, size)), (size, size)), dtype=np.float32)


def _glow(image: Float, light: Float, strength: float) -> Float:
    """Add lamps with halos of three widths."""
    width = light.shape[1]
    for share, weight in ((0.008, 1.0), (0.03, 1.6), (0.09, 2.2)):
        image = image + _soft(light, int(width * share) | 1) * np.float32(weight * strength)
    return image + light * np.float32(min(1.0, strength))


def _headlights(view: View) -> Float:
    """Share of light that the camera's own car throws on what is ahead, [H, W]."""
    height, width = view.label.shape
    across = np.abs(np.arange(width, dtype=np.float32) - width / 2)[None, :] / (width * np.float32(0.55))
    down = (np.arange(height, dtype=np.float32)[:, None] - view.horizon) / height
    beam = np.clip(1 - across * across, 0, 1) * np.clip(0.35 + down * 2.2, 0, 1)
    fall = 1 / ((1 + view.depth / 14) * (1 + view.depth / 14))
    return np.asarray(beam * fall, dtype=np.float32)


def _clear_day(view: View, image: Float, draw: Draw) -> Float:
    warm = _rgb(1.08, 1.03, 0.95) * np.float32(draw.between(1.06, 1.24))
    contrast = (image * warm - 118) * np.float32(1.12) + 118
    return _haze(contrast, np.minimum(view.depth, 400), _rgb(196, 210, 224), 900)


def _cloudy(view: View, image: Float, draw: Draw) -> Float:
    cool = _rgb(0.9, 0.93, 0.97) * np.float32(draw.between(0.86, 1.0))
    return _haze(image * cool, np.minimum(view.depth, 300), _rgb(182, 188, 194), 600)


def _dawn_dusk(view: View, image: Float, draw: Draw) -> Float:
    sky = (view.label == SKY)[..., None]
    ambient = _rgb(0.72, 0.56, 0.52) * np.float32(draw.between(0.8, 1.05))
    lit = image * np.where(sky, np.float32(1), ambient)
    lit = _haze(lit, np.minimum(view.depth, 300), _rgb(208, 140, 104), 420)
    return _glow(lit, view.light, 0.5)


def _foggy(view: View, image: Float, draw: Draw) -> Float:
    grey = draw.between(178, 206)
    flat = image * _rgb(0.86, 0.88, 0.9)
    thick = _haze(flat, np.minimum(view.depth, 2000), _rgb(grey, grey + 2, grey + 4), draw.between(38, 90))
    return _glow(thick, view.light, 0.25)


def _rainy(view: View, image: Float, draw: Draw) -> Float:
    image = image * _rgb(0.66, 0.7, 0.76) * np.float32(draw.between(0.88, 1.1))
    image = _haze(image, np.minimum(view.depth, 500), _rgb(138, 144, 152), 190)
    image = _glow(image, view.light, 0.35)
    image = _wet(view, image, draw)
    return _streaks(image, draw)


def _wet(view: View, image: Float, draw: Draw) -> Float:
    """Road and pavement mirror what stands above the horizon, in patches."""
    height, width = view.label.shape
    rows = np.clip(2 * view.horizon - np.arange(height), 0, height - 1)
    mirrored = _soft(image[rows], max(3, width // 60) | 1)
    noise = value_noise(draw, height, width, (9, 40), (4, 14)).astype(np.float32) / 255
    wet = np.clip(noise * 1.5 - 0.35, 0.08, 0.62)
    wet = np.where(view.label == ROAD, wet, np.where(view.label == SIDEWALK, wet * np.float32(0.5), 0))
    wet = (wet * (np.arange(height)[:, None] > view.horizon))[..., None].astype(np.float32)
    return np.asarray(image * (1 - wet * np.float32(1.1)).clip(0, 1) + mirrored * wet)


def _streaks(image: Float, draw: Draw) -> Float:
    height, width = image.shape[:2]
    layer = np.zeros((height, width), dtype=np.uint8)
    slant = draw.between(-0.25, 0.25)
    for _ in range(width * height // 130):
        u, v = draw.between(0, width), draw.between(-0.1, 1) * height
        long = draw.between(0.015, 0.06) * height
        end = (round(u + slant * long), round(v + long))
        cv2.line(layer, (round(u), round(v)), end, draw.integer(40, 120), 1, cv2.LINE_8)
    soft = cv2.blur(layer, (1, 3)).astype(np.float32)[..., None] / 255
    return np.asarray(image * (1 - soft * np.float32(0.4)) + 215 * soft * np.float32(0.5))


def _snowy(view: View, image: Float, draw: Draw) -> Float:
    height, width = view.label.shape
    noise = value_noise(draw, height, width, (10, 26), (4, 8), (2, 2)).astype(np.float32) / 255
    above = np.roll(view.label, max(2, height // 90), axis=0)
    ledge = (view.label != above) & (np.arange(height)[:, None] < height * 0.8)
    cover = np.zeros((height, width), dtype=np.float32)
    for train_id, amount in ((TERRAIN, 1.9), (SIDEWALK, 1.6), (ROAD, 0.95), (VEGETATION, 0.8)):
        cover = np.where(view.label == train_id, np.clip(noise * np.float32(amount) * 1.25 - 0.3, 0, 0.92), cover)
    for train_id in (CAR, TRUCK, BUILDING, WALL):
        cover = np.where((view.label == train_id) & ledge, np.float32(0.8), cover)
    white = _rgb(232, 236, 242) * (0.9 + noise * np.float32(0.14))[..., None]
    image = image * _rgb(0.86, 0.9, 0.95)
    image = image * (1 - cover[..., None]) + white * cover[..., None]
    image = _haze(image, np.minimum(view.depth, 600), _rgb(204, 208, 214), 240)
    return _flakes(image, draw)


def _flakes(image: Float, draw: Draw) -> Float:
    height, width = image.shape[:2]
    layer = np.zeros((height, width), dtype=np.uint8)
    for _ in range(width * height // 260):
        at = (draw.integer(0, width - 1), draw.integer(0, height - 1))
        size = draw.integer(0, 1) if draw.chance(0.93) else max(1, height // 110)
        cv2.circle(layer, at, size, draw.integer(120, 255), -1, cv2.LINE_8)
    soft = cv2.blur(layer, (2, 2)).astype(np.float32)[..., None] / 255
    return np.asarray(image * (1 - soft * np.float32(0.85)) + 244 * soft * np.float32(0.85))


def _night(view: View, image: Float, draw: Draw) -> Float:
    sky = (view.label == SKY)[..., None]
    ambient = _rgb(0.27, 0.28, 0.36) * np.float32(draw.between(0.8, 1.2))
    beam = (_headlights(view) * np.float32(draw.between(1.1, 1.5)))[..., None] * _rgb(1.0, 0.95, 0.84)
    lamps = _soft(view.light, int(view.label.shape[1] * 0.16) | 1) / 255 * np.float32(3.2)
    lit = image * np.where(sky, np.float32(1), ambient + beam + np.minimum(lamps, np.float32(0.7)))
    return _glow(lit, view.light, 0.62)


_EFFECTS = {
    "clear_day": _clear_day,
    "cloudy": _cloudy,
    "dawn_dusk": _dawn_dusk,
    "foggy": _foggy,
    "rainy": _rainy,
    "snowy": _snowy,
    "night": _night,
}


def _sensor(image: Float, draw: Draw, noise: int) -> UInt8:
    """Vignette and noise, then 8 bits. Noise is the sum of uniform bytes: a normal draw would need a logarithm."""
    height, width = image.shape[:2]
    y = (np.arange(height, dtype=np.float32) / height - np.float32(0.5))[:, None]
    x = (np.arange(width, dtype=np.float32) / width - np.float32(0.5))[None, :]
    image = image * (1 - (x * x + y * y) * np.float32(0.36))[..., None]
    total = draw.grid(height, width).astype(np.float32) + draw.grid(height, width) + draw.grid(height, width) - 382
    image = image + (total * np.float32(noise / 128))[..., None]
    return np.asarray(np.clip(image + np.float32(0.5), 0, 255), dtype=np.uint8)
