"""Reading images and labels. Nothing is guessed: what can't be read for certain is an error that names the place."""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from prove.catalog.label_spaces import Encoding, LabelSpace
from prove.errors import ProveError

UInt8 = npt.NDArray[np.uint8]
_UNKNOWN = -1
_READABLE_IMAGES = ("RGB", "RGBA", "L", "P")


class UnknownLabelValueError(ProveError):
    """A label file holds a value that its encoding doesn't list."""


def read_image(path: Path) -> UInt8:
    """An image as RGB.

    Grey and palette images become three channels and an alpha channel is dropped, as every common reader does;
    `prove data check` warns of them. EXIF rotation is not applied: labels are stored for the pixels as they are.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ProveError: unreadable, truncated, or of a depth or colour model that 8-bit RGB can't hold.
    """
    with open_checked(path) as image:
        if image.mode not in _READABLE_IMAGES or bit_depth(path) == 16:
            depth = "16 bits per channel" if bit_depth(path) == 16 else f"mode {image.mode}"
            raise ProveError(f"Image {path} has {depth}.", hint="Convert it to 8-bit RGB.")
        return np.asarray(_loaded(image, path).convert("RGB"))


def read_label(path: Path, encoding: Encoding, label_space: LabelSpace) -> UInt8:
    """A label as train ids.

    Reads one channel of 1, 2, 4, 8 or 16 bits, palette files (the index counts), three equal channels, and, if the
    encoding has colours, RGB by colour.

    Returns:
        uint8 [H, W]: train ids, 255 where to ignore.

    Raises:
        ProveError: unreadable.
        UnknownLabelValueError: a value that the encoding doesn't list; names file, value and position.
    """
    check_fits(encoding, label_space)
    raw = read_raw_label(path)
    if raw.ndim == 3:
        if encoding.colors:
            return _decode_colors(raw, encoding, path)
        if not (np.array_equal(raw[..., 0], raw[..., 1]) and np.array_equal(raw[..., 0], raw[..., 2])):
            raise ProveError(
                f"Label {path} has three different channels, but encoding {encoding.name!r} has no colours.",
                hint="For labels coded by colour, give the palette and `encoding: colors` in the dataset's YAML.",
            )
        raw = raw[..., 0]
    return _decode_ids(raw, encoding, path)


def check_fits(encoding: Encoding, label_space: LabelSpace) -> None:
    """Refuse an encoding that leads to train ids which the label space doesn't have.

    Raises:
        ProveError: such a train id exists.
    """
    targets = [train_id for _, train_id in (*encoding.ids, *encoding.colors)]
    wrong = [t for t in targets if not (0 <= t < label_space.num_classes or t == label_space.ignore_index)]
    if wrong:
        raise ProveError(
            f"Encoding {encoding.name!r} leads to train id {wrong[0]}, but label space {label_space.name!r} has "
            f"classes 0..{label_space.num_classes - 1} and {label_space.ignore_index} to ignore."
        )


def read_raw_label(path: Path) -> npt.NDArray[np.integer]:
    """The numbers in a label file as they are: [H, W], or [H, W, 3] for RGB.

    Raises:
        ProveError: unreadable, or a mode whose numbers are not class ids.
    """
    with open_checked(path) as image:
        depth = bit_depth(path)
        loaded = _loaded(image, path)
        values = np.asarray(loaded)
        mode = loaded.mode
    if mode == "1":
        return values.astype(np.uint8)
    if mode == "L" and depth in (2, 4):
        # PIL scales shallow grey to 0..255 as a brightness; class ids are what was stored.
        return np.asarray(values // (255 // (2**depth - 1)), dtype=np.uint8)
    if mode in ("L", "P", "I;16", "I;16B", "I"):
        return np.asarray(values)
    if mode in ("RGB", "RGBA") and depth != 16:
        if mode == "RGBA" and not (values[..., 3] == 255).all():
            raise ProveError(
                f"Label {path} has a transparent alpha channel.", hint="Store labels without transparency."
            )
        return np.asarray(values[..., :3])
    what = "16-bit colour" if depth == 16 else f"mode {mode}"
    raise ProveError(f"Label {path} has {what}.", hint="Store class ids in one channel, as 8 or 16-bit PNG.")


def open_checked(path: Path) -> Image.Image:
    """Open a file as an image; errors name the file, which PIL's don't."""
    try:
        return Image.open(path)
    except FileNotFoundError as error:
        raise ProveError(f"{path} does not exist.") from error
    except UnidentifiedImageError as error:
        size = path.stat().st_size
        raise ProveError(f"{path} is not an image ({'empty' if size == 0 else f'{size} bytes'}).") from error
    except (OSError, Image.DecompressionBombError) as error:
        raise ProveError(f"Can't open {path}: {error}.") from error


def bit_depth(path: Path) -> int | None:
    """Bits per channel from a PNG's header, None for other files. PIL reads 16-bit colour as 8 without a word."""
    with path.open("rb") as file:
        header = file.read(26)
    is_png = len(header) == 26 and header[:8] == b"\x89PNG\r\n\x1a\n"
    return header[24] if is_png else None


def _loaded(image: Image.Image, path: Path) -> Image.Image:
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise ProveError(f"{path} is damaged: {error}.", hint="Copy or download it again.") from error
    return image


@lru_cache(maxsize=16)
def _id_table(encoding: Encoding) -> npt.NDArray[np.int16]:
    table = np.full(max(256, *(value + 1 for value, _ in encoding.ids)), _UNKNOWN, dtype=np.int16)
    for value, train_id in encoding.ids:
        table[value] = train_id
    return table


def _decode_ids(raw: npt.NDArray[np.integer], encoding: Encoding, path: Path) -> UInt8:
    table = _id_table(encoding)
    if raw.dtype == np.uint8:
        decoded = table[raw]
    else:
        inside = (raw >= 0) & (raw < len(table))
        decoded = np.where(inside, table[np.where(inside, raw, 0)], _UNKNOWN)
    if (decoded == _UNKNOWN).any():
        raise _unknown_value(decoded == _UNKNOWN, raw, encoding, path)
    return np.asarray(decoded, dtype=np.uint8)


def _decode_colors(raw: npt.NDArray[np.integer], encoding: Encoding, path: Path) -> UInt8:
    channels = raw.astype(np.int32)
    packed = (channels[..., 0] << 16) | (channels[..., 1] << 8) | channels[..., 2]
    known = sorted(((r << 16) | (g << 8) | b, train_id) for (r, g, b), train_id in encoding.colors)
    codes = np.array([code for code, _ in known], dtype=np.int32)
    ids = np.array([train_id for _, train_id in known], dtype=np.uint8)
    index = np.minimum(np.searchsorted(codes, packed), len(codes) - 1)
    wrong = codes[index] != packed
    if wrong.any():
        raise _unknown_value(wrong, raw, encoding, path)
    decoded: UInt8 = ids[index]
    return decoded


def _unknown_value(
    wrong: npt.NDArray[np.bool_], raw: npt.NDArray[np.integer], encoding: Encoding, path: Path
) -> UnknownLabelValueError:
    row, column = (int(k) for k in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
    if raw.ndim == 3:
        value = f"colour {tuple(int(k) for k in raw[row, column])}"
        valid = f"one of {len(encoding.colors)} colours"
    else:
        others = np.unique(raw[wrong])
        value = f"value {int(raw[row, column])}"
        if len(others) > 1:
            value += f" (and {len(others) - 1} other unknown value{'s' if len(others) > 2 else ''})"
        valid = _ranges(sorted(v for v, _ in encoding.ids))
    return UnknownLabelValueError(
        f"Label {path}: {value} at row {row}, column {column}, {int(wrong.sum())} pixels in all; "
        f"encoding {encoding.name!r} knows {valid}.",
        hint="Correct the label, or name the right encoding.",
    )


def _ranges(values: list[int]) -> str:
    """[0, 1, 2, 255] → '0..2, 255'."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], value]
        else:
            parts.append([value])
    return ", ".join(f"{part[0]}..{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
