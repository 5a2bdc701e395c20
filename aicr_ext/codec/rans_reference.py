"""The coded stream decoded in plain Python: the specification as a program, for tests and for readers.

It follows ``docs/bitstream.md`` step by step, finds symbols by searching the alias buckets it builds itself,
and shares no code with the native coder. Thousands of times slower; never used by the codec.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .rans import TableSet

__all__ = ["alias_slots", "decode_reference"]

_ONE = 1 << 14
_LOW, _HIGH = 1 << 15, 1 << 31


def alias_slots(frequencies: Sequence[int]) -> list[tuple[int, int]]:
    """For each of the 16384 slots, by the alias rule: its entry, and its rank among the slots of that."""
    left = list(frequencies)
    used = [0] * len(left)
    slots = []
    for _ in range(64):
        present = [k for k, rest in enumerate(left) if rest]
        rarest = min(present, key=lambda k: left[k])  # of equals the first, here and below
        commonest = max(present, key=lambda k: left[k])
        first = min(left[rarest], 256)
        for entry, count in ((rarest, first), (commonest, 256 - first)):
            slots += [(entry, used[entry] + i) for i in range(count)]
            used[entry] += count
            left[entry] -= count
    return slots


class _Bits:
    """Bits of a byte string, least significant first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def get(self, count: int) -> int:
        if count > self._left:
            raise ValueError("out of bits")
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        self._left -= count
        return value

    def finish(self) -> None:
        if self._left >= 8 or self._value:
            raise ValueError("bits left over")


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def decode_reference(data: bytes, segments: Sequence[tuple[np.ndarray, TableSet]]) -> list[np.ndarray]:
    """Decode a whole stream, given (index, tables) of every segment. ``ValueError`` if anything is wrong."""
    stream = iter(data)

    def varint() -> int:
        value, shift = 0, 0
        while True:
            byte = next(stream)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def take(count: int) -> bytes:
        return bytes(next(stream) for _ in range(count))

    lanes = next(stream)
    word_count, raw_size = varint(), varint()
    states = [int.from_bytes(take(4), "little") for _ in range(lanes)]
    words = iter(np.frombuffer(take(2 * word_count), "<u2").tolist())
    raw, escapes = _Bits(take(raw_size)), _Bits(bytes(stream))
    if not all(_LOW <= x < _HIGH for x in states):
        raise ValueError("bad header")

    decoded = []
    for index, tables in segments:
        slots = [
            alias_slots(f[:size].tolist()) if size else []
            for f, size in zip(tables.frequencies, tables.sizes, strict=True)
        ]
        entries = np.zeros(len(index), np.int64)
        for group in range(0, len(index), 4 * lanes):
            for turn in range(4):
                for lane in range(lanes):
                    position = group + 4 * lane + turn
                    if position >= len(index) or not tables.sizes[index[position]]:
                        continue
                    state, table = states[lane], index[position]
                    entry, rank = slots[table][state % _ONE]
                    state = int(tables.frequencies[table, entry]) * (state // _ONE) + rank
                    if state < _LOW:
                        state = state << 16 | next(words)
                    states[lane], entries[position] = state, entry
        symbols = np.zeros(len(index), np.int16)
        for position, table in enumerate(index):
            size, offset, shift = (int(a[table]) for a in (tables.sizes, tables.offsets, tables.shifts))
            if not size:
                continue
            quotient = offset + int(entries[position])
            if entries[position] == size - 1:
                zeros = 0
                while not escapes.get(1):
                    zeros += 1
                distance = (2 << zeros) + escapes.get(zeros + 1) - 2
                quotient = offset - 1 - distance // 2 if distance % 2 else offset + size - 1 + distance // 2
            symbols[position] = (quotient << shift) + raw.get(shift) - (1 << shift >> 1)
        decoded.append(symbols)

    raw.finish()
    escapes.finish()
    if next(words, None) is not None:
        raise ValueError("words left over")
    crc = _crc32c(b"".join(s.astype("<i2").tobytes() for s in decoded))
    if any(state != _LOW + (crc >> 15 * lane) % _LOW for lane, state in enumerate(states)):
        raise ValueError("the lanes do not end in the states of the checksum")
    return decoded
