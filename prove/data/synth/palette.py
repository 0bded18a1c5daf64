"""Train ids of the 19 classes by name, and the colours that things come in."""

from __future__ import annotations

from prove.catalog.label_spaces import CITYSCAPES19

(
    ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION, TERRAIN, SKY, PERSON, RIDER,
    CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE,
) = range(CITYSCAPES19.num_classes)  # fmt: skip

FACADES = (
    (176, 160, 140), (150, 120, 100), (190, 182, 170), (140, 92, 78), (120, 118, 116), (200, 176, 140), (160, 150, 128),
    (168, 110, 88), (104, 108, 116), (210, 202, 190),
)  # fmt: skip
CAR_PAINTS = (
    (200, 200, 204), (40, 42, 46), (120, 124, 130), (150, 28, 30), (34, 60, 120), (226, 226, 224), (62, 78, 70),
    (90, 94, 98), (172, 150, 60), (24, 26, 30), (106, 40, 40),
)  # fmt: skip
BUS_PAINTS = ((208, 170, 40), (180, 36, 40), (226, 226, 222), (40, 110, 150), (60, 130, 80))
TRUCK_PAINTS = ((214, 214, 210), (60, 90, 150), (170, 60, 40), (200, 180, 90), (110, 130, 110))
CLOTHES = (
    (40, 44, 60), (120, 40, 44), (60, 80, 120), (180, 170, 150), (30, 30, 32), (70, 96, 70), (200, 190, 60),
    (150, 90, 120), (210, 210, 210), (190, 100, 40),
)  # fmt: skip
SKINS = ((222, 184, 150), (190, 144, 110), (130, 92, 66), (92, 64, 48))
LEAVES = ((72, 104, 48), (58, 92, 44), (90, 116, 56), (66, 88, 40), (104, 120, 60))
GLASS = (58, 70, 84)
TYRE = (24, 24, 26)
METAL = (104, 106, 108)
LAMP_LIGHT = (255, 214, 150)
HEADLIGHT = (255, 244, 214)
TAILLIGHT = (220, 24, 20)
