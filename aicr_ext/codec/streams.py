"""The coded streams of one picture: how many there are, and coding and decoding all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from aicr_ext.codec.rans import Decoder, Encoder, TableSet
from aicr_ext.errors import BitstreamError
from aicr_ext.ops.kernels import has_kernel
from aicr_ext.ops.rans import (
    MAX_STREAMS,
    even_splits,
    faults_so_far,
    raise_fault,
    rans_decode_begin,
    rans_decode_end,
    rans_decode_step,
    rans_encode,
    stream_name,
)

__all__ = ["STREAM_BYTES", "StreamsDecoder", "encode_streams"]

#: A picture that takes more than this is cut into streams of about this size.
STREAM_BYTES = 64 << 10

Segment = tuple[Tensor, Tensor, TableSet]
_Result = TypeVar("_Result")


def encode_streams(segments: Sequence[Segment]) -> list[bytes]:
    """Codes segments of symbols (n,) int16 with table indices (n,) uint8, into as many streams as their bytes ask for.

    The number follows from the size as one stream, never from the number of symbols: most of these may cost nothing.
    """
    (whole,) = encode_as(segments, 1)
    streams = min(MAX_STREAMS, -(-len(whole) // STREAM_BYTES))
    return [whole] if streams <= 1 else encode_as(segments, streams)


def encode_as(segments: Sequence[Segment], streams: int) -> list[bytes]:
    """Codes segments into a given number of streams."""
    splits = [even_splits(len(index), streams) for _, index, _ in segments]
    symbols, index, tables = zip(*segments, strict=True)
    if has_kernel("cpu"):
        data, ends = rans_encode(symbols, index, [table.tensor for table in tables], splits)
        whole = data.numpy().tobytes()
        return [whole[begin:end] for begin, end in pairwise([0, *ends.tolist()])]
    coded = []
    for stream in range(streams):
        encoder = Encoder()
        for part, named, table, cuts in zip(symbols, index, tables, splits, strict=True):
            own = slice(*cuts[stream : stream + 2].tolist())
            encoder.push(part[own], named[own], table)
        coded.append(encoder.finish())
    return coded


class StreamsDecoder:
    """Decodes the streams of one picture side by side, segment by segment.

    Raises:
        FormatError, TruncatedError: a damaged header; the message of this and of all other errors names the stream
            if there are several.
    """

    def __init__(self, streams: Sequence[bytes | memoryview]) -> None:
        self._count = len(streams)
        self._native = has_kernel("cpu")
        if self._native:
            whole = bytearray().join(streams)
            self._data = torch.from_numpy(np.frombuffer(whole, np.uint8))
            ends = np.cumsum([len(stream) for stream in streams], dtype=np.int64)
            self._state = rans_decode_begin(self._data, torch.from_numpy(ends))
            raise_fault(faults_so_far(self._state))
        else:
            self._decoders = [self._of(s, lambda data=data: Decoder(data)) for s, data in enumerate(streams)]

    def pop(self, index: Tensor, tables: TableSet) -> Tensor:
        """The symbols (n,) int16 of the next segment, given their tables (n,) uint8.

        Raises:
            BitstreamError: a stream turned out to be damaged.
        """
        splits = even_splits(len(index), self._count)
        if self._native:
            symbols = rans_decode_step(self._state, self._data, index, tables.tensor, splits)
            raise_fault(faults_so_far(self._state))
            return symbols
        symbols = torch.empty(len(index), dtype=torch.int16)
        for s, decoder in enumerate(self._decoders):
            own = slice(*splits[s : s + 2].tolist())
            self._of(s, lambda d=decoder, o=own: d.pop(index[o], tables, out=symbols[o]))
        return symbols

    def finish(self) -> None:
        """Check that every stream ends here and holds the symbols that were coded.

        Raises:
            BitstreamError: one does not.
        """
        if self._native:
            raise_fault(rans_decode_end(self._state, self._data))
            return
        for s, decoder in enumerate(self._decoders):
            self._of(s, decoder.finish)

    def _of(self, stream: int, call: Callable[[], _Result]) -> _Result:
        try:
            return call()
        except BitstreamError as error:
            name = stream_name(stream, self._count)
            raise type(error)(f"{name}: {error}" if name else str(error)) from None
