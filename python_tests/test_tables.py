"""The frequency tables: what is committed is what the generator makes, and it is near the ideal."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aicr_ext.codec import make_tables
from aicr_ext.codec import tables as module
from aicr_ext.codec.rans import Decoder, Encoder
from aicr_ext.codec.tables import (
    GAUSSIAN_TABLES_FILE,
    GAUSSIAN_TABLES_SHA256,
    allocate_frequencies,
    expected_bits,
    gaussian_probabilities,
    gaussian_sigmas,
    gaussian_tables,
    make_gaussian_tables,
    tables_from_probabilities,
)

ONE = 1 << 14


def entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p @ np.log2(p)))


def test_committed_tables_are_what_the_generator_makes():
    made, committed = make_gaussian_tables(), gaussian_tables()
    for name in ("frequencies", "sizes", "offsets", "shifts"):
        np.testing.assert_array_equal(getattr(made, name), getattr(committed, name))
    assert made.digest() == committed.digest() == bytes.fromhex(GAUSSIAN_TABLES_SHA256)


def test_other_tables_are_refused(tmp_path, monkeypatch):
    with np.load(module.GAUSSIAN_TABLES_FILE) as arrays:
        changed = dict(arrays)
    changed["frequencies"] = changed["frequencies"].copy()
    changed["frequencies"][5, :2] += np.array([1, -1], np.int64).astype(np.uint16)
    np.savez_compressed(tmp_path / "tables.npz", **changed)
    monkeypatch.setattr(module, "GAUSSIAN_TABLES_FILE", tmp_path / "tables.npz")
    gaussian_tables.cache_clear()
    try:
        with pytest.raises(ValueError, match="SHA-256"):
            gaussian_tables()
    finally:
        gaussian_tables.cache_clear()


def test_shape_of_the_gaussian_set():
    tables, sigmas = gaussian_tables(), gaussian_sigmas()
    assert len(tables) == len(sigmas) == 128
    assert sigmas[0] == pytest.approx(0.11)
    assert sigmas[-1] == pytest.approx(64)
    np.testing.assert_array_equal(np.flatnonzero(tables.sizes == 0), [0])
    assert (sigmas / 2.0**tables.shifts <= 8 * (1 + 1e-9)).all()
    assert (np.diff(tables.shifts.astype(int)) >= 0).all()


def test_overhead_of_every_level():
    """The numbers of docs/bitstream.md, "Tables"."""
    tables = gaussian_tables()
    ideal, actual = np.zeros(128), np.zeros(128)
    for level, sigma in enumerate(gaussian_sigmas()):
        p, first = gaussian_probabilities(sigma)
        ideal[level], actual[level] = entropy(p), expected_bits(tables, level, p, first)
    extra = (actual - ideal)[1:]
    assert extra.min() > 0
    assert extra[:85].max() < 1.1e-4  # bits per symbol, while no bits go raw
    assert (extra / ideal[1:])[15:].max() < 6e-4
    skew = np.exp(-np.arange(128) / 16)
    for weights in (np.ones(127), skew[1:]):
        assert (weights @ extra) / (weights @ ideal[1:]) < 2e-4


def test_gaussian_probabilities():
    for sigma in (0.11, 1.0, 64.0):
        p, first = gaussian_probabilities(sigma)
        x = np.arange(first, first + len(p))
        assert p.sum() == pytest.approx(1, abs=1e-12)
        np.testing.assert_array_equal(p, p[::-1])
        if sigma >= 1:
            assert (p @ x**2) == pytest.approx(sigma**2 + 1 / 12, rel=1e-6)  # the variance of rounding adds up


def test_allocation_is_the_best_there_is():
    """Against every way to share 12 among 4."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.dirichlet(np.full(4, 0.5))
        f = allocate_frequencies(p, 12)
        assert f.min() >= 1
        assert f.sum() == 12
        best = min(-(p @ np.log2(g)) for g in itertools.product(range(1, 10), repeat=4) if sum(g) == 12)
        assert -(p @ np.log2(f)) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("p", [[1.0], [1.0, 0.0], [0.0] * 63 + [1.0], [1e-300] * 64, [1 / 64] * 64])
def test_allocation_of_extreme_distributions(p):
    f = allocate_frequencies(np.array(p))
    assert f.sum() == ONE
    assert f.min() >= 1


@given(
    n=st.integers(1, 300),
    concentration=st.floats(0.02, 5),
    offset=st.integers(-500, 500),
    tail=st.floats(0, 0.5),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_tables_from_any_probabilities(n, concentration, offset, tail, seed):
    """Whatever the distribution, its samples and symbols beyond its range go through the coder."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(n, concentration)) * (1 - tail)
    tables = tables_from_probabilities(p[None], [offset])
    symbols = (offset + rng.choice(n, 400, p=p / p.sum())).astype(np.int16)
    symbols[0], symbols[1] = offset - 1, offset + n
    encoder = Encoder(8)
    encoder.push(symbols, np.zeros(400, np.uint8), tables)
    data = encoder.finish()
    np.testing.assert_array_equal(Decoder(data).pop(np.zeros(400, np.uint8), tables), symbols)


@pytest.mark.parametrize("sigma", [0.3, 2.0, 20.0])
@pytest.mark.parametrize("centre", [0, 37])
def test_tables_from_probabilities_are_near_the_entropy(sigma, centre):
    p, first = gaussian_probabilities(sigma)
    tables = tables_from_probabilities(p[None], [first + centre])
    bits = expected_bits(tables, 0, p, first + centre)
    assert entropy(p) < bits < entropy(p) * 1.001 + 2e-4


def test_given_shifts_are_kept():
    p, first = gaussian_probabilities(3.0)
    tables = tables_from_probabilities(np.stack([p, p]), [first, first], shifts=[0, 2])
    assert tables.shifts.tolist() == [0, 2]


@pytest.mark.parametrize(
    "p, offsets, shifts, message",
    [
        ([0.5, 0.5], [0], None, r"shape \[T, n\]"),
        ([[0.5, 0.5]], [0, 0], None, "offsets must be 1 integers"),
        ([[0.5, 0.5]], [0.5], None, "offsets must be 1 integers"),
        ([[0.5, 0.5]], [32767], None, "within int16"),
        ([[0.5, -0.5]], [0], None, "not negative"),
        ([[0.5, np.nan]], [0], None, "finite"),
        ([[0.0, 0.0]], [0], None, "more than 0"),
        ([[0.9, 0.9]], [0], None, "at most 1"),
        ([[0.5, 0.5]], [0], [9], "shifts must be"),
    ],
)
def test_bad_probabilities(p, offsets, shifts, message):
    with pytest.raises(ValueError, match=message):
        tables_from_probabilities(p, offsets, shifts)


def test_the_command_makes_the_committed_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(make_tables, "make_gaussian_tables", gaussian_tables)  # which takes long
    make_tables.main(["--out", str(tmp_path / "again.npz")])
    again, committed = np.load(tmp_path / "again.npz"), np.load(GAUSSIAN_TABLES_FILE)
    assert again.files == committed.files
    for name in committed.files:
        assert again[name].dtype == committed[name].dtype
        assert np.array_equal(again[name], committed[name])
    assert gaussian_tables().digest().hex() in capsys.readouterr().out
    with pytest.raises(SystemExit):
        make_tables.main(["--out", str(tmp_path / "again.txt")])
    assert [path.name for path in tmp_path.iterdir()] == ["again.npz"]
