"""AutoAugment and RandAugment for labelled images: what they draw, what they do, and that labels go with the pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy, InterpolationMode, RandAugment

from prove.build.pipeline import training_pipeline
from prove.catalog.strategies import STRATEGIES, resolve_strategy
from prove.training.stack import load_stack

load_stack()

from mmengine.dataset import Compose  # noqa: E402

from prove.training import registered  # noqa: E402, F401 - registers the transforms
from prove.training.augment import GREY, IGNORE, apply  # noqa: E402
from prove.training.augment_policies import (  # noqa: E402
    AUTOAUGMENT_TOP,
    GEOMETRIC,
    IMAGENET,
    RANDAUGMENT,
    RANDAUGMENT_TOP,
    SCALES,
    Operation,
    auto_augment,
    rand_augment,
)
from prove.training.seeding import seed_augmentation  # noqa: E402

UInt8 = npt.NDArray[np.uint8]

COLOURS: UInt8 = np.random.default_rng(0).integers(0, 256, (8, 3)).astype(np.uint8)
"""A colour per class; none is the grey that images are filled with, or between two others."""


def checkerboard(height: int = 96, width: int = 128, square: int = 16) -> tuple[UInt8, UInt8]:
    """An image whose colour says its label, and the label: squares of 8 classes."""
    rows, columns = np.arange(height)[:, None] // square, np.arange(width)[None] // square
    label = ((3 * rows + columns) % len(COLOURS)).astype(np.uint8)
    return COLOURS[label], label


def decoded(image: UInt8) -> tuple[npt.NDArray[np.bool_], UInt8]:
    """Where an image shows a class or the filling and is no border between two, and which: 255 for the filling."""
    same = (image[:, :, None] == COLOURS).all(-1)
    grey = (image == GREY).all(-1)
    meant = np.where(grey, IGNORE, same.argmax(-1)).astype(np.uint8)
    code = np.where(same.any(-1) | grey, meant.astype(int), -1)
    inside = np.lib.stride_tricks.sliding_window_view(np.pad(code, 1, mode="edge"), (3, 3))
    return (code >= 0) & (inside == code[..., None, None]).all((-1, -2)), meant


def assert_aligned(image: UInt8, label: UInt8, least: float = 0.5) -> None:
    """Away from borders, where colours are blended, the colour says the label."""
    clear, meant = decoded(image)
    assert clear.mean() > least
    assert np.array_equal(label[clear], meant[clear])


MOVES = [
    Operation(name, sign * SCALES[name].of(level, 96, 128))  # type: ignore[misc]
    for name in GEOMETRIC
    for level in (0.1, 0.3, 1.0)
    for sign in (-1.0, 1.0)
]


@pytest.mark.parametrize("operation", MOVES, ids=lambda op: f"{op.name}({op.magnitude:.3g})")
def test_a_checkerboards_labels_go_with_its_pixels(operation: Operation) -> None:
    image, label = checkerboard()
    moved, truth = apply(image, label, [operation])
    assert_aligned(moved, truth)
    assert (truth != label).mean() > 0.01
    filled = truth == IGNORE
    assert filled.any()
    assert set(np.unique(truth[~filled])) <= set(range(len(COLOURS)))
    by_hand = (moved[filled] == GREY).all(-1)
    assert by_hand.mean() > 0.5  # the rest is blended with its neighbours


def test_moves_that_can_be_done_by_hand() -> None:
    image, label = checkerboard(96, 96, 8)
    turned, truth = apply(image, label, [Operation("Rotate", 90.0)])
    assert np.array_equal(truth, np.rot90(label))
    assert np.array_equal(turned, np.rot90(image))
    right, truth = apply(image, label, [Operation("TranslateX", 10.7)])
    assert np.array_equal(truth, np.pad(label, ((0, 0), (10, 0)), constant_values=255)[:, :96])
    assert np.array_equal(right[:, 10:], image[:, :-10])
    assert (right[:, :10] == GREY).all()
    _, truth = apply(image, label, [Operation("TranslateY", -7.0)])
    assert np.array_equal(truth, np.pad(label, ((0, 7), (0, 0)), constant_values=255)[7:])


@pytest.mark.parametrize(("name", "matrix"), [("ShearX", (1, 0.25, 0, 0, 1, 0)), ("ShearY", (1, 0, 0, 0.25, 1, 0))])
def test_a_shear_is_the_authors(name: str, matrix: tuple[float, ...]) -> None:
    """They hand Pillow this matrix."""
    _, label = checkerboard(64, 64, 4)
    _, truth = apply(COLOURS[label], label, [Operation(name, 0.25)])
    theirs = Image.fromarray(label).transform((64, 64), Image.Transform.AFFINE, matrix, fillcolor=IGNORE)
    assert np.array_equal(truth, np.asarray(theirs))


def test_what_is_ignored_stays_ignored_and_moves() -> None:
    image, label = checkerboard()
    label[20:40, 30:60] = IGNORE
    _, truth = apply(image, label, [Operation("TranslateX", 16.0)])
    assert (truth[20:40, 46:76] == IGNORE).all()
    assert (truth[:20, 16:] != IGNORE).all()


@pytest.mark.parametrize("strategy", [entry.name for entry in STRATEGIES if entry.stage != "mix"])
def test_a_strategys_whole_pipeline_keeps_images_and_labels_aligned(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operations that change colours are drawn, but not carried out: the colour still says the label."""
    from prove.training import augment

    monkeypatch.setattr(augment, "_coloured", lambda picture, operation: picture)
    steps = [s for s in training_pipeline(resolve_strategy(strategy), (64, 64)) if s["type"] != "PhotoMetricDistortion"]
    pipeline = Compose(steps[1:-1])
    moved = 0
    for position in range(40):
        seed_augmentation("augmentation", 3, position)
        image, label = checkerboard(96, 128, 24)
        done = pipeline({"img": image, "gt_seg_map": label, "seg_fields": ["gt_seg_map"], "img_shape": (96, 128)})
        assert done["img"].shape[:2] == done["gt_seg_map"].shape
        assert_aligned(done["img"], done["gt_seg_map"], least=0.35)
        moved += done["gt_seg_map"].shape != label.shape or not np.array_equal(done["gt_seg_map"], label)
    assert moved == 40


# what operations do


def photograph(height: int = 40, width: int = 56) -> UInt8:
    rng = np.random.default_rng(5)
    coarse = rng.integers(20, 220, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1)
    return (coarse + rng.integers(-15, 15, (height, width, 3))).astype(np.uint8)


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_an_operation_is_torchvisions(name: str, level: float) -> None:
    image, label = photograph(), np.zeros((40, 56), np.uint8)
    scale = SCALES[name]
    signs = (1.0, -1.0) if scale.signed else (1.0,)
    for sign in signs:
        size = 0.0 if scale.of is None else sign * scale.of(level, 40, 56)
        mine, _ = apply(image, label, [Operation(name, size)])
        theirs = RandAugment()._apply_image_or_video_transform(
            Image.fromarray(image[:, :, ::-1].copy()), name, size, InterpolationMode.BILINEAR,
            {Image.Image: list(GREY)},
        )  # fmt: skip
        assert np.array_equal(mine[:, :, ::-1], np.asarray(theirs))


@pytest.mark.parametrize("name", [name for name in SCALES if name not in GEOMETRIC])
def test_an_operation_on_colours_leaves_the_label_and_what_it_was_given(name: str) -> None:
    image, label = photograph(), np.random.default_rng(1).integers(0, 19, (40, 56)).astype(np.uint8)
    before = image.copy(), label.copy()
    changed, truth = apply(image, label, [Operation(name, 0.0 if (of := SCALES[name].of) is None else of(0.7, 40, 56))])
    assert np.array_equal(truth, label)
    assert name == "Identity" or not np.array_equal(changed, image)
    assert np.array_equal(image, before[0])
    assert np.array_equal(label, before[1])


# what is drawn


def test_the_tables_are_torchvisions() -> None:
    """Every strength of every operation in every bin, for an image that is not square."""
    spaces: list[tuple[dict[str, tuple[Callable[..., Any], bool]], int, tuple[str, ...]]] = [
        (RandAugment._AUGMENTATION_SPACE, RANDAUGMENT_TOP, RANDAUGMENT),
        (AutoAugment._AUGMENTATION_SPACE, AUTOAUGMENT_TOP, tuple(n for n in SCALES if n != "Identity")),
    ]
    for theirs, top, mine in spaces:
        assert set(theirs) == set(mine)
        for name, (magnitudes, signed) in theirs.items():
            bins = magnitudes(top + 1, 64, 96)
            of = SCALES[name].of
            assert SCALES[name].signed == signed
            assert (of is None) == (bins is None)
            if of is not None:
                assert [of(k / top, 64, 96) for k in range(top + 1)] == pytest.approx(bins.tolist(), rel=1e-6, abs=1e-6)
    policies = AutoAugment()._get_policies(AutoAugmentPolicy.IMAGENET)
    assert [[(n, p, m or 0) for n, p, m in pair] for pair in policies] == [list(pair) for pair in IMAGENET]


def within(count: int, trials: int, probability: float) -> bool:
    return abs(count - trials * probability) <= 5 * (trials * probability * (1 - probability)) ** 0.5


def test_rand_augment_draws_every_operation_equally_often() -> None:
    np.random.seed(0)
    draws = [rand_augment(2, 9, 64, 96) for _ in range(4000)]
    assert {len(each) for each in draws} == {2}
    counts = Counter(op.name for each in draws for op in each)
    assert set(counts) == set(RandAugment._AUGMENTATION_SPACE)
    assert all(within(count, 8000, 1 / 14) for count in counts.values())
    for name in GEOMETRIC:
        sizes = [op.magnitude for each in draws for op in each if op.name == name]
        strength = float(RandAugment._AUGMENTATION_SPACE[name][0](31, 64, 96)[9])
        assert [abs(size) for size in sizes] == pytest.approx([strength] * len(sizes))
        assert within(sum(size > 0 for size in sizes), len(sizes), 0.5)


def test_auto_augment_draws_each_operation_as_often_as_its_policies_say() -> None:
    np.random.seed(1)
    trials = 6000
    counts = Counter(op.name for _ in range(trials) for op in auto_augment(64, 96))
    expected: Counter[str] = Counter()
    for pair in AutoAugment()._get_policies(AutoAugmentPolicy.IMAGENET):
        for name, probability, _ in pair:
            expected[name] += probability / 25
    assert set(counts) == {name for name, rate in expected.items() if rate}
    for name, rate in expected.items():
        assert abs(counts[name] - trials * rate) <= 5 * (trials * rate) ** 0.5


@pytest.mark.parametrize("name", ["std_photometric_distort", "std_autoaugment", "std_randaugment"])
def test_what_is_drawn_depends_on_the_seed_and_the_position_alone(name: str) -> None:
    steps = training_pipeline(resolve_strategy(name), (32, 32))[1:-1]
    pipeline = Compose(steps)

    def made(position: int) -> bytes:
        seed_augmentation("augmentation", 0, position)
        torch.manual_seed(position % 3)  # torch's generator is not asked
        image, label = photograph(), np.zeros((40, 56), np.uint8)
        label[:, ::2] = 1
        done = pipeline({"img": image, "gt_seg_map": label, "seg_fields": ["gt_seg_map"], "img_shape": (40, 56)})
        return bytes(done["img"].tobytes() + done["gt_seg_map"].tobytes())

    first = [made(position) for position in range(12)]
    torch.randn(5)
    assert [made(position) for position in reversed(range(12))] == first[::-1]
    assert len(set(first)) > 8


def test_photometric_distortion_leaves_the_label() -> None:
    pipeline = Compose([{"type": "PhotoMetricDistortion"}])
    changed = 0
    for position in range(10):
        seed_augmentation("augmentation", 0, position)
        image, label = photograph(), np.arange(40 * 56, dtype=np.uint8).reshape(40, 56)
        done = pipeline({"img": image.copy(), "gt_seg_map": label.copy()})
        assert np.array_equal(done["gt_seg_map"], label)
        changed += not np.array_equal(done["img"], image)
    assert changed >= 8
