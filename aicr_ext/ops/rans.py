"""The entropy coder on tensors: many streams, of one picture or of several, coded side by side.

``docs/bitstream.md`` describes the bytes of a stream. A call takes *segments*, each of which all streams share: stream
s has the symbols ``splits[s]`` to ``splits[s + 1]`` of it, any number of them or none. The threads of torch, or the
warps of a GPU, share the streams; the bytes do not depend on their number.

On CUDA decoding never waits for the device. What is wrong with numbers in its memory (``ends``, ``splits``,
``tables``, ``index``, a state) is then no error of the call but a fault of the streams it concerns, for which
:func:`raise_fault` raises ``ValueError``. Encoding waits once, for the size of its result, and raises errors as on the
CPU.

Decoding goes on segment by segment, because the tables of the next may depend on the symbols of the last:

>>> import torch
>>> from aicr_ext.codec.tables import gaussian_tables
>>> from aicr_ext.ops import rans
>>> tables = gaussian_tables().tensor
>>> symbols, index = torch.tensor([3, -1, 0, 7]).short(), torch.tensor([80, 40, 0, 90]).byte()
>>> splits = torch.tensor([0, 1, 4])  # two streams
>>> data, ends = rans.rans_encode([symbols], [index], [tables], [splits])
>>> state = rans.rans_decode_begin(data, ends)
>>> rans.rans_decode_step(state, data, index, tables, splits)
tensor([ 3, -1,  0,  7], dtype=torch.int16)
>>> rans.raise_fault(rans.rans_decode_end(state, data))
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _native, errors
from .kernels import has_kernel

__all__ = [
    "MAX_STREAMS",
    "even_splits",
    "faults_so_far",
    "raise_fault",
    "rans_decode_begin",
    "rans_decode_end",
    "rans_decode_step",
    "rans_encode",
]

#: Most streams of one picture.
MAX_STREAMS = 256
#: Symbols per group of 32 lanes: streams of one picture are cut at multiples of this.
_GROUP = 128
#: A row of the decoder's state, int32 each; ``csrc/common/rans_state.hpp`` says what is in it, and where the fault is.
_COLUMNS, _FAULT = 48, 46


def even_splits(count: int, streams: int) -> Tensor:
    """Where the format cuts a segment of ``count`` symbols into ``streams`` parts: (streams + 1,) int64."""
    groups = -(-count // _GROUP)
    return (_GROUP * (groups * torch.arange(streams + 1, device="cpu") // streams)).clamp_(max=count)


def rans_encode(
    symbols: Sequence[Tensor],
    index: Sequence[Tensor],
    tables: Sequence[Tensor],
    splits: Sequence[Tensor],
    lanes: int = 0,
) -> tuple[Tensor, Tensor]:
    """Codes segments into streams.

    Args:
        symbols: of each segment, (n,) int16; 0 where the table is a skip table.
        index: of each segment, (n,) uint8, the table of each symbol.
        tables: of each segment, :attr:`aicr_ext.codec.rans.TableSet.tensor`, int32.
        splits: of each segment, (S + 1,) int64 from 0 to n: stream s gets the symbols from ``splits[s]`` to
            ``splits[s + 1]``.
        lanes: 8 or 32 interleaved coders in each stream, or 0: as many as suit its size.

    Returns:
        data: uint8, all streams one after the other; each is what ``Encoder.finish`` gives for its symbols.
        ends: (S,) int64, where each of them ends.

    Raises:
        ValueError: shapes, dtypes or numbers that do not fit; the message names the argument.
        NativeLibraryError: there is no kernel for the device.
    """
    symbols, index, tables, splits = (list(part) for part in (symbols, index, tables, splits))
    if not symbols:  # torch finds no device in empty lists
        raise ValueError("rans_encode: symbols must be a list of at least one segment, got none")
    return _call("rans_encode", symbols[0], symbols, index, tables, splits, lanes)


def rans_decode_begin(data: Tensor, ends: Tensor) -> Tensor:
    """The state of decoding, before the first segment.

    Args:
        data: uint8, streams one after the other. Every step gets it again and reads nothing outside of it.
        ends: (S,) int64, where each of them ends.

    Returns:
        (S, 48) int32, to be handed to the steps; a copy of it decodes on from the same place. A damaged header is not
        an error yet: :func:`rans_decode_end` tells it.

    Raises:
        ValueError, NativeLibraryError: as :func:`rans_encode`.
    """
    return _call("rans_decode_begin", data, data, ends)


def rans_decode_step(state: Tensor, data: Tensor, index: Tensor, tables: Tensor, splits: Tensor) -> Tensor:
    """The symbols of the next segment, of all streams.

    Args:
        state: of :func:`rans_decode_begin`; taken along in place.
        data: the same as there.
        index, tables, splits: of the segment, as in :func:`rans_encode`.

    Returns:
        (n,) int16. From the segment on in which a stream turns out to be damaged, its symbols are 0; until then they
        may mean nothing either. The other streams are not touched by it.

    Raises:
        ValueError, NativeLibraryError: as :func:`rans_encode`; the state is then as it was.
    """
    return _call("rans_decode_step", state, state, data, index, tables, splits)


def rans_decode_end(state: Tensor, data: Tensor) -> Tensor:
    """How the streams ended, for :func:`raise_fault`: (S,) int32, 0 for those that are whole.

    Raises:
        ValueError, NativeLibraryError: as :func:`rans_encode`.
    """
    return _call("rans_decode_end", state, state, data)


def faults_so_far(state: Tensor) -> Tensor:
    """What the steps until now have found, as :func:`rans_decode_end` says it: a view of the state."""
    return state[:, _FAULT]


def raise_fault(faults: Tensor, names: Sequence[str] | None = None) -> None:
    """Raises the error of the first stream that has one.

    Args:
        faults: (S,) int32 of :func:`rans_decode_end`.
        names: of the streams, to begin the message with; default "stream 1 of 3" or, for one, nothing.

    Raises:
        TruncatedError, FormatError, ChecksumError: as from :class:`aicr_ext.codec.rans.Decoder`.
        ValueError: an argument of a call on CUDA was wrong.
    """
    numbers = faults.tolist()
    stream = next((s for s, number in enumerate(numbers) if number), None)
    if stream is None:
        return
    kind, text = _native.require_C().stream_faults()[numbers[stream]]
    name = names[stream] if names is not None else stream_name(stream, len(numbers))
    error = ValueError if kind == "ValueError" else getattr(errors, kind)
    raise error(f"{name}: {text}" if name else text)


def stream_name(stream: int, streams: int) -> str:
    """A stream's name in messages: "stream 1 of 3", counted from 1; nothing where there is only one."""
    return f"stream {stream + 1} of {streams}" if streams > 1 else ""


def _call(name: str, first: Tensor, *arguments: object):
    device = first.device.type
    if not has_kernel(device, coding=True):
        raise errors.NativeLibraryError(
            f"{name} has no kernel for {device!r} here; there are kernels for the CPU, in _ops, and for CUDA, in _cuda"
        )
    return getattr(torch.ops.aicr_ext, name)(*arguments)


def _fake_encode(symbols, index, tables, splits, lanes):
    total = torch.library.get_ctx().new_dynamic_size()
    data = symbols[0].new_empty(total, dtype=torch.uint8)
    return data, symbols[0].new_empty(splits[0].shape[0] - 1, dtype=torch.int64)


if _native.HAS_OPS:
    torch.library.register_fake("aicr_ext::rans_encode", _fake_encode)
    torch.library.register_fake(
        "aicr_ext::rans_decode_begin",
        lambda data, ends: data.new_empty((ends.shape[0], _COLUMNS), dtype=torch.int32),
    )
    torch.library.register_fake(
        "aicr_ext::rans_decode_step",
        lambda state, data, index, tables, splits: index.new_empty(index.shape, dtype=torch.int16),
    )
    torch.library.register_fake("aicr_ext::rans_decode_end", lambda state, data: state.new_empty(state.shape[0]))
