"""Draw the picture of generated images in docs/strategies.md: labels, the real image, and what stands beside it.

python benchmarks/generated_pictures.py docs/img/strategies/generated.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from prove.catalog.datasets import CONDITIONS, SYNTHSTREET
from prove.data.definition import SynthStreetSize
from prove.data.noise import noise_pixels
from prove.data.synthstreet import draw_image

SIZE = SynthStreetSize(height=128, width=256)
SCENE = 7
"""A clear-day training image."""

GAP = 4
COLOURS = 240


def main(target: Path) -> None:
    """Three by three: label, clear day and cloudy; dusk, fog, rain; snow, night, and the noise of gen_random_noise."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: SYNTHSTREET.label_space.num_classes] = SYNTHSTREET.label_space.palette
    label = draw_image(SIZE, "train", SCENE)[1]
    seen = [draw_image(SIZE, "train", SCENE, condition)[0] for condition in CONDITIONS]
    noise = noise_pixels("gen_random_noise/scene", SIZE.height, SIZE.width)
    cells = [np.pad(cell, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for cell in (colours[label], *seen, noise)]
    sheet = np.vstack([np.hstack(cells[k : k + 3]) for k in (0, 3, 6)])[:-GAP, :-GAP]
    target.parent.mkdir(parents=True, exist_ok=True)
    scenes = Image.fromarray(np.vstack(cells[:-1])).quantize(COLOURS)  # noise would take the colours that they need
    Image.fromarray(sheet).quantize(palette=scenes, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
