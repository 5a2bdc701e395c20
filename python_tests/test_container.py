"""The file format: round trips, and every way a file can be wrong."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aicr_ext import errors
from aicr_ext.codec.container import MAX_SIDE, Header, pack, read_info, unpack

HEADER = Header("aicr-t", b"\x01\x02\x03\x04", 32, 300, 200)


def with_crc(body: bytes) -> bytes:
    """A file whose checksum is right, whatever its header says."""
    return body + zlib.crc32(body).to_bytes(4, "little")


def body(**changes: int) -> bytearray:
    """The bytes of a valid file without its checksum, some single bytes changed by position name."""
    data = bytearray(pack(HEADER, b"payload")[:-4])
    positions = {"version": 4, "model": 5, "flags": 6, "quality": 7}
    for name, value in changes.items():
        data[positions[name]] = value
    return data


@given(
    st.integers(1, MAX_SIDE),
    st.integers(1, MAX_SIDE),
    st.integers(0, 63),
    st.binary(max_size=300),
    st.sampled_from(["aicr-t", "aicr-s", "aicr-l"]),
)
def test_what_is_packed_comes_back(width, height, quality, payload, model):
    header = Header(model, b"abcd", quality, width, height)
    got, section = unpack(pack(header, payload), max_pixels=MAX_SIDE**2)
    assert got == header
    assert bytes(section) == payload


def test_read_info_names_everything():
    data = pack(HEADER, b"payload")
    info = read_info(data)
    assert (info.width, info.height, info.model, info.quality) == (300, 200, "aicr-t", 32)
    assert (info.version, info.weight_hash) == (1, "01020304")
    assert info.sections == {"header": 17, "latents": 7, "checksum": 4}
    assert info.total_bytes == len(data) == sum(info.sections.values())
    assert info.bpp == 8 * len(data) / 60000


@pytest.mark.parametrize(
    "data, error, words",
    [
        (b"", errors.TruncatedError, "empty"),
        (b"AI", errors.TruncatedError, "ends after 2 bytes"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), errors.FormatError, "not an AICR file"),
        (b"\x00", errors.FormatError, "not an AICR file"),
        (with_crc(body(version=2)), errors.UnsupportedVersionError, "version 2"),
        (with_crc(body(model=77)), errors.ModelMismatchError, "model number 77"),
        (with_crc(body(flags=1)), errors.FormatError, "flags 0x01"),
        (with_crc(body(quality=64)), errors.FormatError, "quality 64"),
        (with_crc(body()[:12] + b"\x00\x01\x00"), errors.FormatError, "width 0"),
        (with_crc(body()[:12] + b"\x01\xff\xff\xff\x7f\x00"), errors.FormatError, "height"),
        (with_crc(body()[:12] + b"\xff\xff\xff\xff\xff\x01\x00"), errors.FormatError, "width"),
        (with_crc(body()[:12] + b"\x81\x00\x01\x00"), errors.FormatError, "width"),
        (pack(HEADER, b"payload") + b"x", errors.TruncatedError, "file has"),
        (pack(HEADER, b"payload")[:-1], errors.TruncatedError, "file has"),
        (with_crc(body()[:14]), errors.BitstreamError, "ends|names"),
        (pack(HEADER, b"payload")[:-5] + b"\0\0\0\0\0", errors.ChecksumError, "damaged"),
    ],
)
def test_bad_files(data, error, words):
    with pytest.raises(error, match=words):
        unpack(data)


def test_max_pixels_is_checked_before_anything_is_allocated():
    data = pack(Header("aicr-t", b"abcd", 1, MAX_SIDE, MAX_SIDE), b"")
    with pytest.raises(errors.ImageTooLargeError, match="max_pixels=134217728"):
        unpack(data)
    with pytest.raises(errors.ImageTooLargeError, match="max_pixels=59999"):
        unpack(pack(HEADER, b""), max_pixels=59999)
    assert unpack(pack(HEADER, b""), max_pixels=60000)[0] == HEADER


def test_every_single_bit_flip_is_an_error():
    data = pack(HEADER, bytes(range(20)))
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(errors.BitstreamError):
            unpack(damaged, max_pixels=MAX_SIDE**2)


@given(st.binary(max_size=60))
def test_random_bytes_are_errors(data):
    with pytest.raises(errors.BitstreamError):
        unpack(data)
    with pytest.raises(errors.BitstreamError):
        unpack(b"AICR\x01\x03\x00" + data)
