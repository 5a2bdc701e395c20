"""The file around the coded latents; ``docs/bitstream.md`` lists it byte by byte.

Every field read is checked against its bounds before it is used, and the checksum over all bytes before anything
is decoded, so damage is an error and never a wrong picture.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from aicr_ext.errors import (
    ChecksumError,
    FormatError,
    ImageTooLargeError,
    ModelMismatchError,
    TruncatedError,
    UnsupportedVersionError,
)
from aicr_ext.model.config import CONFIGS, QUALITIES
from aicr_ext.ops.rans import MAX_STREAMS

__all__ = ["MAX_PIXELS", "MAX_SIDE", "Header", "StreamInfo", "pack", "read_info", "unpack"]

MAGIC = b"AICR"
VERSION = 1
#: Largest width or height a header may name.
MAX_SIDE = 1 << 20
#: Default limit on the pixels of a picture to decode (134 megapixels).
MAX_PIXELS = 1 << 27
_WEIGHT_HASH = 4
_CHECKSUM = 4
#: Flag: the latents are several streams, with a table of their lengths.
_SEVERAL = 1
_SMALLEST = len(MAGIC) + 4 + _WEIGHT_HASH + 3 + _CHECKSUM


@dataclass(frozen=True)
class Header:
    """What a file says before its latents: model, first bytes of the SHA-256 of weights and tables, quality, size."""

    model: str
    weight_hash: bytes
    quality: int
    width: int
    height: int


@dataclass(frozen=True)
class StreamInfo:
    """What :func:`aicr_ext.read_info` tells of a file without decoding it.

    Attributes:
        width, height: of the picture, in pixels.
        model: name of the model; ``weight_hash``: first 8 hexadecimal digits of the SHA-256 of its weights and of the
            coder's tables.
        quality: 0..63. ``version``: of the file format. ``streams``: into how many the latents are cut.
        sections: bytes of each part of the file, in file order. ``total_bytes``: their sum.
    """

    width: int
    height: int
    model: str
    weight_hash: str
    quality: int
    version: int
    streams: int
    sections: dict[str, int]
    total_bytes: int

    @property
    def bpp(self) -> float:
        """Bits per pixel of the whole file."""
        return 8 * self.total_bytes / (self.width * self.height)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: memoryview, at: int, name: str) -> tuple[int, int]:
    """Value and following position; at most five bytes, no longer than needed."""
    value = 0
    for count in range(5):
        if at + count >= len(data):
            raise TruncatedError(f"the bytes end inside the field {name!r}")
        byte = data[at + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if byte == 0 and count:
                break
            return value, at + count + 1
    raise FormatError(f"field {name!r} is not a number this format writes")


def pack(header: Header, streams: Sequence[bytes | memoryview]) -> bytes:
    """The bytes of a file with 1 to 256 coded streams."""
    if not 1 <= len(streams) <= MAX_STREAMS:
        raise ValueError(f"streams must be 1 to {MAX_STREAMS}, got {len(streams)}")
    flags = _SEVERAL if len(streams) > 1 else 0
    latents = _table(streams) + b"".join(streams)
    body = b"".join(
        (
            MAGIC,
            bytes((VERSION, CONFIGS[header.model].wire_id, flags, header.quality)),
            header.weight_hash[:_WEIGHT_HASH],
            _varint(header.width),
            _varint(header.height),
            _varint(len(latents)),
            latents,
        )
    )
    return body + zlib.crc32(body).to_bytes(_CHECKSUM, "little")


def unpack(data: bytes | bytearray | memoryview, max_pixels: int = MAX_PIXELS) -> tuple[Header, list[memoryview]]:
    """Header and coded streams of a file, after every check that needs no model.

    Raises:
        FormatError, UnsupportedVersionError, TruncatedError, ChecksumError, ModelMismatchError, ImageTooLargeError:
            see :mod:`aicr_ext.errors`; the message names the field and what is accepted.
    """
    data = memoryview(data).cast("B")
    if not len(data):
        raise TruncatedError("the file is empty")
    if bytes(data[:4]) != MAGIC[: len(data)]:
        raise FormatError(f"not an AICR file: it begins with {bytes(data[:4])!r}, not {MAGIC!r}")
    if len(data) < _SMALLEST:
        raise TruncatedError(f"the file ends after {len(data)} bytes, inside its header")
    version, wire_id, flags, quality = data[4:8]
    if version != VERSION:
        raise UnsupportedVersionError(f"format version {version}; this package reads version {VERSION}")
    if flags & ~_SEVERAL:
        raise FormatError(f"unknown flags {flags:#04x} in the header")
    if quality >= QUALITIES:
        raise FormatError(f"quality {quality} in the header; qualities are 0 to {QUALITIES - 1}")
    weight_hash = bytes(data[8 : 8 + _WEIGHT_HASH])
    width, at = _read_varint(data, 8 + _WEIGHT_HASH, "width")
    height, at = _read_varint(data, at, "height")
    size, at = _read_varint(data, at, "length of the latents")
    for name, side in (("width", width), ("height", height)):
        if not 1 <= side <= MAX_SIDE:
            raise FormatError(f"{name} {side} in the header; sides are 1 to {MAX_SIDE}")
    if len(data) != at + size + _CHECKSUM:
        raise TruncatedError(f"the header names {at + size + _CHECKSUM} bytes, the file has {len(data)}")
    if zlib.crc32(data[:-_CHECKSUM]) != int.from_bytes(data[-_CHECKSUM:], "little"):
        raise ChecksumError("the file is damaged: its checksum does not match")
    latents = data[at : at + size]
    streams = _split(latents) if flags & _SEVERAL else [latents]
    names = {config.wire_id: name for name, config in CONFIGS.items()}
    if wire_id not in names:
        known = ", ".join(f"{i} ({name})" for i, name in sorted(names.items()))
        raise ModelMismatchError(f"the file was made with model number {wire_id}; this package knows {known}")
    if width * height > max_pixels:
        raise ImageTooLargeError(f"{width} x {height} pixels are more than max_pixels={max_pixels}")
    return Header(names[wire_id], weight_hash, quality, width, height), streams


def _table(streams: Sequence[bytes | memoryview]) -> bytes:
    """The number of streams and the lengths of all but the last; nothing for one stream."""
    return b"".join(map(_varint, (len(streams), *map(len, streams[:-1])))) if len(streams) > 1 else b""


def _split(latents: memoryview) -> list[memoryview]:
    """The streams behind a table of their number and of the lengths of all but the last."""
    count, at = _read_varint(latents, 0, "number of streams")
    if not 2 <= count <= MAX_STREAMS:
        raise FormatError(f"number of streams {count}; a file with a table of streams has 2 to {MAX_STREAMS}")
    lengths = []
    for stream in range(1, count):
        length, at = _read_varint(latents, at, f"length of stream {stream}")
        lengths.append(length)
    rest = len(latents) - at - sum(lengths)
    if rest < 0:
        raise TruncatedError(
            f"all streams but the last take {sum(lengths)} bytes, the latents have {len(latents) - at} for them"
        )
    streams = []
    for length in (*lengths, rest):
        streams.append(latents[at : at + length])
        at += length
    return streams


def read_info(data: bytes | bytearray | memoryview) -> StreamInfo:
    """Size, model, quality and section lengths of a file, without decoding it.

    Raises:
        BitstreamError: as :func:`aicr_ext.decompress`, except that no model is needed and no size is too large.
    """
    header, streams = unpack(data, max_pixels=MAX_SIDE**2)
    total = memoryview(data).nbytes
    latents = len(_table(streams)) + sum(map(len, streams))
    sections = {"header": total - latents - _CHECKSUM, "latents": latents, "checksum": _CHECKSUM}
    return StreamInfo(
        header.width,
        header.height,
        header.model,
        header.weight_hash.hex(),
        header.quality,
        VERSION,
        len(streams),
        sections,
        total,
    )
