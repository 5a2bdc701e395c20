"""What the entropy coder's CUDA kernels say of damaged streams and of wrong arguments: what the CPU says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from emulation import CUDA, requires_emulation
from rans_cases import SETS, even

from aicr_ext import errors
from aicr_ext.ops import rans
from aicr_ext.ops.rans import raise_fault

pytestmark = requires_emulation


@pytest.mark.parametrize("lanes", [8, 32])
def test_damaged_streams_have_the_fault_of_the_cpu(lanes):
    """Flipped bits, cut and lengthened streams, bytes of chance: symbols and faults are the same."""
    rng = np.random.default_rng(lanes)
    batch = even([2600], 2)
    data, ends = batch.encode(lanes)
    first = ends[0].item()
    faults_seen = set()
    for trial in range(100):
        damaged, damaged_ends = data.clone(), ends.clone()
        if trial % 4 == 0:
            damaged[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        elif trial % 4 == 1:  # mostly the header
            damaged[first + rng.integers(12)] = int(rng.integers(256))
        elif trial % 4 == 2:
            cut = int(rng.integers(first))
            damaged, damaged_ends = torch.cat([data[:cut], data[first:]]), ends - (first - cut)
        else:
            begin = int(rng.integers(len(data) - 60))
            damaged[begin : begin + 60] = torch.from_numpy(rng.integers(0, 256, 60, dtype=np.uint8))
        ours, our_faults = batch.decode(damaged, damaged_ends, CUDA)
        symbols, faults = batch.decode(damaged, damaged_ends)
        assert torch.equal(our_faults, faults)
        assert all(map(torch.equal, ours, symbols))
        faults_seen.update(faults.tolist())
    assert len(faults_seen) >= 6


@pytest.mark.parametrize("head", [b"", b"\x09", b"\x08", b"\x08\x80\x00", b"\x20" + b"\xff" * 6, b"\x08\x05\x00"])
def test_bad_headers(head):
    for stream in (head, head + bytes(40), head + b"\x01" * 40, head + bytes([0, 0x80, 0, 0]) * 40):
        data = torch.from_numpy(np.frombuffer(stream, np.uint8).copy())
        ends = torch.tensor([len(stream)])
        assert torch.equal(CUDA.rans_decode_begin(data, ends), rans.rans_decode_begin(data, ends))


def test_a_copy_of_the_state_goes_on_by_itself_and_on_the_cpu():
    batch = even([2000, 900], 2)
    data, ends = batch.encode()
    state = CUDA.rans_decode_begin(data, ends)
    first, second = zip(batch.index, batch.tables, batch.splits, strict=True)
    CUDA.rans_decode_step(state, data, *first)
    copy = state.clone()
    assert torch.equal(CUDA.rans_decode_step(state, data, *second), batch.symbols[1])
    assert torch.equal(rans.rans_decode_step(copy, data, *second), batch.symbols[1])
    assert torch.equal(state, copy)


# Arguments


def fault_of(batch, change):
    """What decoding ends in with these arguments of the only step, and its symbols."""
    data, ends = batch.encode()
    given = {"data": data, "ends": ends, "index": batch.index[0], "tables": batch.tables[0], "splits": batch.splits[0]}
    given |= change
    state = CUDA.rans_decode_begin(given["data"], given["ends"])
    if "column" in given:
        state[0, given["column"]] = -1
    symbols = CUDA.rans_decode_step(state, given["data"], given["index"], given["tables"], given["splits"])
    return CUDA.rans_decode_end(state, given["data"]), symbols


@pytest.mark.parametrize(
    "change, message, streams",
    [
        ({"ends": torch.tensor([5, 4])}, "ends must rise and be at most the length of data", [1]),
        ({"ends": torch.tensor([-1, 4])}, "ends must rise", [0, 1]),
        ({"ends": torch.tensor([40, 10**6])}, "ends must rise", [1]),
        ({"index": torch.full((400,), 9).byte()}, "index must be below the number of tables", [0, 1]),
        ({"splits": torch.tensor([0, 401, 400])}, "splits must be positions that rise from 0", [0, 1]),
        ({"splits": torch.tensor([1, 200, 400])}, "splits must be positions that rise from 0", [0, 1]),
        ({"splits": torch.tensor([0, 200, 399])}, "splits must be positions that rise from 0", [0, 1]),
        ({"tables": torch.tensor([1, 2, 8192, 8191, 2, 0, 0]).int()}, "numbers of a table set", [0, 1]),
        ({"tables": torch.tensor([1, 2, 8192, 8192, 2, 0]).int()}, "numbers of a table set", [0, 1]),
        ({"tables": torch.tensor([1, 2, 8192, 8192, 2, 0, 13]).int()}, "numbers of a table set", [0, 1]),
        ({"tables": torch.tensor([1, 2, 8192, 8192, 2, 32768, 0]).int()}, "numbers of a table set", [0, 1]),
        ({"tables": torch.tensor([1, 2, 8192, 8192, 3, 0, 0]).int()}, "numbers of a table set", [0, 1]),
        ({"tables": torch.tensor([2**30, 2**30]).int()}, "numbers of a table set", [0, 1]),
        ({"tables": torch.zeros(0).int()}, "numbers of a table set", [0, 1]),
    ],
)
def test_what_only_the_device_knows_is_told_at_the_end(change, message, streams):
    batch = even([400], 2)
    faults, symbols = fault_of(batch, change)
    for s in streams:
        with pytest.raises(ValueError, match=message):
            raise_fault(faults[s : s + 1])
    if "ends" not in change:
        assert not symbols.any()


@pytest.mark.parametrize("wrong", [0, 1, 31, 33, 69, 70])
def test_splits_of_many_streams(wrong):
    """One that does not rise is the fault of all, wherever it is."""
    batch = even([70 * 128], 70)
    splits = batch.splits[0].clone()
    splits[wrong] += 256
    faults, symbols = fault_of(batch, {"splits": splits})
    assert not symbols.any()
    for s in range(70):
        with pytest.raises(ValueError, match="splits must be positions that rise from 0"):
            raise_fault(faults[s : s + 1])


def test_a_state_that_leads_outside_is_told_at_the_end():
    batch = even([400], 2)
    for column in range(48):
        faults, symbols = fault_of(batch, {"column": column})
        assert torch.equal(symbols[256:], batch.symbols[0][256:])
        if column in (*range(8, 32), 47):
            assert not faults.any()
        elif column == 44:  # the checksum
            with pytest.raises(errors.ChecksumError):
                raise_fault(faults)
        else:
            with pytest.raises(ValueError, match=r"^stream 1 of 2: state is not one that"):
                raise_fault(faults)


def test_a_state_whose_last_word_is_half_outside_is_told_at_the_end():
    """Words take two bytes: of an odd number of bytes, the second half of the last would lie behind ``data``."""
    batch = even([400], 1)
    data, ends = batch.encode(8)
    size = len(data)
    for word, end in ((size - 1, size), (size - 5, size - 2)):
        state = CUDA.rans_decode_begin(data, ends)
        state[:, 32:44].view(torch.int64)[:] = torch.tensor([word, end, end, end, 0, 0])
        step = (data, batch.index[0], batch.tables[0], batch.splits[0])
        with pytest.raises(ValueError, match="state of stream 0 is not one"):
            rans.rans_decode_step(state.clone(), *step)
        assert not CUDA.rans_decode_step(state, *step).any()
        with pytest.raises(ValueError, match=r"^state is not one that"):
            raise_fault(CUDA.rans_decode_end(state, data))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"symbols": [torch.zeros(4).int()]}, "symbols must be Short with one dimension, got Int"),
        ({"index": [torch.zeros(5).byte()]}, "symbols and index must have one length, got 4 and 5 in segment 0"),
        ({"index": [torch.tensor([0, 1, 9, 0]).byte()]}, "tables, got 9 at position 0 of stream 1 in segment 0"),
        ({"symbols": [torch.tensor([0, 0, 0, 5]).short()]}, "skip table, got 5 at position 1 of stream 1 in segment 0"),
        ({"tables": [torch.zeros(4).int()]}, "numbers of a table set, .* those of segment 0 are none"),
        ({"splits": [torch.tensor([0, 2, 3])]}, "splits must be 3 positions that rise from 0 to .* 4"),
        ({"splits": [torch.tensor([0, 5, 4])]}, "splits must be 3 positions"),
        ({"splits": [torch.tensor([1, 2, 4])]}, "splits must be 3 positions"),
        ({"splits": [torch.tensor([0])]}, "at least two positions"),
        ({"splits": []}, "lists of one length, at least 1, got 1, 1, 1 and 0"),
        ({"lanes": 16}, "lanes must be 8, 32 or 0"),
    ],
)
def test_encode_arguments(change, message):
    good = {
        "symbols": [torch.zeros(4).short()],
        "index": [torch.zeros(4).byte()],
        "tables": [SETS[0].tensor],
        "splits": [torch.tensor([0, 2, 4])],
        "lanes": 0,
    }
    CUDA.rans_encode(**good)
    with pytest.raises(ValueError, match=f"rans_encode: .*{message}"):
        CUDA.rans_encode(**(good | change))


def test_of_several_problems_the_cpu_names_the_same():
    """The call's before a stream's, the first segment's before a later one's, the first stream's first."""
    symbols = [torch.zeros(8).short(), torch.tensor([0, 0, 0, 0, 0, 3, 0, 4]).short()]
    index = [torch.tensor([0, 0, 0, 0, 9, 8, 9, 0]).byte(), torch.tensor([9, 0, 0, 0, 0, 0, 0, 0]).byte()]
    tables, splits = [SETS[0].tensor] * 2, [torch.tensor([0, 4, 8])] * 2
    with pytest.raises(ValueError, match="got 9 at position 0 of stream 0 in segment 1"):
        CUDA.rans_encode(symbols, index, tables, splits, 0)
    with pytest.raises(ValueError, match="got 9 at position 0 of stream 0 in segment 1"):
        rans.rans_encode(symbols, index, tables, splits)
    with pytest.raises(ValueError, match="got 9 at position 0 of stream 1 in segment 0"):
        CUDA.rans_encode(symbols, [index[0], torch.zeros(8).byte()], tables, splits, 32)
    with pytest.raises(ValueError, match="splits must be 3 positions"):
        CUDA.rans_encode(symbols, index, tables, [splits[0], torch.tensor([0, 4, 9])], 8)


def test_no_streams():
    state = CUDA.rans_decode_begin(torch.zeros(0).byte(), torch.zeros(0).long())
    assert state.shape == (0, 48)
    step = (SETS[0].tensor, torch.zeros(1).long())
    assert CUDA.rans_decode_step(state, torch.zeros(0).byte(), torch.zeros(0).byte(), *step).shape == (0,)
    assert CUDA.rans_decode_end(state, torch.zeros(0).byte()).shape == (0,)
    with pytest.raises(ValueError, match="splits must be 1 positions"):
        CUDA.rans_decode_step(state, torch.zeros(0).byte(), torch.zeros(3).byte(), *step)
