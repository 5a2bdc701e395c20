"""Small pictures and image files that the tests of the shell share."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def smooth(width: int = 64, height: int = 48) -> Image.Image:
    """A picture that a codec for photographs can handle: smooth, coloured, no two corners alike."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    y, x = y / height, x / width
    channels = [0.9 * x + 0.1 * y, 0.5 + 0.4 * np.sin(4 * x) * np.cos(3 * y), 0.2 + 0.6 * (1 - y) * x]
    return Image.fromarray((255 * np.stack(channels, -1)).round().clip(0, 255).astype(np.uint8))


def pixels(image: Image.Image) -> np.ndarray:
    """The samples as signed integers, so that differences do not wrap."""
    return np.asarray(image).astype(np.int64)


def write_png16(path: Path, channels: int, width: int = 8, height: int = 6) -> None:
    """A PNG with 16 bits per channel, which Pillow cannot write in colour (1 = grey, 3 = RGB, 4 = RGBA)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    colour_type = {1: 0, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(range(2 * channels * width)) for _ in range(height))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
