from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_samples import write_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from prove.catalog import label_spaces as ls
from prove.data.labels import UnknownLabelValueError, read_image, read_label
from prove.data.synth.png import png_bytes
from prove.errors import ProveError

ENCODINGS = [
    (ls.CITYSCAPES_LABEL_IDS, ls.CITYSCAPES19),
    (ls.CITYSCAPES_TRAIN_IDS, ls.CITYSCAPES19),
    (ls.CAMVID_IDS, ls.CAMVID11),
    (ls.MAPILLARY_IDS_OR_COLORS, ls.MAPILLARY66),
    (ls.OUTSIDE_IDS, ls.OUTSIDE24),
    (ls.ADE20K_IDS, ls.ADE20K150),
]
ids = pytest.mark.parametrize(("encoding", "space"), ENCODINGS, ids=[e.name for e, _ in ENCODINGS])


def label_of(encoding: ls.Encoding, picks: list[int], width: int) -> np.ndarray:
    values = [encoding.ids[k % len(encoding.ids)][0] for k in picks]
    return np.resize(np.array(values, dtype=np.uint8), (max(1, len(values) // width), width))


def expected(raw: np.ndarray, encoding: ls.Encoding) -> list[list[int]]:
    table = dict(encoding.ids)
    return [[table[int(value)] for value in row] for row in raw]


@ids
@settings(deadline=None, derandomize=True, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(picks=st.lists(st.integers(0, 400), min_size=4, max_size=40), width=st.integers(1, 4))
def test_every_storage_of_ids_reads_the_same(
    tmp_path: Path, encoding: ls.Encoding, space: ls.LabelSpace, picks: list[int], width: int
) -> None:
    raw = label_of(encoding, picks, width)
    palette = Image.fromarray(raw)
    palette = palette.convert("P")
    palette.putdata(raw.ravel().tolist())
    stored = {
        "grey": Image.fromarray(raw),
        "palette": palette,
        "sixteen": Image.fromarray(raw.astype(np.uint16)),
    }
    if not encoding.colors:
        stored["rgb"] = Image.fromarray(np.stack([raw] * 3, axis=-1))
        stored["rgba"] = Image.fromarray(np.dstack([raw, raw, raw, np.full_like(raw, 255)]))
    for name, image in stored.items():
        image.save(tmp_path / f"{name}.png")
        assert read_label(tmp_path / f"{name}.png", encoding, space).tolist() == expected(raw, encoding), name


def test_labels_by_color(tmp_path: Path) -> None:
    ids = np.arange(66, dtype=np.uint8).reshape(6, 11)
    colors = np.array(ls.MAPILLARY66.palette, dtype=np.uint8)[ids]
    cv2.imwrite(str(tmp_path / "x.png"), colors[..., ::-1])
    assert np.array_equal(read_label(tmp_path / "x.png", ls.MAPILLARY_IDS_OR_COLORS, ls.MAPILLARY66), ids)
    colors[2, 3] = (1, 2, 3)
    cv2.imwrite(str(tmp_path / "y.png"), colors[..., ::-1])
    with pytest.raises(UnknownLabelValueError, match=r"y\.png: colour \(1, 2, 3\) at row 2, column 3, 1 pixels"):
        read_label(tmp_path / "y.png", ls.MAPILLARY_IDS_OR_COLORS, ls.MAPILLARY66)


def test_sixteen_bit_value_does_not_wrap(tmp_path: Path) -> None:
    raw = np.zeros((4, 5), dtype=np.uint16)
    raw[1, 2] = 259
    Image.fromarray(raw).save(tmp_path / "x.png")
    with pytest.raises(UnknownLabelValueError) as error:
        read_label(tmp_path / "x.png", ls.CITYSCAPES_TRAIN_IDS, ls.CITYSCAPES19)
    assert f"{tmp_path / 'x.png'}: value 259 at row 1, column 2, 1 pixels" in str(error.value)
    assert "0..18, 255" in str(error.value)


def test_unknown_value_names_the_others_too(tmp_path: Path) -> None:
    Image.fromarray(np.array([[19, 200], [19, 0]], dtype=np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(
        UnknownLabelValueError, match=r"value 19 \(and 1 other unknown value\) at row 0, column 0, 3 pix"
    ):
        read_label(tmp_path / "x.png", ls.CITYSCAPES_TRAIN_IDS, ls.CITYSCAPES19)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_shallow_grey_is_not_scaled(tmp_path: Path, depth: int) -> None:
    """PIL and OpenCV stretch shallow grey to 0..255; class ids must stay what they are."""
    raw = (np.arange(16) % 2**depth).reshape(2, 8).astype(np.uint8)
    rows = b""
    for row in raw:
        bits = "".join(f"{int(value):0{depth}b}" for value in row)
        rows += b"\0" + bytes(int(bits[k : k + 8].ljust(8, "0"), 2) for k in range(0, len(bits), 8))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 2, depth, 0, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(content)
    assert np.array_equal(read_label(tmp_path / "x.png", ls.CITYSCAPES_TRAIN_IDS, ls.CITYSCAPES19), raw)


def test_what_labels_cannot_be(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "deep.png"), rng.integers(0, 65536, (4, 4, 3), dtype=np.uint16))
    Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(tmp_path / "color.png")
    Image.fromarray(np.zeros((4, 4, 4), dtype=np.uint8)).save(tmp_path / "clear.png")
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "float.tiff")
    for name, message in (
        ("deep.png", "16-bit colour"),
        ("color.png", "three different channels"),
        ("clear.png", "transparent"),
        ("float.tiff", "mode F"),
        ("absent.png", "does not exist"),
    ):
        with pytest.raises(ProveError, match=rf"{name}.*{message}"):
            read_label(tmp_path / name, ls.CITYSCAPES_TRAIN_IDS, ls.CITYSCAPES19)


def test_images_are_rgb_and_deep_ones_refused(tmp_path: Path) -> None:
    path = write_image(tmp_path / "x.png")
    assert np.array_equal(read_image(path), cv2.imread(str(path))[..., ::-1])
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((4, 4, 3), 300, dtype=np.uint16))
    Image.new("CMYK", (4, 4)).save(tmp_path / "print.jpg")
    for name in ("deep.png", "print.jpg"):
        with pytest.raises(ProveError, match=name):
            read_image(tmp_path / name)


@pytest.mark.parametrize("cut", [0, 20, 40, 120])
def test_damaged_files_are_named(tmp_path: Path, cut: int) -> None:
    whole = write_image(tmp_path / "x.png", 32, 32).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:cut])
    with pytest.raises(ProveError, match=r"cut\.png"):
        read_image(tmp_path / "cut.png")
    with pytest.raises(ProveError, match=r"cut\.png"):
        read_label(tmp_path / "cut.png", ls.CAMVID_IDS, ls.CAMVID11)


def test_encoding_must_fit_the_label_space(tmp_path: Path) -> None:
    with pytest.raises(ProveError, match=r"leads to train id 11, but label space 'camvid11' has classes 0\.\.10"):
        read_label(tmp_path / "x.png", ls.CITYSCAPES_TRAIN_IDS, ls.CAMVID11)


@settings(deadline=None, derandomize=True, max_examples=20)
@given(height=st.integers(1, 300), width=st.integers(1, 300), channels=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_stored_png_is_read_by_others(height: int, width: int, channels: int, seed: int) -> None:
    shape = (height, width) if channels == 1 else (height, width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    decoded = cv2.imdecode(np.frombuffer(png_bytes(pixels), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(decoded if channels == 1 else decoded[..., ::-1], pixels)
