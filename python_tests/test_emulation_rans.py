"""The entropy coder's CUDA kernels, run on the host: the bytes, symbols and faults of the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from coder_cases import draw, random_row, tables_of
from emulation import CUDA, SEEDS, requires_emulation, seeded
from rans_cases import RAGGED, Batch, as_list, even

from aicr_ext import _native, errors
from aicr_ext.codec.rans import TableSet
from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.ops import rans
from aicr_ext.ops.rans import even_splits, raise_fault

pytestmark = requires_emulation


def assert_same(batch, lanes=0):
    """Bytes, symbols and the state after each segment."""
    data, ends = batch.encode(lanes)
    made, made_ends = batch.encode(lanes, CUDA)
    assert torch.equal(made_ends, ends)
    assert as_list(made, made_ends) == as_list(data, ends)
    ours, theirs = CUDA.rans_decode_begin(data, ends), rans.rans_decode_begin(data, ends)
    assert torch.equal(ours, theirs)
    for symbols, *step in zip(batch.symbols, batch.index, batch.tables, batch.splits, strict=True):
        assert torch.equal(CUDA.rans_decode_step(ours, data, *step), symbols)
        rans.rans_decode_step(theirs, data, *step)
        assert torch.equal(ours, theirs)
    assert not CUDA.rans_decode_end(ours, data).any()


@pytest.mark.parametrize("lanes", [0, 8, 32])
@pytest.mark.parametrize(
    "batch", [even([300, 2000, 0, 129], s) for s in (1, 3, 40)] + [Batch(RAGGED), Batch([[0, 3000]], escapes=0.9)]
)
def test_bytes_symbols_and_states(batch, lanes):
    assert_same(batch, lanes)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 127, 128, 129, 1023, 1024, 1025, 2300])
def test_sizes(count):
    for lanes in (8, 32):
        assert_same(Batch([[0, count], [0, 5]], seed=count), lanes)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_order(seed):
    with seeded(seed):
        assert_same(even([700, 900], 3))


def test_lanes_go_by_size():
    """Around the size from which a stream has 32 lanes, where both are tried."""
    rng = np.random.default_rng(0)
    tables = tables_of([[256] * 64])  # 6 bits a symbol, so 16384 words are about 43 691 of them
    found = set()
    for count in (43_400, 43_640, 43_700, 44_000):
        batch = Batch([[0, count]])
        batch.tables = [tables.tensor]
        batch.symbols = [torch.from_numpy(rng.integers(0, 63, count).astype(np.int16))]
        batch.index = [torch.zeros(count, dtype=torch.uint8)]
        data, ends = batch.encode(0, CUDA)
        assert torch.equal(data, batch.encode()[0])
        assert ends.tolist() == [len(data)]
        found.add(data[0].item())
    assert found == {8, 32}


@pytest.mark.parametrize("name", ["gaussian", "mixed"])
def test_golden_streams(name):
    """The committed bytes, word for word."""
    with np.load(Path(__file__).parent / "golden" / "coder.npz") as golden:
        parts = (golden[f"mixed_{part}"] for part in ("frequencies", "sizes", "offsets", "shifts"))
        tables = (gaussian_tables() if name == "gaussian" else TableSet(*parts)).tensor
        symbols, index = (torch.from_numpy(golden[f"{name}_{part}"]) for part in ("symbols", "index"))
        whole = torch.tensor([0, len(symbols)])
        streams = [golden[f"{name}_stream_{s}"] for s in range(3)]
        cases = [([golden[f"{name}_{lanes}"]], whole, lanes) for lanes in (8, 32)]
    for expected, splits, lanes in [*cases, (streams, even_splits(len(symbols), 3), 0)]:
        data, ends = CUDA.rans_encode([symbols], [index], [tables], [splits], lanes)
        assert as_list(data, ends) == [stream.tobytes() for stream in expected]
        state = CUDA.rans_decode_begin(data, ends)
        assert torch.equal(CUDA.rans_decode_step(state, data, index, tables, splits), symbols)
        assert not CUDA.rans_decode_end(state, data).any()


def drawn(tables, index, seed=0, splits=None, escapes=0.02):
    """A batch of one segment with these indices."""
    rng = np.random.default_rng(seed)
    symbols = np.zeros(len(index), np.int16)
    for t in np.unique(index):
        own = np.flatnonzero(index == t)
        offset, size, shift = int(tables.offsets[t]), int(tables.sizes[t]), int(tables.shifts[t])
        if size == 0:
            continue
        quotient = offset + rng.integers(0, size - 1, len(own))
        symbols[own] = np.clip(
            (quotient << shift) + rng.integers(0, 1 << shift, len(own)) - (1 << shift >> 1), -32768, 32767
        )
        far = own[rng.random(len(own)) < escapes]
        symbols[far] = rng.integers(-32768, 32768, len(far))
    batch = Batch([splits or [0, len(index)]])
    batch.tables = [tables.tensor]
    batch.symbols, batch.index = [torch.from_numpy(symbols)], [torch.from_numpy(index.astype(np.uint8))]
    return batch


@pytest.mark.parametrize("lanes", [8, 32])
@pytest.mark.parametrize("active", [0.0, 0.002, 0.02, 0.3])
@pytest.mark.parametrize("first", ["skip", "coded"])
def test_what_is_passed_over(lanes, active, first):
    """Symbols of a skip table alone, in rows as long as groups and in between; and where table 0 is none."""
    rng = np.random.default_rng(8)
    index = np.where(rng.random(3300) < active, rng.integers(1, 128, 3300), 0)
    index[700:2000] = 0
    index[1500:1508] = 60  # one lane of 8, for two groups
    tables = gaussian_tables()
    if first == "coded":
        kept = [5, 0, *range(2, 128)]
        tables = TableSet(*(part[kept] for part in (tables.frequencies, tables.sizes, tables.offsets, tables.shifts)))
    assert_same(drawn(tables, index), lanes)
    assert_same(drawn(tables, np.zeros_like(index)), lanes)


def tables_of_number(number):
    """So many tables of three entries, none of them alike."""
    return tables_of([[16384 - 2 * t - 3, 2 * t + 2, 1] for t in range(number)], [-(t % 5) for t in range(number)])


@pytest.mark.parametrize("lanes", [8, 32])
@pytest.mark.parametrize("number", [1, 2, 127, 128, 129, 200, 255, 256])
def test_number_of_tables(number, lanes):
    """More than shared memory takes, and what an index that is too large by one ends in."""
    tables = tables_of_number(number)
    index = np.random.default_rng(number).integers(0, number, 1500)
    assert_same(drawn(tables, index), lanes)
    if number == 256:
        return
    for place, wrong in ((0, number), (1499, number), (1027, 255), (514, (number + 128) % 256)):
        if wrong < number:
            continue
        changed = index.copy()
        changed[place] = wrong
        batch = drawn(tables, index)
        data, ends = batch.encode(lanes)
        batch.index = [torch.from_numpy(changed.astype(np.uint8))]
        symbols, faults = batch.decode(data, ends, CUDA)
        assert not symbols[0].any()
        with pytest.raises(ValueError, match="index must be below the number of tables"):
            raise_fault(faults)
        with pytest.raises(ValueError, match=f"got {wrong} at position {place} of stream 0 in segment 0"):
            batch.encode(lanes, CUDA)


def test_an_index_that_names_no_table_comes_before_damage():
    """Words run out in the first 1024 symbols, but the mistake, behind them, is the caller's."""
    batch = even([2600], 1)
    data, ends = batch.encode(32)
    for wrong, message in ((None, "ran out of words"), (200, "index must be below the number of tables")):
        state = CUDA.rans_decode_begin(data, ends)
        places = state[:, 32:44].view(torch.int64)
        places[:, 1:4] = places[:, :1]  # sections without a byte
        if wrong is not None:
            batch.index[0][2500] = wrong
        assert not CUDA.rans_decode_step(state, data, batch.index[0], batch.tables[0], batch.splits[0]).any()
        with pytest.raises((errors.TruncatedError, ValueError), match=message):
            raise_fault(CUDA.rans_decode_end(state, data))


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_arrays_that_begin_anywhere(shift):
    """Indices, symbols and data that are views into others, so that no wide access to them is aligned."""
    splits = [0, 700, 701, 1405, 2000]
    batch = drawn(gaussian_tables(), np.random.default_rng(shift).integers(0, 128, 2000), shift, splits)
    for lanes in (8, 32):
        data, ends = batch.encode(lanes)
        moved = Batch([splits])
        moved.tables = batch.tables
        moved.index = [torch.cat([torch.zeros(shift).byte(), batch.index[0]])[shift:]]
        moved.symbols = [torch.cat([torch.zeros(shift).short(), batch.symbols[0]])[shift:]]
        made, made_ends = moved.encode(lanes, CUDA)
        assert torch.equal(made, data)
        assert torch.equal(made_ends, ends)
        elsewhere = torch.cat([torch.zeros(shift).byte(), data])[shift:]
        symbols, faults = moved.decode(elsewhere, ends, CUDA)
        assert torch.equal(symbols[0], batch.symbols[0])
        assert not faults.any()


@pytest.mark.parametrize("lanes", [0, 8, 32])
def test_many_streams(lanes):
    """So many that tables stay where they are, and that 8 lanes wait for what 32 lead to."""
    sizes = np.random.default_rng(4).integers(0, 20, 600)
    sizes[[3, 500]] = 1100, 300
    batch = Batch([[0, *np.cumsum(sizes).tolist()]], seed=4)
    assert_same(batch, lanes)
    wrong = batch.index[0].clone()
    wrong[-1] = 99
    batch.index = [wrong]
    with pytest.raises(ValueError, match="got 99 at position"):
        batch.encode(lanes, CUDA)


@pytest.mark.parametrize("streams", [1, 513])
def test_a_stream_that_outgrows_8_lanes(streams):
    """In its first segment, so that coding with 8 lanes ends there, beside 32 lanes and behind them."""
    tables = tables_of([[256] * 64])
    rng = np.random.default_rng(5)
    cuts = [[0] * streams + [count] for count in (700, 46_000, 300)]
    batch = Batch(cuts)
    batch.tables = [tables.tensor] * 3
    batch.index = [torch.zeros(cut[-1], dtype=torch.uint8) for cut in cuts]
    batch.symbols = [torch.from_numpy(rng.integers(0, 63, cut[-1]).astype(np.int16)) for cut in cuts]
    data, ends = batch.encode(0, CUDA)
    assert torch.equal(data, batch.encode()[0])
    assert torch.equal(ends, batch.encode()[1])
    assert data[ends[-2] if streams > 1 else 0] == 32


@pytest.mark.parametrize("entries", [2, 3, 5, 17, 33, 63, 64])
def test_tables_of_every_kind(entries):
    """Sizes that fill half the lanes or two entries each, entries of one size, one that takes almost all."""
    rng = np.random.default_rng(entries)
    alike = [16384 // entries] * entries
    alike[0] += 16384 - sum(alike)
    steep = [1] * (entries - 1) + [16384 - entries + 1]
    tables = tables_of([random_row(rng, entries), alike, steep, steep[::-1], []], [0, 3, -5, 7, 0], [0, 1, 2, 12, 0])
    symbols, index = (torch.from_numpy(part) for part in draw(rng, tables, 600))
    segment = [symbols], [index], [tables.tensor], [torch.tensor([0, 600])]
    data, ends = CUDA.rans_encode(*segment, 0)
    assert torch.equal(data, rans.rans_encode(*segment)[0])
    state = CUDA.rans_decode_begin(data, ends)
    assert torch.equal(CUDA.rans_decode_step(state, data, *(part[0] for part in segment[1:])), symbols)


@pytest.mark.gpu
@pytest.mark.skipif(not (torch.cuda.is_available() and _native.HAS_CUDA_OPS), reason="no GPU")
@pytest.mark.parametrize("lanes", [0, 8, 32])
def test_on_a_gpu(lanes):
    """The same again where threads really run at once, at sizes that fill the device."""
    batch = even([200_000, 100_000], 32)
    data, ends = batch.encode(lanes)
    for part in (batch.symbols, batch.index, batch.tables, batch.splits):
        part[:] = [tensor.cuda() for tensor in part]
    made, made_ends = batch.encode(lanes)
    assert torch.equal(made.cpu(), data)
    assert torch.equal(made_ends.cpu(), ends)
    symbols, faults = batch.decode(made, made_ends)
    assert all(map(torch.equal, symbols, batch.symbols))
    raise_fault(faults)


@pytest.mark.gpu
@pytest.mark.skipif(not (torch.cuda.is_available() and _native.HAS_CUDA_OPS), reason="no GPU")
@pytest.mark.parametrize("lanes", [8, 32])
def test_a_graph_decodes_what_is_there_when_it_is_replayed(lanes):
    """Begin, steps and end as one graph: recording it needs no word of the device, nor does a damaged stream."""
    batch = even([3000, 2000], 4)
    data, ends = batch.encode(lanes)
    damaged = data.clone()
    damaged[ends[1] - 40] ^= 16
    expected = [(given, *batch.decode(given, ends)) for given in (data, data, damaged, data)]
    assert expected[2][2].any()
    for part in (batch.index, batch.tables, batch.splits):
        part[:] = [tensor.cuda() for tensor in part]
    given, given_ends = data.cuda(), ends.cuda()
    batch.decode(given, given_ends)  # the first call of a kernel loads it
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        symbols, faults = batch.decode(given, given_ends)
    for bytes_now, symbols_then, faults_then in expected:
        for out in (*symbols, faults):
            out.fill_(-1)
        given.copy_(bytes_now)
        graph.replay()
        assert torch.equal(faults.cpu(), faults_then)
        assert all(torch.equal(ours.cpu(), theirs) for ours, theirs in zip(symbols, symbols_then, strict=True))
