"""The coder's instruction sets against one another: the same bytes, symbols and errors from all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from coder_cases import INT16, ISAS, ONE, SIZES, decode, draw, encode, mixed_tables, random_row, tables_of, using

from aicr_ext import _native
from aicr_ext.codec.rans import Decoder, Encoder, TableSet
from aicr_ext.codec.rans_reference import decode_reference
from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.errors import BitstreamError, TruncatedError
from aicr_ext.ops.rans import even_splits

GOLDEN = Path(__file__).with_name("golden") / "coder.npz"


@pytest.fixture(scope="module")
def sets() -> dict[str, TableSet]:
    """Sets the vector code handles in whole, and one whose offsets and shifts leave it only the lanes."""
    rng = np.random.default_rng(2)
    full = gaussian_tables()
    rows = [full.frequencies[t, : full.sizes[t]].tolist() for t in range(128)]
    twice = tables_of(rows * 2, full.offsets.tolist() * 2, full.shifts.tolist() * 2)  # 256 tables: every index
    steep = tables_of([[1, 16383], [8192] * 2, []], [-8, 7, 0], [7, 7, 0])  # most raw bits the vector code takes
    steeper = tables_of([[1, 16383], [8192] * 2, []], [-8, 7, 0], [12, 8, 0])
    # All numbers of raw bits side by side, with one table more than the vector code finds in a single step.
    slopes = tables_of(
        [[9000, 7000, 384]] * 129, [t % 5 - 3 for t in range(129)], [(5 * t + t // 8) % 8 for t in range(129)]
    )
    # Table 0 is no skip table here, so that whole groups of it are coded.
    first = tables_of([rng.permutation([1000] * 16 + [384]).tolist(), []], [-8, 0])
    return {
        "gaussian": full,
        "twice": twice,
        "steep": steep,
        "steeper": steeper,
        "slopes": slopes,
        "first": first,
        "mixed": mixed_tables(),
    }


NAMES = ["gaussian", "twice", "steep", "steeper", "slopes", "first", "mixed"]


def everywhere(code):
    """What ``code()`` gives, which must be one and the same with each instruction set."""
    results = []
    for isa in ISAS:
        with using(isa):
            results.append(code())
    assert all(result == results[0] for result in results)
    return results[0]


@pytest.mark.parametrize("lanes", [8, 32, None])
@pytest.mark.parametrize("escapes", [0.0, 0.002, 0.5])
@pytest.mark.parametrize("name", NAMES)
def test_same_bytes_and_symbols(sets, name, escapes, lanes):
    """One stream of segments of all sizes, odd ones included, so that blocks and groups end anywhere."""
    rng = np.random.default_rng(len(name))
    segments = [(*draw(rng, sets[name], size, escapes), sets[name]) for size in [*SIZES, 4095, 1025]]
    data = everywhere(lambda: encode(*segments, lanes=lanes))
    keys = [(index, tables) for _, index, tables in segments]
    everywhere(lambda: [part.tobytes() for part in decode(data, *keys)])
    for got, (symbols, _, _) in zip(decode(data, *keys), segments, strict=True):
        np.testing.assert_array_equal(got, symbols)


@pytest.mark.parametrize("lanes", [8, 32])
def test_skipped_groups_between_others(sets, lanes):
    """Whole groups of a skip table, single skips, and groups that are skipped but for one symbol."""
    rng = np.random.default_rng(4)
    index = np.zeros(5000, np.uint8)
    index[700:1500] = rng.integers(0, 128, 800)
    index[3000] = 60
    index[4100:4200:3] = 90
    symbols = np.where(index > 0, rng.integers(-2, 3, index.size), 0).astype(np.int16)
    data = everywhere(lambda: encode((symbols, index, sets["gaussian"]), lanes=lanes))
    everywhere(lambda: decode(data, (index, sets["gaussian"]))[0].tobytes())
    (twin,) = decode_reference(data, [(index, sets["gaussian"])])
    np.testing.assert_array_equal(twin, symbols)


@pytest.mark.parametrize("lanes", [8, 32])
def test_every_table_with_every_symbol_near_it(sets, lanes):
    tables = sets["twice"]
    parts = []
    for t in range(len(tables)):
        if tables.sizes[t]:
            half = 1 << int(tables.shifts[t]) >> 1
            low = (int(tables.offsets[t]) << int(tables.shifts[t])) - half
            high = (int(tables.offsets[t] + tables.sizes[t] - 1) << int(tables.shifts[t])) - half
            parts.append((np.array([*range(low, high), low - 1, high, INT16.min, INT16.max]), t))
    # Without the last four each part is free of escapes, which the vector code leaves to the scalar code.
    for end in (None, -4):
        symbols = np.concatenate([values[:end] for values, _ in parts]).astype(np.int16)
        index = np.concatenate([np.full(len(values[:end]), t) for values, t in parts]).astype(np.uint8)
        data = everywhere(lambda s=symbols, i=index: encode((s, i, tables), lanes=lanes))
        decoded = everywhere(lambda d=data, i=index: decode(d, (i, tables))[0].tobytes())
        assert decoded == symbols.tobytes()


@pytest.mark.parametrize("lanes", [8, 32])
@pytest.mark.parametrize("name", NAMES)
def test_damage_ends_alike(sets, name, lanes):
    """Same class and text of error, or the same symbols, whatever is done to a stream."""
    rng = np.random.default_rng(6)
    tables = sets[name]
    segments = [(*draw(rng, tables, size, 0.01), tables) for size in (1300, 77)]
    data = encode(*segments, lanes=lanes)
    keys = [(index, tables) for _, index, _ in segments]

    def outcome(damaged: bytes) -> str:
        try:
            return b"".join(part.tobytes() for part in decode(damaged, *keys)).hex()
        except BitstreamError as error:
            return f"{type(error).__name__} {error}"

    kinds = set()
    for _ in range(250):
        damaged = bytearray(data)
        match rng.integers(4):
            case 0:
                damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
            case 1:
                start = rng.integers(5 + 4 * lanes, len(data))
                damaged[start : start + 20] = rng.bytes(min(20, len(data) - start))
            case 2:  # the words end early, and what comes after them is taken for raw bits and escapes
                damaged = encode(segments[0], lanes=lanes)
            case _:
                damaged[5 + 4 * lanes :] = rng.bytes(len(data) - 5 - 4 * lanes)
        kinds.add(everywhere(lambda d=bytes(damaged): outcome(d)).split()[0])
    assert {"TruncatedError", "ChecksumError"} <= kinds


@pytest.mark.parametrize("lanes", [8, 32])
def test_raw_bits_and_words_run_out_at_their_end(sets, lanes):
    """Sections shortened by one unit at a time: the error comes where they end, not where a register does."""
    rng = np.random.default_rng(8)
    symbols, index = draw(rng, sets["gaussian"], 2600, 0.0)
    header = 1 + 2 + 2 + 4 * lanes  # lengths of 128 and more take two bytes
    data = encode((symbols, index, sets["gaussian"]), lanes=lanes)
    words = data[1] & 127 | data[2] << 7
    raw = data[3] & 127 | data[4] << 7
    assert len(data) == header + 2 * words + raw

    def outcome(damaged: bytes) -> str:
        with pytest.raises(TruncatedError) as caught:
            decode(damaged, (index, sets["gaussian"]))
        return str(caught.value)

    for less in range(1, min(raw - 128, 40)):
        short = bytearray(data[: len(data) - less])
        short[3:5] = [(raw - less) & 127 | 128, (raw - less) >> 7]
        assert "raw or escape bits" in everywhere(lambda d=bytes(short): outcome(d))
    for less in range(1, 40):
        short = bytearray(data[: header + 2 * (words - less)] + data[header + 2 * words :])
        short[1:3] = [(words - less) & 127 | 128, (words - less) >> 7]
        assert "ran out of words" in everywhere(lambda d=bytes(short): outcome(d))


def rows_with_many_runs() -> list[list[int]]:
    """Frequencies of which an entry's slots lie in many pieces, next to one another's or of a single slot."""
    rng = np.random.default_rng(13)
    rows = [
        [319] + [255] * 63,  # one slot in each of 63 buckets, then 256 in one
        [16384 - 63] + [1] * 63,
        [257] * 32 + [255] * 32,
        [8192 + 31, 8192 - 31],
        [16383, 1],
        [5000] * 3 + [254] * 5 + [114],
        [256] * 64,
        random_row(rng, 64),
        random_row(rng, 17),
    ]
    assert all(sum(row) == ONE for row in rows)
    return rows


@pytest.mark.parametrize("lanes", [8, 32])
def test_every_slot_is_found(lanes):
    """Symbols as frequent as their table has it, so many that all slots of it are used."""
    rng, rows = np.random.default_rng(14), rows_with_many_runs()
    tables = tables_of(rows, [-20] * len(rows))
    count = 200_000
    index = np.repeat(np.arange(len(rows), dtype=np.uint8), count)
    symbols = [rng.choice(len(row) - 1, count, p=np.array(row[:-1]) / sum(row[:-1])) - 20 for row in rows]
    symbols = np.concatenate(symbols).astype(np.int16)
    data = everywhere(lambda: encode((symbols, index, tables), lanes=lanes))
    np.testing.assert_array_equal(decode(data, (index, tables))[0], symbols)


def test_refused_push_leaves_no_bits_behind(sets):
    """A symbol on a skip table, found after raw bits and escapes of the segment were written."""
    tables = sets["gaussian"]
    symbols, index = draw(np.random.default_rng(9), tables, 3000, 0.01)
    wrong_symbols, wrong_index = symbols.copy(), index.copy()
    wrong_symbols[2900], wrong_index[2900] = 1, 0

    def code() -> bytes:
        encoder = Encoder()
        encoder.push(symbols, index, tables)
        with pytest.raises(ValueError, match="skip table, got 1 at position 2900"):
            encoder.push(wrong_symbols, wrong_index, tables)
        encoder.push(symbols, index, tables)
        return encoder.finish()

    assert everywhere(code) == encode((symbols, index, tables), (symbols, index, tables))


@pytest.mark.parametrize("isa", ISAS)
def test_golden_streams(isa):
    """Streams of version 1, written by the portable code. They are never to be written again: every later version has
    to read them, and writes the same bytes unless ``docs/bitstream.md`` says otherwise."""
    with np.load(GOLDEN) as golden, using(isa):
        mixed = TableSet(*(golden[f"mixed_{name}"] for name in ("frequencies", "sizes", "offsets", "shifts")))
        for name, tables in (("gaussian", gaussian_tables()), ("mixed", mixed)):
            symbols, index = golden[f"{name}_symbols"], golden[f"{name}_index"]
            for lanes in (8, 32):
                data = golden[f"{name}_{lanes}"].tobytes()
                (decoded,) = decode(data, (index, tables))
                np.testing.assert_array_equal(decoded, symbols)
                assert encode((symbols, index, tables), lanes=lanes) == data
            cuts = even_splits(len(index), 3).tolist()
            for stream, own in enumerate(map(slice, cuts, cuts[1:])):
                data = golden[f"{name}_stream_{stream}"].tobytes()
                np.testing.assert_array_equal(decode(data, (index[own], tables))[0], symbols[own])
                assert encode((symbols[own], index[own], tables)) == data


@pytest.mark.parametrize("name", ["gaussian_8", "mixed_32", "mixed_stream_2"])
def test_the_twin_reads_golden_streams(name):
    with np.load(GOLDEN) as golden:
        kind = name.split("_")[0]
        mixed = TableSet(*(golden[f"mixed_{part}"] for part in ("frequencies", "sizes", "offsets", "shifts")))
        own = slice(even_splits(3000, 3).tolist()[2], None) if "stream" in name else slice(None)
        key = (golden[f"{kind}_index"][own], gaussian_tables() if kind == "gaussian" else mixed)
        (decoded,) = decode_reference(golden[name].tobytes(), [key])
        np.testing.assert_array_equal(decoded, golden[f"{kind}_symbols"][own])


# Arguments and the choice


def test_tensors_and_given_memory(sets):
    tables = sets["gaussian"]
    symbols, index = draw(np.random.default_rng(10), tables, 1000)
    data = encode((torch.from_numpy(symbols), torch.from_numpy(index), tables))
    assert data == encode((symbols, index, tables))
    tensor, array = torch.empty(1000, dtype=torch.int16), np.empty(1000, np.int16)
    for out in (tensor, array):
        decoder = Decoder(data)
        decoded = decoder.pop(torch.from_numpy(index), tables, out=out)
        decoder.finish()
        np.testing.assert_array_equal(np.asarray(out), symbols)
        assert np.shares_memory(decoded, np.asarray(out))


def test_out_argument(sets):
    decoder, index = Decoder(Encoder().finish()), np.zeros(4, np.uint8)
    read_only = np.zeros(4, np.int16)
    read_only.flags.writeable = False
    for out, message in (
        (np.zeros(3, np.int16), "out and index must have one length, got 3 and 4"),
        (np.zeros(4, np.int32), "out must be .* int16, got int32"),
        (np.zeros(8, np.int16)[::2], "not contiguous"),
        (torch.zeros(4, dtype=torch.int16, device="meta"), "memory of the CPU"),
        (read_only, "not writeable"),
    ):
        with pytest.raises(ValueError, match=message):
            decoder.pop(index, sets["gaussian"], out=out)
    decoder.finish()


def test_isas():
    assert ISAS[0] == "scalar"
    assert set(ISAS) <= {"scalar", "avx2", "avx512"}
    if {"avx2", "bmi2"} <= set(_native.cpu_features()):
        assert "avx2" in ISAS
    for isa in ISAS:
        with using(isa):
            assert _native.coder_isa() == isa
    with pytest.raises(ValueError, match=r"must be one of .*scalar.*, got 'mmx'"):
        _native.require_C().select_coder_isa("mmx")


@pytest.mark.parametrize("wanted", [*ISAS, "", "sse9"])
def test_environment_variable(wanted):
    program = (
        "from aicr_ext import _native\n"
        "from aicr_ext.codec.rans import Encoder\n"
        "try: print(_native.coder_isa(), len(Encoder().finish()))\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"AICR_ISA": wanted},
    )
    if wanted == "sse9":
        assert done.stdout.startswith("AICR_ISA must be one of the instruction sets this processor has (scalar")
    else:
        assert done.stdout.split() == [wanted or ISAS[-1], "35"]
