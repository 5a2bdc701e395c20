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
    data = bytearray(pack(HEADER, [b"payload"])[:-4])
    positions = {"version": 4, "model": 5, "flags": 6, "quality": 7}
    for name, value in changes.items():
        data[positions[name]] = value
    return data


@given(
    st.integers(1, MAX_SIDE),
    st.integers(1, MAX_SIDE),
    st.integers(0, 63),
    st.lists(st.binary(max_size=300), min_size=1, max_size=256),
    st.sampled_from(["aicr-t", "aicr-s", "aicr-l"]),
)
def test_what_is_packed_comes_back(width, height, quality, streams, model):
    header = Header(model, b"abcd", quality, width, height)
    data = pack(header, streams)
    got, sections = unpack(data, max_pixels=MAX_SIDE**2)
    assert got == header
    assert [bytes(section) for section in sections] == streams
    assert read_info(data).streams == len(streams)


@pytest.mark.parametrize("count", [0, 257])
def test_number_of_streams(count):
    with pytest.raises(ValueError, match=f"streams must be 1 to 256, got {count}"):
        pack(HEADER, [b""] * count)


def test_read_info_names_everything():
    data = pack(HEADER, [b"payload"])
    info = read_info(data)
    assert (info.width, info.height, info.model, info.quality) == (300, 200, "aicr-t", 32)
    assert (info.version, info.weight_hash, info.streams) == (1, "01020304", 1)
    assert info.sections == {"header": 17, "latents": 7, "checksum": 4}
    assert info.total_bytes == len(data) == sum(info.sections.values())
    assert info.bpp == 8 * len(data) / 60000
    several = read_info(pack(HEADER, [b"pay", b"", b"load"]))
    assert (several.streams, several.sections) == (3, {"header": 17, "latents": 10, "checksum": 4})


def test_the_table_of_streams_is_pinned():
    data = pack(HEADER, [bytes(300), b"b", b"c"])
    assert data[6] == 1
    assert data[16:22] == b"\xb2\x02" + b"\x03" + b"\xac\x02" + b"\x01"  # 306 bytes; three streams, 300, 1
    assert len(data) == 22 + 302 + 4


def latents(data: bytes) -> bytes:
    """A file with the flag of several streams and these bytes as latents."""
    return with_crc(body(flags=1)[:16] + bytes([len(data)]) + data)


@pytest.mark.parametrize(
    "data, error, words",
    [
        (b"", errors.TruncatedError, "empty"),
        (b"AI", errors.TruncatedError, "ends after 2 bytes"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), errors.FormatError, "not an AICR file"),
        (b"\x00", errors.FormatError, "not an AICR file"),
        (with_crc(body(version=2)), errors.UnsupportedVersionError, "version 2"),
        (with_crc(body(model=77)), errors.ModelMismatchError, "model number 77"),
        (with_crc(body(flags=2)), errors.FormatError, "flags 0x02"),
        (with_crc(body(flags=129)), errors.FormatError, "flags 0x81"),
        (latents(b""), errors.TruncatedError, "number of streams"),
        (latents(b"\x00"), errors.FormatError, "number of streams 0; .* 2 to 256"),
        (latents(b"\x01a"), errors.FormatError, "streams 1;"),
        (latents(b"\x81\x02" + bytes(100)), errors.FormatError, "streams 257;"),
        (latents(b"\xff\xff\xff\xff\x7f"), errors.FormatError, "streams 34359738367;"),
        (latents(b"\x82\x00\x00"), errors.FormatError, "number of streams"),
        (latents(b"\x03\x00"), errors.TruncatedError, "length of stream 2"),
        (latents(b"\x03\x00\x80\x00"), errors.FormatError, "length of stream 2"),
        (latents(b"\x03\x01\x02ab"), errors.TruncatedError, "take 3 bytes, the latents have 2"),
        (latents(b"\x02\xff\xff\xff\xff\x7fab"), errors.TruncatedError, "take 34359738367 bytes"),
        (with_crc(body(quality=64)), errors.FormatError, "quality 64"),
        (with_crc(body()[:12] + b"\x00\x01\x00"), errors.FormatError, "width 0"),
        (with_crc(body()[:12] + b"\x01\xff\xff\xff\x7f\x00"), errors.FormatError, "height"),
        (with_crc(body()[:12] + b"\xff\xff\xff\xff\xff\x01\x00"), errors.FormatError, "width"),
        (with_crc(body()[:12] + b"\x81\x00\x01\x00"), errors.FormatError, "width"),
        (pack(HEADER, [b"payload"]) + b"x", errors.TruncatedError, "file has"),
        (pack(HEADER, [b"payload"])[:-1], errors.TruncatedError, "file has"),
        (with_crc(body()[:14]), errors.BitstreamError, "ends|names"),
        (pack(HEADER, [b"payload"])[:-5] + b"\0\0\0\0\0", errors.ChecksumError, "damaged"),
    ],
)
def test_bad_files(data, error, words):
    with pytest.raises(error, match=words):
        unpack(data)


def test_max_pixels_is_checked_before_anything_is_allocated():
    data = pack(Header("aicr-t", b"abcd", 1, MAX_SIDE, MAX_SIDE), [b""])
    with pytest.raises(errors.ImageTooLargeError, match="max_pixels=134217728"):
        unpack(data)
    with pytest.raises(errors.ImageTooLargeError, match="max_pixels=59999"):
        unpack(pack(HEADER, [b""]), max_pixels=59999)
    assert unpack(pack(HEADER, [b""]), max_pixels=60000)[0] == HEADER


def test_every_single_bit_flip_is_an_error():
    for data in (pack(HEADER, [bytes(range(20))]), pack(HEADER, [b"ab", b"", bytes(range(20))])):
        assert_flips_are_errors(data)


def assert_flips_are_errors(data: bytes) -> None:
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(errors.BitstreamError):
            unpack(damaged, max_pixels=MAX_SIDE**2)


@given(st.binary(max_size=60))
def test_any_table_of_streams(data):
    try:
        header, streams = unpack(latents(data))
    except errors.BitstreamError:
        return
    assert 2 <= len(streams) <= 256
    assert pack(header, streams) == latents(data)


@given(st.binary(max_size=60))
def test_random_bytes_are_errors(data):
    with pytest.raises(errors.BitstreamError):
        unpack(data)
    with pytest.raises(errors.BitstreamError):
        unpack(b"AICR\x01\x03\x00" + data)
