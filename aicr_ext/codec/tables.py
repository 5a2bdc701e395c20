"""Frequency tables for the entropy coder: the committed Gaussian set, and sets from given probabilities.

Tables are made once, offline, with floating point, and travel as integers: the Gaussian set in this package,
those of a model in its weights file. Nothing recomputes them when a picture is coded, so no two machines can
disagree on them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aicr_ext.model.entropy import LOG_SCALE_MAX, LOG_SCALE_MIN, SCALE_LEVELS

from .rans import MAX_ENTRIES, MAX_TABLES, PROBABILITY_BITS, TableSet

__all__ = [
    "GAUSSIAN_TABLES_SHA256",
    "allocate_frequencies",
    "expected_bits",
    "gaussian_probabilities",
    "gaussian_sigmas",
    "gaussian_tables",
    "make_gaussian_tables",
    "tables_from_probabilities",
]

GAUSSIAN_TABLES_SHA256 = "46f87ac2d07f591e78e4836dbc3f5d8376351b0b0929523bd3d3be9d0109bd16"
"""What :meth:`TableSet.digest` of :func:`gaussian_tables` must be, in hexadecimal."""

GAUSSIAN_TABLES_FILE = Path(__file__).with_name("gaussian_tables.npz")

_TOTAL = 1 << PROBABILITY_BITS
_MAX_SHIFT = 8  # of the tables made here
_ESCAPE_ORDER = 1


def gaussian_sigmas() -> np.ndarray:
    """The standard deviations of the levels, ``[128]`` float64: log-spaced from 0.11 to 64."""
    return np.exp(np.linspace(LOG_SCALE_MIN, LOG_SCALE_MAX, SCALE_LEVELS))


def gaussian_probabilities(sigma: float) -> tuple[np.ndarray, int]:
    """Probabilities of a Gaussian of mean 0, integrated over unit intervals around the integers.

    Returns:
        ``p`` float64 and the integer of ``p[0]``; the range covers 10 sigma, beyond which less than 1e-22 is
        left.
    """
    reach = max(2, math.ceil(10 * sigma))
    tails = [0.5 * math.erfc((k - 0.5) / (sigma * math.sqrt(2))) for k in range(reach + 2)]  # P(x > k - 1/2)
    upper = np.array([tails[k] - tails[k + 1] for k in range(reach + 1)])
    return np.concatenate([upper[:0:-1], upper]), -reach


@lru_cache(maxsize=1)
def gaussian_tables() -> TableSet:
    """The Gaussian tables every model shares: level i has the scale ``gaussian_sigmas()[i]``, mean 0.

    Level 0 is a skip table: its symbols are 0 by definition, at no cost. From sigma 8 on, low bits go raw.
    Read from the package and checked against :data:`GAUSSIAN_TABLES_SHA256`.

    Raises:
        ValueError: the file is not the one this version was made with.
    """
    with np.load(GAUSSIAN_TABLES_FILE) as arrays:
        tables = TableSet(arrays["frequencies"], arrays["sizes"], arrays["offsets"], arrays["shifts"])
    if tables.digest().hex() != GAUSSIAN_TABLES_SHA256:
        raise ValueError(f"{GAUSSIAN_TABLES_FILE} does not hold the tables of this version (SHA-256 differs)")
    return tables


def make_gaussian_tables() -> TableSet:
    """Compute what ``gaussian_tables.npz`` holds; ``python -m aicr_ext.codec.make_tables`` writes it."""
    rows = [(np.zeros(0, np.int64), 0, 0)]
    for sigma in gaussian_sigmas()[1:]:
        p, offset = gaussian_probabilities(sigma)
        # The tolerance keeps the rounding of exp() from deciding about the last level, sigma 64.
        shift = max(0, math.ceil(math.log2(sigma / 8) - 1e-9))
        rows.append(_best_row(p, offset, shift)[:3])
    return _table_set(rows)


def tables_from_probabilities(
    probabilities: npt.ArrayLike, offsets: npt.ArrayLike, shifts: npt.ArrayLike | None = None
) -> TableSet:
    """Integer tables for given distributions, one per row, for instance of the channels of a factorised
    prior.

    For each row the support, and unless given the number of raw low bits, are those of the least expected
    length.

    Args:
        probabilities: ``[T, n]``, T ≤ 256: ``probabilities[t, i]`` is that of the symbol ``offsets[t] + i``.
            What a row lacks to 1 belongs to symbols outside its range.
        offsets: ``[T]`` integers.
        shifts: ``[T]``, 0 … 8; ``None`` chooses.

    Raises:
        ValueError: wrong shapes, negative or non-finite probabilities, a row that sums to 0 or to more than
            1.
    """
    p = np.asarray(probabilities, np.float64)
    first = np.asarray(offsets)
    if p.ndim != 2 or not 1 <= p.shape[0] <= MAX_TABLES or p.shape[1] < 1:
        raise ValueError(f"probabilities must have the shape [T, n] with T from 1 to {MAX_TABLES}, got {p.shape}")
    if first.shape != p.shape[:1] or first.dtype.kind not in "iu":
        raise ValueError(f"offsets must be {p.shape[0]} integers, got {first.dtype} of shape {first.shape}")
    if first.min() < -32768 or first.max() + p.shape[1] - 1 > 32767:
        raise ValueError("offsets must keep every symbol within int16")
    if not np.isfinite(p).all() or p.min() < 0:
        raise ValueError("probabilities must be finite and not negative")
    sums = p.sum(axis=1)
    if sums.min() <= 0 or sums.max() > 1 + 1e-4:
        raise ValueError(f"each row must sum to more than 0 and at most 1, got {sums.min()} to {sums.max()}")
    p = p / np.maximum(sums, 1)[:, None]
    if shifts is None:
        choices = [range(_MAX_SHIFT + 1)] * len(p)
    else:
        given = np.asarray(shifts)
        if given.shape != p.shape[:1] or given.dtype.kind not in "iu" or given.min() < 0 or given.max() > _MAX_SHIFT:
            raise ValueError(f"shifts must be {p.shape[0]} integers from 0 to {_MAX_SHIFT}")
        choices = [[int(b)] for b in given]
    return _table_set(
        [
            min((_best_row(row, int(offset), shift) for shift in shifts_of_row), key=lambda best: best[3])[:3]
            for row, offset, shifts_of_row in zip(p, first, choices, strict=True)
        ]
    )


def allocate_frequencies(p: np.ndarray, total: int = _TOTAL) -> np.ndarray:
    """Positive integers with the sum ``total`` that code symbols of distribution ``p`` in the fewest bits.

    The exact minimum of ``-sum(p * log2(f / total))``: the sum is separable and convex, so a solution that no
    single exchange improves is the best one.

    Args:
        p: ``[n]`` float64, not negative, n ≤ total; need not be normalised.
    """
    if p.ndim != 1 or not 1 <= len(p) <= total or p.sum() <= 0:
        raise ValueError(f"p must be a vector of 1 to {total} values with a positive sum, got shape {p.shape}")
    f = np.maximum(1, np.floor(p / p.sum() * total)).astype(np.int64)

    def gain(f: np.ndarray) -> np.ndarray:
        return p * np.log1p(1 / f)

    def loss(f: np.ndarray) -> np.ndarray:
        return np.where(f > 1, p * np.log1p(1 / np.maximum(f - 1, 1)), np.inf)

    while f.sum() < total:
        f[np.argmax(gain(f))] += 1
    while f.sum() > total:
        f[np.argmin(loss(f))] -= 1
    while True:
        up, down = np.argmax(gain(f)), np.argmin(loss(f))
        if up == down or gain(f)[up] <= loss(f)[down] * (1 + 1e-12):
            return f
        f[up] += 1
        f[down] -= 1


def expected_bits(tables: TableSet, table: int, p: np.ndarray, offset: int) -> float:
    """Mean length in bits of a symbol distributed as ``p`` (``p[0]`` is that of ``offset``) coded with one
    table.

    Counts the raw bits and the escapes; of a skip table it is 0, whatever ``p`` says.
    """
    size, shift = int(tables.sizes[table]), int(tables.shifts[table])
    if size == 0:
        return 0.0
    mass, first = _quotients(p, offset, shift)
    start = int(tables.offsets[table]) - first
    return _row_bits(mass, start, tables.frequencies[table, :size]) + shift * float(p.sum())


def _quotients(p: np.ndarray, offset: int, shift: int) -> tuple[np.ndarray, int]:
    """The distribution of ``(x + half) >> shift`` and the quotient of its first value."""
    half = (1 << shift) >> 1
    quotients = (np.arange(offset, offset + len(p)) + half) >> shift
    return np.bincount(quotients - quotients[0], weights=p), int(quotients[0])


def _escape_bits(distance: np.ndarray) -> np.ndarray:
    """Length of an escape ``distance`` ≥ 0 beyond the table's end, averaged over the two sides."""
    lengths = [2 * np.floor(np.log2(2 * distance + side + (1 << _ESCAPE_ORDER))) + 1 - _ESCAPE_ORDER for side in (0, 1)]
    return (lengths[0] + lengths[1]) / 2


def _row_bits(mass: np.ndarray, start: int, frequencies: np.ndarray) -> float:
    """Bits for entry and escape when the table's first entry is ``mass[start]``; it may lie outside."""
    position = np.arange(len(mass)) - start
    regular = len(frequencies) - 1
    inside = (position >= 0) & (position < regular)
    entry = np.where(inside, position, regular)
    bits = float(mass @ (PROBABILITY_BITS - np.log2(frequencies[entry])))
    distance = np.where(position < 0, -1 - position, position - regular)[~inside]
    if distance.size:
        bits += float(mass[~inside] @ _escape_bits(distance))
    return bits


def _best_row(p: np.ndarray, offset: int, shift: int) -> tuple[np.ndarray, int, int, float]:
    """Frequencies, offset, shift and expected bits of the best table with this shift.

    The supports tried are nested: from the likeliest quotient on, each takes in the likelier neighbour.
    """
    mass, first = _quotients(p, offset, shift)
    padded = np.concatenate([[0.0], mass, [0.0]])
    outside = max(0.0, 1 - mass.sum())
    low = high = int(np.argmax(mass)) + 1
    best: tuple[float, int, int] | None = None
    while True:
        window = padded[low : high + 1]
        entries = np.append(window, max(0.0, mass.sum() - window.sum()) + outside)
        bits = _row_bits(mass, low - 1, np.maximum(entries / entries.sum() * (_TOTAL - len(entries)) + 1, 1))
        if best is None or bits < best[0]:
            best = (bits, low, high)
        if high - low + 2 >= MAX_ENTRIES or (low == 1 and high == len(mass)):
            break
        go_low = low > 1 and (high == len(mass) or padded[low - 1] >= padded[high + 1])
        low, high = (low - 1, high) if go_low else (low, high + 1)
    _, low, high = best
    window = padded[low : high + 1]
    escape = max(0.0, mass.sum() - window.sum()) + outside
    frequencies = allocate_frequencies(np.append(window, escape))
    # What lies outside p has no known distance; a rough 20 bits stand for it.
    bits = _row_bits(mass, low - 1, frequencies) + outside * (34 - math.log2(frequencies[-1])) + shift
    return frequencies, first + low - 1, shift, bits


def _table_set(rows: list[tuple[np.ndarray, int, int]]) -> TableSet:
    frequencies = np.zeros((len(rows), MAX_ENTRIES), np.int32)
    for t, (row, _, _) in enumerate(rows):
        frequencies[t, : len(row)] = row
    return TableSet(frequencies, [len(row) for row, _, _ in rows], [o for _, o, _ in rows], [b for _, _, b in rows])
