"""PNG files whose bytes depend on the pixels alone.

zlib and its successors compress the same data to different bytes, depending on version and processor. Stored
(uncompressed) blocks leave no choice.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

_STORED_MAX = 65535


def png_bytes(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode uint8 [H, W] (grey) or [H, W, 3] (RGB) as PNG."""
    height, width = pixels.shape[:2]
    color_type = 0 if pixels.ndim == 2 else 2
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    no_filter = np.zeros((height, 1), dtype=np.uint8)
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    data = _stored(np.hstack([no_filter, rows]).tobytes())
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _stored(data: bytes) -> bytes:
    """A zlib stream of stored blocks (RFC 1950, RFC 1951 section 3.2.4)."""
    pieces = [b"\x78\x01"]
    for start in range(0, len(data), _STORED_MAX):
        block = data[start : start + _STORED_MAX]
        last = start + _STORED_MAX >= len(data)
        pieces.append(struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block)
    return b"".join(pieces) + struct.pack(">I", zlib.adler32(data))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
