"""The entropy coder as torch operators: streams equal to those of the plain coder, alone and in ragged batches."""

from __future__ import annotations

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from coder_cases import decode, encode, tables_of
from op_cases import assert_same_bits, with_threads
from rans_cases import RAGGED, SETS, Batch, as_list, even
from torch._subclasses.fake_tensor import FakeTensorMode

from aicr_ext import _native, errors
from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.ops import rans
from aicr_ext.ops.kernels import plain_torch
from aicr_ext.ops.rans import even_splits, raise_fault

pytestmark = pytest.mark.skipif(not _native.HAS_OPS, reason="native operators not built")


@pytest.mark.parametrize("lanes", [0, 8, 32])
@pytest.mark.parametrize("batch", [even([300, 4000, 0, 129], s) for s in (1, 2, 3, 7, 40)] + [Batch(RAGGED)])
def test_a_batch_is_its_streams_one_by_one(batch, lanes):
    """With more streams than groups, empty segments, and streams without any symbol."""
    data, ends = batch.encode(lanes)
    streams = as_list(data, ends)
    assert len(streams) == batch.streams
    assert ends[-1] == len(data)
    for s, stream in enumerate(streams):
        parts = batch.parts(s)
        assert stream == encode(*parts, lanes=lanes or None)
        decoded = decode(stream, *((index, tables) for _, index, tables in parts))
        assert all(np.array_equal(got, symbols) for got, (symbols, _, _) in zip(decoded, parts, strict=True))
    symbols, faults = batch.decode(data, ends)
    assert all(map(torch.equal, symbols, batch.symbols))
    assert faults.tolist() == [0] * batch.streams
    raise_fault(faults)


@pytest.mark.parametrize("streams", [1, 2, 3, 7, 256])
@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 1000, 100_001])
def test_even_splits(count, streams):
    cuts = [min(count, 128 * math.floor(math.ceil(count / 128) * s / streams)) for s in range(streams + 1)]
    assert even_splits(count, streams).tolist() == cuts
    assert (cuts[0], cuts[-1]) == (0, count)


def test_threads_change_nothing():
    batch = even([60_000, 3000], 7)

    def both_ways():
        data, ends = batch.encode()
        symbols, faults = batch.decode(data, ends)
        assert not faults.any()
        return data, ends, *symbols

    assert_same_bits(with_threads(both_ways))


def test_the_environment_names_the_instruction_set():
    """The operators have a choice of their own, so it is made by the same variable."""
    program = (
        "import os, torch\n"
        "from aicr_ext.codec.tables import gaussian_tables\n"
        "from aicr_ext.ops import rans\n"
        "symbols = torch.arange(9000).short() % 50 - 25\n"
        "index = (torch.arange(9000) % 127 + 1).byte()\n"
        "segment = [symbols], [index], [gaussian_tables().tensor], [torch.tensor([0, 5000, 9000])]\n"
        "for isa in ('sse9', 'scalar'):\n"
        "    os.environ['AICR_ISA'] = isa\n"
        "    try: print(rans.rans_encode(*segment)[0].numpy().tobytes().hex())\n"
        "    except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    error, scalar = done.stdout.splitlines()
    assert "AICR_ISA must be one of the instruction sets this processor has (scalar" in error
    symbols, index = np.arange(9000).astype(np.int16) % 50 - 25, (np.arange(9000) % 127 + 1).astype(np.uint8)
    parts = [(symbols[own], index[own], gaussian_tables()) for own in (slice(5000), slice(5000, None))]
    assert scalar == b"".join(map(encode, parts)).hex()


def test_a_copy_of_the_state_goes_on_by_itself():
    batch = even([2000, 900], 2)
    data, ends = batch.encode()
    state = rans.rans_decode_begin(data, ends)
    first, second = zip(batch.index, batch.tables, batch.splits, strict=True)
    rans.rans_decode_step(state, data, *first)
    copy, other_place = state.clone(), torch.cat([data, torch.zeros(1000, dtype=torch.uint8)])
    for own, where in ((state, data), (copy, other_place)):
        assert torch.equal(rans.rans_decode_step(own, where, *second), batch.symbols[1])
        assert not rans.rans_decode_end(own, where).any()
    assert torch.equal(state, copy)


# Damage


def test_every_flipped_bit_of_two_streams():
    batch = even([150, 140], 2)
    data, ends = batch.encode()
    for bit in range(8 * len(data)):
        damaged = data.clone()
        damaged[bit // 8] ^= 1 << bit % 8
        symbols, faults = batch.decode(damaged, ends)
        stream = int(bit // 8 >= ends[0])
        assert faults[stream] != 0
        assert faults[1 - stream] == 0
        with pytest.raises(errors.BitstreamError, match=f"^stream {stream + 1} of 2: "):
            raise_fault(faults)
        for got, whole, cuts in zip(symbols, batch.symbols, batch.splits, strict=True):  # the other one is as it was
            own = slice(*cuts[1 - stream : 3 - stream].tolist())
            assert torch.equal(got[own], whole[own])


@pytest.mark.parametrize(
    "damage, error, words",
    [
        (lambda stream: b"", errors.TruncatedError, "header of the coded stream is cut short"),
        (lambda stream: b"\x09" + stream[1:], errors.FormatError, "neither 8 nor 32"),
        (lambda stream: stream[:-200], errors.TruncatedError, "take more bytes than there are"),
        (lambda stream: stream + b"\0", errors.TruncatedError, "goes on after its last symbol"),
        (lambda stream: stream[:60] + bytes(40) + stream[100:], errors.BitstreamError, "coded stream"),
    ],
)
def test_damage_is_told_as_by_the_plain_coder(damage, error, words):
    batch = Batch(RAGGED, escapes=0)
    streams = as_list(*batch.encode())
    streams[3] = damage(streams[3])
    ends = torch.tensor([len(stream) for stream in streams]).cumsum(0)
    symbols, faults = batch.decode(torch.from_numpy(np.frombuffer(b"".join(streams), np.uint8).copy()), ends)
    assert [bool(fault) for fault in faults] == [False, False, False, True, False]
    with pytest.raises(error, match=f"stream 4 of 5: .*{words}") as caught:
        raise_fault(faults)
    keys = [(index, tables) for _, index, tables in batch.parts(3)]
    with pytest.raises(type(caught.value)) as plain:
        decode(streams[3], *keys)
    assert str(caught.value) == f"stream 4 of 5: {plain.value}"
    with pytest.raises(error, match=r"^four\.aicr: "):
        raise_fault(faults, ["one", "two", "three", "four.aicr", "five"])
    with pytest.raises(error, match=f"^{plain.value}$"):
        raise_fault(faults[3:4])
    assert all(torch.equal(got[:701], whole[:701]) for got, whole in zip(symbols, batch.symbols, strict=True))


def test_symbols_are_zero_from_the_fault_on():
    batch = even([500, 500, 500], 1)
    data, ends = batch.encode(lanes=8)
    state = rans.rans_decode_begin(data, ends)
    step = (batch.index[0], batch.tables[0], batch.splits[0])
    rans.rans_decode_step(state, data, *step)
    assert not rans.faults_so_far(state).any()
    longer = (torch.full((5000,), 3, dtype=torch.uint8), batch.tables[0], torch.tensor([0, 5000]))
    assert not rans.rans_decode_step(state, data, *longer).any()
    assert rans.faults_so_far(state).all()
    assert not rans.rans_decode_step(state, data, *step).any()
    with pytest.raises(errors.TruncatedError, match="ran out of words"):
        raise_fault(rans.rans_decode_end(state, data))


@pytest.mark.parametrize("stream", [0, 1])
def test_a_state_that_leads_outside_is_refused(stream):
    """It is a tensor that anybody may write to. Lanes past the eighth, the checksum and the padding lead nowhere."""
    batch = even([400, 100], 2)
    data, ends = batch.encode()
    step = (data, batch.index[0], batch.tables[0], batch.splits[0])
    for column in range(48):
        state = rans.rans_decode_begin(data, ends)
        state[stream, column] = -1
        if column in (*range(8, 32), 44, 47):
            assert torch.equal(rans.rans_decode_step(state, *step), batch.symbols[0])
            continue
        for call in (lambda s=state: rans.rans_decode_step(s, *step), lambda s=state: rans.rans_decode_end(s, data)):
            with pytest.raises(ValueError, match=f"state of stream {stream} is not one"):
                call()


# Arguments


@pytest.mark.parametrize(
    "change, message",
    [
        ({"symbols": [torch.zeros(4).int()]}, "symbols must be Short with one dimension, got Int"),
        ({"index": [torch.zeros(4).long()]}, "index must be Byte"),
        ({"index": [torch.zeros(2, 2).byte()]}, "index must be Byte with one dimension, got Byte with 2"),
        ({"index": [torch.zeros(5).byte()]}, "symbols and index must have one length, got 4 and 5 in segment 0"),
        ({"index": [torch.tensor([0, 1, 9, 0]).byte()]}, "9, got 9 at position 0 of stream 1 in segment 0"),
        ({"symbols": [torch.tensor([0, 0, 0, 5]).short()]}, "skip table, got 5 at position 1 of stream 1"),
        ({"tables": [torch.zeros(4)]}, "tables must be Int"),
        ({"splits": [torch.tensor([0, 2, 3])]}, "splits must be 3 positions that rise from 0 to .* 4"),
        ({"splits": [torch.tensor([0, 5, 4])]}, "splits must be 3 positions"),
        ({"splits": [torch.tensor([1, 2, 4])]}, "splits must be 3 positions"),
        ({"splits": [torch.tensor([0])]}, "at least two positions"),
        ({"splits": [torch.tensor([0, 4]).int()]}, "splits must be Long"),
        ({"splits": []}, "lists of one length, at least 1, got 1, 1, 1 and 0"),
        ({name: [] for name in ("symbols", "index", "tables", "splits")}, "at least one segment"),
        ({"lanes": 16}, "lanes must be 8, 32 or 0"),
    ],
)
def test_encode_arguments(change, message):
    good = {
        "symbols": [torch.zeros(4).short()],
        "index": [torch.zeros(4).byte()],
        "tables": [SETS[0].tensor],
        "splits": [torch.tensor([0, 2, 4])],
    }
    rans.rans_encode(**good)
    with pytest.raises(ValueError, match=f"rans_encode: .*{message}"):
        rans.rans_encode(**(good | change))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"state": torch.zeros(2, 47).int()}, r"state must be contiguous Int of shape \(S, 48\)"),
        ({"state": torch.zeros(2, 48)}, "state must be contiguous Int"),
        ({"state": torch.zeros(2, 96).int()[:, ::2]}, "state must be contiguous"),
        ({"state": torch.zeros(97).int()[1:].view(2, 48)}, "multiple of 8 bytes"),
        ({"state": torch.zeros(2, 48).int()}, "state of stream 0 is not one"),
        ({"data": torch.zeros(4).byte()}, "state of stream 0 is not one that rans_decode_begin makes of this data"),
        ({"data": torch.zeros(4).short()}, "data must be Byte"),
        ({"index": torch.full((4,), 9).byte()}, "number of tables, 9, got 9 at position 0"),
        ({"splits": torch.tensor([0, 4])}, "splits must be 3 positions"),
    ],
)
def test_step_arguments(change, message):
    batch = Batch([[0, 2, 4]])
    data, ends = batch.encode()
    state = rans.rans_decode_begin(data, ends)
    good = {
        "state": state,
        "data": data,
        "index": batch.index[0],
        "tables": batch.tables[0],
        "splits": batch.splits[0],
    }
    before = state.clone()
    with pytest.raises(ValueError, match=f"rans_decode_step: .*{message}"):
        rans.rans_decode_step(**(good | change))
    assert torch.equal(state, before)
    assert torch.equal(rans.rans_decode_step(**good), batch.symbols[0])


@pytest.mark.parametrize("ends", [[-1], [5, 4], [5, 101]])
def test_begin_arguments(ends):
    with pytest.raises(ValueError, match="ends must rise and be at most the length of data, 100, got"):
        rans.rans_decode_begin(torch.zeros(100).byte(), torch.tensor(ends))


def test_no_streams():
    state = rans.rans_decode_begin(torch.zeros(0).byte(), torch.zeros(0).long())
    assert state.shape == (0, 48)
    raise_fault(rans.rans_decode_end(state, torch.zeros(0).byte()))


def test_without_kernels():
    with plain_torch(), pytest.raises(errors.NativeLibraryError, match="rans_decode_begin has no kernel for 'cpu'"):
        rans.rans_decode_begin(torch.zeros(3).byte(), torch.tensor([3]))


@pytest.mark.parametrize(
    "numbers, message",
    [
        ([], "got 0 numbers for 0 tables of 0"),
        ([1, 2, 8192, 8192, 2, 0], "got 6 numbers for 1 tables of 2"),
        ([2**30, 2**30], "tables must be the numbers of a table set"),
        ([-1, 2], "tables must be the numbers of a table set"),
        ([1, 2, 8192, 8191, 2, 0, 0], "sum to 16384, got 16383"),
        ([1, 2, 8192, 8192, 2, 0, 256], "shifts must be 0 to 12, got 255"),
        ([1, 2, 8192, 8192, 2, 0, -1], "shifts must be 0 to 12, got 255"),
    ],
)
def test_table_tensors(numbers, message):
    arguments = ([torch.zeros(1).short()], [torch.zeros(1).byte()], [torch.tensor(numbers).int()])
    with pytest.raises(ValueError, match=message):
        rans.rans_encode(*arguments, [torch.tensor([0, 1])])


def test_table_sets_are_found_by_content():
    """More of them than are kept, written into one piece of memory, by several threads."""
    symbols, index = np.arange(-3, 60).astype(np.int16) % 7, np.zeros(63, np.uint8)
    sets = [tables_of([[1000 + step, 15384 - step]], [0], [3]) for step in range(40)]
    expected = [encode((symbols, index, tables)) for tables in sets]

    def code(offset: int) -> None:
        place = torch.empty_like(sets[0].tensor)
        for step in range(40):
            place.copy_(sets[(step + offset) % 40].tensor)
            segment = ([torch.from_numpy(symbols)], [torch.from_numpy(index)], [place], [torch.tensor([0, 63])])
            assert rans.rans_encode(*segment)[0].numpy().tobytes() == expected[(step + offset) % 40]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(code, (0, 0, 7, 20)))


# The compiler


def test_the_compiler_knows_them():
    batch = even([300, 40], 2)
    ops = torch.ops.aicr_ext
    data, ends = batch.encode()
    torch.library.opcheck(ops.rans_encode, (batch.symbols, batch.index, batch.tables, batch.splits, 8))
    torch.library.opcheck(ops.rans_decode_begin, (data, ends))
    state = rans.rans_decode_begin(data, ends)
    step = (state, data, batch.index[0], batch.tables[0], batch.splits[0])
    torch.library.opcheck(ops.rans_decode_step, step)
    torch.library.opcheck(ops.rans_decode_end, (state, data))


def test_fakes():
    batch = even([300, 40], 3)
    with FakeTensorMode(shape_env=torch.fx.experimental.symbolic_shapes.ShapeEnv()) as mode:
        columns = [
            [mode.from_tensor(x) for x in part] for part in (batch.symbols, batch.index, batch.tables, batch.splits)
        ]
        data, ends = rans.rans_encode(*columns)
        assert isinstance(data.shape[0], torch.SymInt)
        state = rans.rans_decode_begin(data, ends)
        symbols = rans.rans_decode_step(state, data, *(part[0] for part in columns[1:]))
        faults = rans.rans_decode_end(state, data)
    assert (data.dtype, ends.dtype, tuple(ends.shape)) == (torch.uint8, torch.int64, (3,))
    assert (state.dtype, tuple(state.shape)) == (torch.int32, (3, 48))
    assert (symbols.dtype, tuple(symbols.shape)) == (torch.int16, (300,))
    assert (faults.dtype, tuple(faults.shape)) == (torch.int32, (3,))


def test_export():
    class RoundTrip(torch.nn.Module):
        def forward(self, symbols, index, tables, splits):
            data, ends = rans.rans_encode([symbols], [index], [tables], [splits])
            state = rans.rans_decode_begin(data, ends)
            decoded = rans.rans_decode_step(state, data, index, tables, splits)
            return decoded, rans.rans_decode_end(state, data)

    batch = even([300], 2)
    arguments = (batch.symbols[0], batch.index[0], batch.tables[0], batch.splits[0])
    decoded, faults = torch.export.export(RoundTrip(), arguments).module()(*arguments)
    assert torch.equal(decoded, batch.symbols[0])
    assert not faults.any()
