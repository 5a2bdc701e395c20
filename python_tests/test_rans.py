"""The entropy coder: round trips, size, determinism, the Python twin, and damage of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from coder_cases import (
    INT16,
    ISAS,
    ONE,
    SIZES,
    assert_round_trip,
    decode,
    draw,
    encode,
    mixed_tables,
    random_row,
    tables_of,
    using,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from aicr_ext import _native
from aicr_ext.codec.rans import Decoder, Encoder, TableSet
from aicr_ext.codec.rans_reference import alias_slots, decode_reference
from aicr_ext.codec.tables import gaussian_probabilities, gaussian_sigmas, gaussian_tables
from aicr_ext.errors import BitstreamError, ChecksumError, FormatError, TruncatedError


@pytest.fixture(scope="module", params=ISAS, autouse=True)
def isa(request):
    """Every test of this file runs with each instruction set the processor has."""
    with using(request.param):
        yield request.param


@pytest.fixture(scope="module")
def mixed() -> TableSet:
    return mixed_tables()


# Round trips


@pytest.mark.parametrize("lanes", [8, 32, None])
@pytest.mark.parametrize("size", SIZES)
def test_round_trip(mixed, size, lanes):
    symbols, index = draw(np.random.default_rng(size), mixed, size)
    assert_round_trip(symbols, index, mixed, lanes)


@pytest.mark.parametrize("lanes", [8, 32])
def test_every_table_and_symbol(lanes):
    """Each symbol a Gaussian table holds, one beyond either end, and the extremes of int16."""
    tables = gaussian_tables()
    symbols, index = [], []
    for t in range(1, len(tables)):
        half = 1 << int(tables.shifts[t]) >> 1
        low = (int(tables.offsets[t]) << int(tables.shifts[t])) - half
        high = (int(tables.offsets[t] + tables.sizes[t] - 1) << int(tables.shifts[t])) - half
        values = [*range(low - 1, high + 1), INT16.min, INT16.max]
        symbols += values
        index += [t] * len(values)
    assert_round_trip(np.array(symbols, np.int16), np.array(index, np.uint8), tables, lanes)


@pytest.mark.parametrize("size", SIZES)
def test_all_skipped_costs_nothing(mixed, size):
    data = assert_round_trip(np.zeros(size, np.int16), np.zeros(size, np.uint8), mixed)
    assert len(data) == len(Encoder().finish())


@pytest.mark.parametrize("table", [1, 2, 4, 7])
def test_all_escapes(mixed, table):
    symbols = np.tile(np.array([INT16.min, INT16.max, INT16.min + 1, INT16.max - 1], np.int16), 300)
    assert_round_trip(symbols, np.full(len(symbols), table, np.uint8), mixed)


@pytest.mark.parametrize("shift", range(13))
@pytest.mark.parametrize("offset", [-32768, -1, 0, 32767])
def test_every_int16_with_every_shift(shift, offset):
    tables = tables_of([[ONE // 2, ONE // 2]], [offset], [shift])
    symbols = np.arange(INT16.min, INT16.max + 1).astype(np.int16)
    assert_round_trip(symbols, np.zeros(len(symbols), np.uint8), tables)


@pytest.mark.parametrize("frequency", [*range(1, 140), 255, 256, 257, 4095, 4097, 8191, 8192, 8193, ONE - 2, ONE - 1])
def test_division_by_reciprocal_is_exact(frequency):
    """States of their whole range, divided by each frequency: a wrong quotient could not be undone."""
    tables = tables_of([[frequency, ONE - frequency]])
    symbols = np.random.default_rng(frequency).integers(0, 2, 20_000).astype(np.int16)
    assert_round_trip(symbols, np.zeros(len(symbols), np.uint8), tables, lanes=8)


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(0, 400), max_size=4),
    lanes=st.sampled_from([8, 32]),
)
@settings(max_examples=60, deadline=None)
def test_segments(seed, sizes, lanes):
    """Segments of any sizes, each with tables of its own, and the twin reads what the native coder wrote."""
    rng = np.random.default_rng(seed)
    segments = []
    for size in sizes:
        rows = [random_row(rng, int(rng.integers(2, 65))) for _ in range(rng.integers(1, 4))] + [[]]
        offsets = rng.integers(-40, 10, len(rows)).tolist()
        tables = tables_of(rows, offsets, rng.integers(0, 5, len(rows)).tolist())
        segments.append((*draw(rng, tables, size), tables))
    data = encode(*segments, lanes=lanes)
    keys = [(index, tables) for _, index, tables in segments]
    for decoder in (decode(data, *keys), decode_reference(data, keys)):
        assert len(decoder) == len(segments)
        for got, (symbols, _, _) in zip(decoder, segments, strict=True):
            np.testing.assert_array_equal(got, symbols)


def test_nothing_pushed():
    data = Encoder().finish()
    assert len(data) == 3 + 4 * 8
    Decoder(data).finish()
    assert decode_reference(data, []) == []


# The bytes


def test_bytes_are_pinned():
    """A stream as docs/bitstream.md describes it, spelled out: format changes must show here."""
    tables = tables_of([[4096, 8192, 4000, 96], []], [-1, 0], [0, 0])
    data = encode((np.array([0, 1, -1, 0, 9], np.int16), np.array([0, 0, 0, 1, 0], np.uint8), tables))
    crc = _native.require_C().crc32c(np.array([0, 1, -1, 0, 9], "<i2").tobytes())
    assert crc == 0x3584961C
    # What the encoder begins with. Lane 1 codes the escape, of frequency 96, in slots 0 to 95: 0xEB09 = 626 * 96 + 73
    # becomes 626 * 2^14 + 73 = 0x9C8049.
    assert [0x8000 + (crc >> shift & 0x7FFF) for shift in (0, 15, 30)] == [0x961C, 0xEB09, 0x8000]
    assert data.hex() == (
        "080000"  # lanes, words, raw bytes
        + "5c261300"
        + "49809c00"
        + "00800000" * 6  # states
        + "08"  # the escape of 9: 001 and 1, low bit first
    )


def test_encoding_is_deterministic(mixed):
    symbols, index = draw(np.random.default_rng(7), mixed, 5000)
    data = encode((symbols, index, mixed))
    encoder = Encoder()
    encoder.push(symbols.copy(), index.copy(), mixed)
    assert encoder.finish() == encoder.finish() == data


def test_lanes_follow_the_size_of_the_payload():
    tables = tables_of([[256] * 64])
    rng = np.random.default_rng(0)
    for count, lanes in ((30_000, 8), (60_000, 32)):  # 6 bits each: 22 KiB and 44 KiB
        symbols = rng.integers(0, 63, count).astype(np.int16)
        assert assert_round_trip(symbols, np.zeros(count, np.uint8), tables)[0] == lanes


@pytest.mark.parametrize("skewed", [False, True])
def test_size_is_near_the_ideal(skewed):
    """Against the entropy of the Gaussians: tables, coder, raw bits, escapes and header together."""
    rng = np.random.default_rng(3)
    sigmas = gaussian_sigmas()
    weights = np.exp(-np.arange(128) / 16) if skewed else np.ones(128)
    weights[0] = 0
    index = rng.choice(128, 2_000_000, p=weights / weights.sum()).astype(np.uint8)
    symbols = np.rint(rng.normal(size=index.size) * sigmas[index]).astype(np.int16)
    ideal = 0.0
    for t in range(1, 128):
        p, first = gaussian_probabilities(sigmas[t])
        ideal -= np.log2(p[symbols[index == t] - first]).sum()
    size = 8 * len(assert_round_trip(symbols, index, gaussian_tables()))
    assert 0 <= size / ideal - 1 < 0.002


def test_alias_slots_cover_every_rank_once():
    for size in (2, 3, 33, 64):
        row = random_row(np.random.default_rng(size), size)
        slots = alias_slots(row)
        assert len(slots) == ONE
        assert sorted(slots) == [(entry, rank) for entry, f in enumerate(row) for rank in range(f)]


def test_crc32c():
    native = _native.require_C()
    assert native.crc32c(b"123456789") == native.crc32c(b"123456789", portable=True) == 0xE3069283
    data = np.random.default_rng(0).bytes(9001)
    for size in (0, 1, 7, 8, 9, 1003, 2047, 2048, 2049, 4096, 9001):
        assert native.crc32c(data[:size]) == native.crc32c(data[:size], portable=True)


# Damage


@pytest.fixture(scope="module")
def small(mixed):
    symbols, index = draw(np.random.default_rng(11), mixed, 150, escapes=0.1)
    return encode((symbols, index, mixed)), symbols, index


def test_every_flipped_bit_is_noticed(mixed, small):
    data, _, index = small
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            decode(damaged, (index, mixed))


def test_every_truncation_and_extension_is_noticed(mixed, small):
    data, _, index = small
    for end in range(len(data)):
        with pytest.raises(BitstreamError):
            decode(data[:end], (index, mixed))
    with pytest.raises(TruncatedError, match="goes on after"):
        decode(data + b"\0", (index, mixed))
    with pytest.raises(TruncatedError, match="goes on after"):
        decode(encode() + b"\0")


@given(data=st.binary(max_size=300), start=st.booleans())
@settings(max_examples=300, deadline=None)
def test_random_bytes(mixed, small, data, start):
    """Noise, alone or behind a plausible header, ends in a typed error."""
    if start:
        data = small[0][: 5 + 4 * 8] + data
    if data != small[0]:
        with pytest.raises(BitstreamError):
            decode(data, (small[2], mixed))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_spliced_streams(mixed, small, seed):
    """Bytes of one stream overwritten, moved and repeated: an error, or by chance the same symbols."""
    rng = np.random.default_rng(seed)
    damaged = bytearray(small[0])
    for _ in range(rng.integers(1, 4)):
        size, source, target = rng.integers(1, 20), *rng.integers(0, len(damaged), 2)
        piece = damaged[source : source + size]
        damaged[target : target + len(piece)] = piece
    try:
        (decoded,) = decode(damaged, (small[2], mixed))
    except BitstreamError:
        return
    np.testing.assert_array_equal(decoded, small[1])


def test_asking_for_too_many_symbols_stops_at_once():
    tables = tables_of([[256] * 64])
    data = encode((np.zeros(100, np.int16), np.zeros(100, np.uint8), tables))
    decoder = Decoder(data)
    with pytest.raises(TruncatedError, match="ran out of words"):
        decoder.pop(np.zeros(10_000_000, np.uint8), tables)
    with pytest.raises(FormatError, match="damaged before"):
        decoder.pop(np.zeros(1, np.uint8), tables)
    with pytest.raises(FormatError, match="damaged before"):
        decoder.finish()


def test_asking_for_too_few_symbols():
    tables = tables_of([[256] * 64])
    data = encode((np.zeros(100, np.int16), np.zeros(100, np.uint8), tables))
    with pytest.raises(TruncatedError, match="goes on after"):
        decode(data, (np.zeros(50, np.uint8), tables))


def test_wrong_tables_fail_the_checks(mixed):
    symbols = np.arange(-20, 20, dtype=np.int16)
    index = np.full(40, 3, np.uint8)
    data = encode((symbols, index, mixed))
    with pytest.raises(BitstreamError):
        decode(data, (index + 2, mixed))


def test_checksum_has_its_own_error():
    """A raw bit changes a symbol but no state; a state changes its lane's way."""
    tables, index = tables_of([[8192, 8192]], [0], [3]), np.zeros(64, np.uint8)
    data = encode((np.arange(-4, 60).astype(np.int16) % 4, index, tables))
    assert data[2] == 24  # bytes of raw bits, the last of the stream
    for at, message in ((len(data) - 24, "CRC-32C"), (3 + 4 * 7, "does not end in a state")):
        damaged = bytearray(data)
        damaged[at] ^= 1
        with pytest.raises(ChecksumError, match=message):
            decode(damaged, (index, tables))


def test_the_checksum_is_in_the_last_states():
    """Of 32 bits all: streams of one symbol that differ in it end in other states of the first three lanes."""
    tables, index = tables_of([[8192, 8192]], [0], [12]), np.zeros(1, np.uint8)
    seen = set()
    for value in range(-300, 300):
        data = encode((np.array([value], np.int16), index, tables))
        crc = _native.require_C().crc32c(np.array([value], "<i2").tobytes())
        states = np.frombuffer(data[3:35], "<u4")
        np.testing.assert_array_equal(states[1:] - 0x8000, [crc >> 15 & 0x7FFF, crc >> 30, 0, 0, 0, 0, 0])
        seen |= set(states[2:3].tolist())
    assert seen == {0x8000, 0x8001, 0x8002, 0x8003}


@pytest.mark.parametrize(
    "data, error",
    [
        (b"", TruncatedError),
        (b"\x08", TruncatedError),
        (b"\x00" * 40, FormatError),
        (b"\x10" + b"\x00" * 80, FormatError),
        (b"\x08\x80\x00\x00" + b"\x00" * 36, FormatError),  # a zero in two bytes
        (b"\x08\xff\xff\xff\xff\xff\xff" + b"\x00" * 36, FormatError),  # an endless length
        (b"\x08\x00\x00" + b"\x00" * 32, FormatError),  # states below the range
        (b"\x08\x00\x00" + b"\xff" * 32, FormatError),  # and above it
        (b"\x08\xff\xff\xff\xff\x7f\x00" + b"\x00\x80\x00\x00" * 8, TruncatedError),  # 2^36 bytes
        (b"\x08\x00\xff\xff\xff\xff\x7f" + b"\x00\x80\x00\x00" * 8, TruncatedError),
        (b"\x08\x00\x01" + b"\x00\x80\x00\x00" * 8, TruncatedError),
    ],
)
def test_bad_headers(data, error):
    with pytest.raises(error):
        Decoder(data)


# Arguments


@pytest.mark.parametrize(
    "change, message",
    [
        ({"frequencies": [[8192, 8191, 0]]}, "sum to 16384, got 16383"),
        ({"frequencies": [[16385, -1, 0]]}, "at least 1, got -1"),
        ({"frequencies": [[16384, 0, 0]]}, "at least 1, got 0"),
        ({"frequencies": [[0.5, 0.5, 0.0]]}, "frequencies must be an integer array"),
        ({"frequencies": [16384]}, "2 dimension"),
        ({"frequencies": np.zeros((1, 65), np.int64)}, "at most 64 entries, got 65"),
        ({"sizes": [1]}, r"0 \(skip\) or 2 to the row length 3, got 1"),
        ({"sizes": [4]}, "got 4"),
        ({"sizes": [-1]}, "got -1"),
        ({"sizes": [2, 2]}, "one value per row"),
        ({"offsets": [32768]}, "within int16"),
        ({"offsets": [-32769]}, "within int16"),
        ({"offsets": [2**31 - 1]}, "within int16"),
        ({"offsets": [2**40]}, "offsets must fit int32"),
        ({"shifts": [13]}, "0 to 12, got 13"),
        ({"shifts": [-1]}, "shifts must fit uint8"),
    ],
)
def test_table_arguments(change, message):
    good = {"frequencies": [[8192, 8192, 0]], "sizes": [2], "offsets": [0], "shifts": [0]}
    TableSet(**good)
    with pytest.raises(ValueError, match=message):
        TableSet(**(good | change))


@pytest.mark.parametrize("count", [0, 257])
def test_number_of_tables(count):
    rows = np.full((count, 2), 8192)
    with pytest.raises(ValueError, match="1 to 256 tables"):
        TableSet(rows, np.full(count, 2), np.zeros(count, int), np.zeros(count, int))


def test_256_tables():
    rng = np.random.default_rng(5)
    tables = tables_of([random_row(rng, 5) for _ in range(256)])
    index = np.arange(256).astype(np.uint8)
    assert_round_trip((index % 4).astype(np.int16), index, tables)


def test_table_arrays_are_copies_and_read_only():
    frequencies = np.array([[8192, 8192]], np.int32)
    tables = TableSet(frequencies, [2], [0], [0])
    before = tables.digest()
    frequencies[0] = 0
    assert tables.digest() == before
    with pytest.raises(ValueError, match="read-only"):
        tables.frequencies[0, 0] = 1


@pytest.mark.parametrize(
    "symbols, index, message",
    [
        (np.zeros(3, np.int16), np.zeros(4, np.uint8), "one length, got 3 and 4"),
        (np.zeros(3, np.int32), np.zeros(3, np.uint8), "symbols must be .* int16, got int32"),
        (np.zeros(3, np.int16), np.zeros(3, np.int64), "index must be .* uint8, got int64"),
        (np.zeros((1, 3), np.int16), np.zeros((1, 3), np.uint8), r"shape \(1, 3\)"),
        (np.zeros(6, np.int16)[::2], np.zeros(3, np.uint8), "not contiguous"),
        ([0, 0, 0], np.zeros(3, np.uint8), "symbols must be a NumPy array"),
        (np.zeros(3, np.int16), np.array([0, 9, 0], np.uint8), "number of tables, 9, got 9 at position 1"),
        (np.array([0, 0, 4], np.int16), np.array([1, 1, 0], np.uint8), "skip table, got 4 at position 2"),
    ],
)
def test_push_arguments(mixed, symbols, index, message):
    encoder = Encoder()
    with pytest.raises(ValueError, match=message):
        encoder.push(symbols, index, mixed)
    assert encoder.finish() == Encoder().finish()  # a refused push leaves nothing behind


def test_pop_arguments(mixed):
    decoder = Decoder(Encoder().finish())
    with pytest.raises(ValueError, match="number of tables, 9, got 200"):
        decoder.pop(np.array([200], np.uint8), mixed)
    with pytest.raises(ValueError, match="index must be"):
        decoder.pop(np.array([0], np.int16), mixed)
    decoder.finish()


def test_lanes_argument():
    with pytest.raises(ValueError, match="lanes must be 8, 32 or 0"):
        Encoder(16)
    data = Encoder().finish()
    for same in (bytearray(data), memoryview(data)):
        Decoder(same).finish()
