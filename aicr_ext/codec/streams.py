"""The coded streams of pictures: how many there are, and coding and decoding all of them at once.

Symbols are coded on the device they are on, if that has kernels for it, and else on the CPU. In each segment all
pictures of a call have as many symbols as one another, those of the first one first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, chain, pairwise
from typing import TypeVar

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

__all__ = ["STREAM_BYTES", "StreamsDecoder", "encode_as", "encode_streams"]

#: A picture that takes more than this is cut into streams of about this size.
STREAM_BYTES = 64 << 10

Segment = tuple[Tensor, Tensor, TableSet]
_Result = TypeVar("_Result")


def coding_device(device: torch.device) -> torch.device:
    """Where symbols on a device are coded."""
    return device if has_kernel(device.type, coding=True) else torch.device("cpu")


def looks_early(device: torch.device) -> bool:
    """Whether faults are looked for after every step: not where that means to wait for the device."""
    return device.type == "cpu"


def encode_streams(segments: Sequence[Segment], pictures: int = 1, count: int | None = None) -> list[list[bytes]]:
    """Codes segments of symbols (P n,) int16 with table indices (P n,) uint8 into streams, for each of P pictures.

    Unless ``count`` gives their number, it follows from the size of a picture as one stream, never from the number of
    symbols: most of these may cost nothing. A picture's bytes do not depend on those beside it.

    On CUDA the host waits twice: for the size, and for a copy of all bytes. Pictures whose number follows, and is more
    than one, are coded again, which is once more for a single one, and twice for those in a batch.
    """
    if count is not None:
        return encode_as(segments, [count] * pictures)
    data, ends = _code(segments, [1] * pictures)
    if pictures == 1 and len(data) > STREAM_BYTES:  # its size is known, and these bytes are not wanted
        return encode_as(segments, [_streams_for(len(data))])
    coded = _fetch(data, ends, [1] * pictures)
    counts = [_streams_for(len(whole)) for (whole,) in coded]
    large = [p for p, count in enumerate(counts) if count > 1]
    if large:
        parts = [(_chosen(s, large, pictures), _chosen(i, large, pictures), tables) for s, i, tables in segments]
        for p, streams in zip(large, encode_as(parts, [counts[p] for p in large]), strict=True):
            coded[p] = streams
    return coded


def encode_as(segments: Sequence[Segment], counts: Sequence[int]) -> list[list[bytes]]:
    """Codes segments into a given number of streams for each picture."""
    return _fetch(*_code(segments, counts), counts)


def _streams_for(size: int) -> int:
    return min(MAX_STREAMS, -(-size // STREAM_BYTES))


def _chosen(symbols: Tensor, places: Sequence[int], pictures: int) -> Tensor:
    """The symbols of some of the pictures."""
    parts = symbols.view(pictures, len(symbols) // pictures)
    return torch.cat([parts[p] for p in places])


def _splits(sizes: Sequence[int], counts: Sequence[int]) -> Tensor:
    """Where segments, with so many symbols of each picture, are cut into so many streams of each: (G, S + 1) int64."""
    rows = []
    for size in sizes:
        cuts = [even_splits(size, count)[1:] + p * size for p, count in enumerate(counts)]
        rows.append(torch.cat([torch.zeros(1, dtype=torch.int64, device="cpu"), *cuts]))
    return torch.stack(rows)


def _code(segments: Sequence[Segment], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """All streams as :func:`aicr_ext.ops.rans.rans_encode` gives them."""
    device = coding_device(segments[0][0].device)
    symbols, index, tables = zip(*segments, strict=True)
    symbols, index = ([x.to(device) for x in part] for part in (symbols, index))
    splits = _splits([len(part) // len(counts) for part in symbols], counts)
    if has_kernel(device.type, coding=True):
        splits = splits.to(device, non_blocking=True)
        return rans_encode(symbols, index, [table.on(device) for table in tables], list(splits))
    coded = []
    for stream in range(sum(counts)):
        encoder = Encoder()
        for part, named, table, cuts in zip(symbols, index, tables, splits, strict=True):
            own = slice(*cuts[stream : stream + 2].tolist())
            encoder.push(part[own], named[own], table)
        coded.append(encoder.finish())
    ends = torch.tensor(list(accumulate(map(len, coded))), device="cpu")
    return torch.frombuffer(bytearray().join(coded), dtype=torch.uint8), ends


def _fetch(data: Tensor, ends: Tensor, counts: Sequence[int]) -> list[list[bytes]]:
    """The streams of each picture, after one copy to the host."""
    if data.device.type != "cpu":
        both = torch.cat([ends.view(torch.uint8), data]).cpu()
        ends, data = both[: 8 * len(ends)].view(torch.int64), both[8 * len(ends) :]
    whole = data.numpy().tobytes()
    streams = iter([whole[begin:end] for begin, end in pairwise([0, *ends.tolist()])])
    return [[next(streams) for _ in range(count)] for count in counts]


class StreamsDecoder:
    """Decodes the streams of pictures side by side, segment by segment.

    Args:
        pictures: the streams of each picture.
        sizes: of the segments to come: symbols of one picture.
        device: where the symbols are wanted; default the CPU. All that is known beforehand goes there in one copy.
        names: of the pictures, for messages; empty ones are left out.

    On CUDA nothing but :meth:`check` waits for the device, and nothing else raises an error of a damaged stream.

    Raises:
        FormatError, TruncatedError: a damaged header; the message of this and of all other errors names the picture
            and, if it has several, the stream.
    """

    def __init__(
        self,
        pictures: Sequence[Sequence[bytes | memoryview]],
        sizes: Sequence[int],
        device: torch.device | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        counts, streams = [len(picture) for picture in pictures], list(chain(*pictures))
        named = names or [""] * len(pictures)
        self._names = [_name(p, s, count) for p, count in zip(named, counts, strict=True) for s in range(count)]
        self._device = coding_device(device or torch.device("cpu"))
        self._native = has_kernel(self._device.type, coding=True)
        self._early = looks_early(self._device)
        self._late: list[Tensor] = []  # what was found after each call, to be looked at in this order
        self._wait: Callable[[], None] = lambda: None
        splits = _splits(sizes, counts)
        if self._native:
            ends = torch.tensor(list(accumulate(map(len, streams))), device="cpu")
            numbers, self._data = _moved([ends, *splits], streams, self._device)
            ends, *self._splits = numbers.split([len(ends), *map(len, splits)])
            self._state = rans_decode_begin(self._data, ends)
            self._look(faults_so_far(self._state))
        else:
            self._splits = list(splits)
            self._decoders = [self._of(s, lambda data=data: Decoder(data)) for s, data in enumerate(streams)]

    def pop(self, index: Tensor, tables: TableSet) -> Tensor:
        """The symbols (P n,) int16 of the next segment, given their tables (P n,) uint8.

        Raises:
            BitstreamError: a stream turned out to be damaged.
        """
        index, splits = index.to(self._device), self._splits.pop(0)
        if self._native:
            symbols = rans_decode_step(self._state, self._data, index, tables.on(self._device), splits)
            self._look(faults_so_far(self._state))
            return symbols
        symbols = torch.empty(len(index), dtype=torch.int16, device="cpu")
        for s, decoder in enumerate(self._decoders):
            own = slice(*splits[s : s + 2].tolist())
            self._of(s, lambda d=decoder, o=own: d.pop(index[o], tables, out=symbols[o]))
        return symbols

    def finish(self) -> None:
        """Find out whether every stream ends here and holds the symbols that were coded, for :meth:`check`.

        Raises:
            BitstreamError: one does not. On CUDA it is left to :meth:`check`.
        """
        if self._native:
            self._look(rans_decode_end(self._state, self._data))
            if not self._early:
                self._late = list(torch.stack(self._late).to("cpu", non_blocking=True))
            if self._device.type == "cuda":
                copied = torch.cuda.Event()
                copied.record(torch.cuda.current_stream(self._device))
                self._wait = copied.synchronize
            return
        for s, decoder in enumerate(self._decoders):
            self._of(s, decoder.finish)

    def check(self) -> None:
        """Raise what was found, after :meth:`finish`; on CUDA this waits until decoding has come that far.

        What is made of the symbols must not leave before.

        Raises:
            BitstreamError: a stream is damaged.
        """
        self._wait()
        for faults in self._late:
            raise_fault(faults, self._names)

    def _look(self, faults: Tensor) -> None:
        """Raise faults, or keep them: streams whose tables follow from a damaged one's symbols fail after it."""
        if self._early:
            raise_fault(faults, self._names)
        else:
            self._late.append(faults.clone())

    def _of(self, stream: int, call: Callable[[], _Result]) -> _Result:
        try:
            return call()
        except BitstreamError as error:
            name = self._names[stream]
            raise type(error)(f"{name}: {error}" if name else str(error)) from None


def _name(picture: str, stream: int, streams: int) -> str:
    return ", ".join(filter(None, (picture, stream_name(stream, streams))))


def _moved(
    numbers: Sequence[Tensor], streams: Sequence[bytes | memoryview], device: torch.device
) -> tuple[Tensor, Tensor]:
    """int64 numbers and the bytes of streams on a device, as one vector each, after one copy that nothing waits for."""
    head = torch.cat(list(numbers)).view(torch.uint8)
    size = len(head) + sum(map(len, streams))
    both = torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=device.type == "cuda")
    both[: len(head)] = head
    buffer, begin = memoryview(both.numpy()), len(head)
    for stream in streams:
        buffer[begin : begin + len(stream)] = stream
        begin += len(stream)
    both = both.to(device, non_blocking=True)
    return both[: len(head)].view(torch.int64), both[len(head) :]
