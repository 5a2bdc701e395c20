"""Tables, symbols and shorthands for the tests of the entropy coder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from aicr_ext import _native
from aicr_ext.codec.rans import Decoder, Encoder, TableSet

ONE = 1 << 14
INT16 = np.iinfo(np.int16)
SIZES = [0, 1, 2, 31, 32, 33, 127, 128, 129, 100_000]
ISAS = _native._C.coder_isas() if _native._C is not None else []


@contextmanager
def using(isa: str) -> Iterator[None]:
    """Coders made inside use this instruction set."""
    native = _native.require_C()
    native.select_coder_isa(isa)
    try:
        yield
    finally:
        native.select_coder_isa("")


def tables_of(rows, offsets=None, shifts=None) -> TableSet:
    """A table set from lists of frequencies; an empty list is a skip table."""
    width = max(2, *(len(row) for row in rows))
    frequencies = np.zeros((len(rows), width), np.int32)
    for t, row in enumerate(rows):
        frequencies[t, : len(row)] = row
    none = [0] * len(rows)
    return TableSet(frequencies, [len(row) for row in rows], offsets or none, shifts or none)


def random_row(rng: np.random.Generator, size: int) -> list[int]:
    """Positive frequencies, some of them 1, that sum to 2^14."""
    weights = rng.dirichlet(np.full(size, 0.3)) * (ONE - size)
    row = 1 + np.floor(weights).astype(int)
    row[rng.integers(size)] += ONE - row.sum()
    return row.tolist()


def mixed_tables() -> TableSet:
    """Smallest, largest, skewed to the limit, uniform, shifted, skip, extreme offsets."""
    rng = np.random.default_rng(1)
    rows = [
        [],
        [ONE - 1, 1],
        [1, ONE - 1],
        [256] * 64,
        [1] * 63 + [ONE - 63],
        random_row(rng, 64),
        random_row(rng, 3),
        random_row(rng, 33),
        random_row(rng, 64),
    ]
    return tables_of(rows, [0, 0, 5, -32, -31, -20, -32768, -16, 32705], [0, 0, 0, 0, 1, 3, 0, 12, 0])


def draw(rng: np.random.Generator, tables: TableSet, count: int, escapes: float = 0.02):
    """Random indices, and symbols that mostly lie within their table."""
    index = rng.integers(0, len(tables), count).astype(np.uint8)
    sizes, offsets, shifts = (a[index].astype(np.int64) for a in (tables.sizes, tables.offsets, tables.shifts))
    quotient = offsets + rng.integers(0, np.maximum(sizes - 1, 1))
    symbols = (quotient << shifts) + rng.integers(0, 1 << shifts) - (1 << shifts >> 1)
    far = rng.random(count) < escapes
    symbols[far] = rng.integers(INT16.min, INT16.max + 1, far.sum())
    symbols[sizes == 0] = 0
    return np.clip(symbols, INT16.min, INT16.max).astype(np.int16), index


def encode(*segments, lanes=None) -> bytes:
    encoder = Encoder(lanes)
    for symbols, index, tables in segments:
        encoder.push(symbols, index, tables)
    return encoder.finish()


def decode(data, *segments) -> list[np.ndarray]:
    decoder = Decoder(data)
    decoded = [decoder.pop(index, tables) for index, tables in segments]
    decoder.finish()
    return decoded


def assert_round_trip(symbols, index, tables, lanes=None) -> bytes:
    data = encode((symbols, index, tables), lanes=lanes)
    (decoded,) = decode(data, (index, tables))
    np.testing.assert_array_equal(decoded, symbols)
    assert decoded.dtype == np.int16
    return data
