"""Inputs of the fuzz targets in Python, to replay a corpus without clang; ``csrc/fuzz/input.hpp`` lays them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from coder_cases import INT16, ISAS, ONE, decode, encode, using

from aicr_ext.codec.rans import TableSet
from aicr_ext.errors import BitstreamError

CORPUS = Path(__file__).parent.parent / "csrc" / "fuzz" / "corpus"
MANY = 136


class Input:
    """Numbers of a byte string, little-endian; behind its end there are zeros."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def unsigned(self, size: int = 1) -> int:
        value = int.from_bytes(self._data[self._at : self._at + size], "little")
        self._at += size
        return value

    def signed(self, size: int = 1) -> int:
        value, half = self.unsigned(size), 1 << (8 * size - 1)
        return value - 2 * half if value >= half else value

    def rest(self) -> bytes:
        return self._data[self._at :]


def remainder(value: int, by: int) -> int:
    """``%`` as in C++: of the sign of ``value``."""
    return value % by if value >= 0 else -(-value % by)


def make_row(size: int, style: int, step: int) -> list[int]:
    row, spare = [1] * size, ONE - size
    if style >= 128:
        row[style % size] += spare
        return row
    weights = [1 + (k * style + step) % 256 for k in range(size)]
    shares = [weight * spare // sum(weights) for weight in weights]
    shares[step % size] += spare - sum(shares)
    return [one + share for one, share in zip(row, shares, strict=True)]


def read_tables(source: Input) -> TableSet:
    head = source.unsigned()
    compact = bool(head & 64)
    columns = []
    for _ in range(1 + (head & 3)):
        size = source.unsigned() % 65
        low, high = source.signed(), source.signed()
        shift, style, step = (source.unsigned() for _ in range(3))
        offset = min(low if compact else high * 256 + low % 256, (129 if compact else 32769) - size)
        row = make_row(size, style, step) if size >= 2 else []
        columns.append((row + [0] * (64 - len(row)), len(row), offset, shift % (8 if compact else 13)))
    if head & 0xBC == 0xBC:
        columns = [columns[t % len(columns)] for t in range(MANY)]
    return TableSet(*(np.array(column) for column in zip(*columns, strict=True)))


def read_indices(source: Input, tables: int) -> list[np.ndarray]:
    head = source.unsigned()
    segments = []
    for _ in range(1 + (head & 127) % 3):
        count, base, stride = source.unsigned(2) % 1200, source.unsigned(), source.unsigned(2)
        index = (base + (np.arange(count) * stride >> 3)) % 256
        segments.append((index if head & 128 else index % tables).astype(np.uint8))
    return segments


def everywhere(code):
    """What ``code()`` gives with each instruction set, or the class and text of its error; all must agree."""
    results = []
    for isa in ISAS:
        with using(isa):
            try:
                results.append(code())
            except (BitstreamError, ValueError) as error:
                results.append(f"{type(error).__name__}: {error}")
    assert all(result == results[0] for result in results)
    return results[0]


def decoded(stream: bytes, indices: list[np.ndarray], tables: TableSet) -> list[bytes] | str:
    """The symbols' bytes, or what went wrong, with every instruction set."""
    return everywhere(lambda: [part.tobytes() for part in decode(stream, *((index, tables) for index in indices))])


def encoded(symbols: list[np.ndarray], indices: list[np.ndarray], tables: TableSet, lanes: int) -> bytes:
    segments = [(part, index, tables) for part, index in zip(symbols, indices, strict=True)]
    return everywhere(lambda: encode(*segments, lanes=lanes))


def check_decoder(data: bytes) -> str:
    """Runs one input of the target ``decoder``; how it ended."""
    source = Input(data)
    tables = read_tables(source)
    indices = read_indices(source, len(tables))
    stream = source.rest()
    outcome = decoded(stream, indices, tables)
    if isinstance(outcome, str):
        return outcome
    assert encoded([np.frombuffer(part, np.int16) for part in outcome], indices, tables, stream[0]) == stream
    return "decoded"


def _draw(source: np.ndarray, index: np.ndarray, tables: TableSet) -> np.ndarray:
    at = 0

    def byte() -> int:
        nonlocal at
        value = (int(source[at % len(source)]) + 17 * (at // len(source))) % 256 if len(source) else 0
        at += 1
        return value

    symbols = []
    for size, offset, shift in zip(
        *(a[index].tolist() for a in (tables.sizes, tables.offsets, tables.shifts)), strict=True
    ):
        first = byte() if size else 0
        if size and first >= 240:
            low = byte()
            symbols.append(int(np.int16(np.uint16(low | byte() << 8))))
            continue
        raw = byte() * 37 % (1 << shift) if size and shift else 0
        value = ((offset + first % (size - 1)) << shift) + raw - (1 << shift >> 1) if size else 0
        symbols.append(min(max(value, INT16.min), INT16.max))
    return np.array(symbols, np.int16)


def check_round_trip(data: bytes) -> str:
    """Runs one input of the target ``round_trip``; how the changed stream ended."""
    source = Input(data)
    tables = read_tables(source)
    indices = [(index % len(tables)).astype(np.uint8) for index in read_indices(source, len(tables))]
    lanes, position, change = (8, 32)[source.unsigned() % 2], source.unsigned(2), max(1, source.unsigned())
    whole = _draw(np.frombuffer(source.rest(), np.uint8), np.concatenate(indices), tables)
    symbols = np.split(whole, np.cumsum([len(index) for index in indices])[:-1])
    stream = bytearray(encoded(symbols, indices, tables, lanes))
    assert decoded(stream, indices, tables) == [part.tobytes() for part in symbols]
    stream[position % len(stream)] ^= change
    outcome = decoded(stream, indices, tables)
    assert isinstance(outcome, str), "a changed byte goes unnoticed"
    return outcome


def _read_offset(source: Input, size: int) -> int:
    match source.unsigned() % 3:
        case 0:
            return source.signed(2)
        case 1:
            return source.signed(4)
    return 32769 - size + remainder(source.signed(), 4)


def _read_row(source: Input, size: int, width: int) -> list[int]:
    used = min(max(size, 0), width)
    mode = source.unsigned() % 4
    row: list[int] = []
    if used and mode == 0:
        row = [source.signed(4) for _ in range(used)]
    elif used and mode == 1:
        row = [1 + source.unsigned(2) % 1024 for _ in range(used - 1)]
        row.append(ONE - sum(row))
    elif used:
        row = make_row(used, source.unsigned(), source.unsigned())
        if mode == 3:
            place = source.unsigned() % used
            row[place] += remainder(source.signed(), 3)
    return row + [-1] * (width - used)


def check_tables(data: bytes) -> str:
    """Runs one input of the target ``tables``: every entry of tables that are taken can be coded."""
    source = Input(data)
    head = source.unsigned()
    count = head % 5 if head < 250 else head + 5
    width = source.unsigned() % 80
    rows, sizes, offsets, shifts = [], [], [], []
    for _ in range(count):
        sizes.append(source.signed())
        offsets.append(_read_offset(source, sizes[-1]))
        shift = source.unsigned()
        shifts.append(shift % 16 if shift < 240 else shift)
        rows.append(_read_row(source, sizes[-1], width))
    try:
        tables = TableSet(
            np.array(rows, np.int32).reshape(count, width), *(np.array(a, np.int32) for a in (sizes, offsets, shifts))
        )
    except ValueError as error:
        return str(error)
    symbols, index = [], []
    for t, (size, offset, shift) in enumerate(zip(sizes, offsets, shifts, strict=True)):
        values = [0]
        if size:
            low = (np.arange(offset - 1, offset + size) << shift) - (1 << shift >> 1)
            values = [*low, *(low + (1 << shift) - 1), INT16.min, INT16.max]
        symbols += values
        index += [t] * len(values)
    parts, indices = [np.clip(symbols, INT16.min, INT16.max).astype(np.int16)], [np.array(index, np.uint8)]
    for lanes in (8, 32):
        assert decoded(encoded(parts, indices, tables, lanes), indices, tables) == [parts[0].tobytes()]
    return "coded"


CHECKS = {"decoder": check_decoder, "round_trip": check_round_trip, "tables": check_tables}
