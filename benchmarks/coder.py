"""Speed and overhead of the entropy coder: ``python -m benchmarks.coder [--symbols N] [--csv FILE]``.

Two workloads with the Gaussian tables: A draws the scale of each symbol uniformly from the 127 coded levels,
B mostly from the small ones, as a real picture does. One thread; the median of several runs. The overhead is
that of the whole stream over the ideal code length of the same symbols.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np

from aicr_ext.codec.rans import Decoder, Encoder
from aicr_ext.codec.tables import gaussian_probabilities, gaussian_sigmas, gaussian_tables

from .timing import measure, print_table, write_csv

WORKLOADS = {
    "A, uniform": np.ones(128),
    "B, skewed": np.exp(-np.arange(128) / 16),
}


def draw(weights: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Symbols, table indices, and the information they carry in bits; without level 0, the skip table."""
    rng = np.random.default_rng(0)
    weights = weights * (np.arange(len(weights)) > 0)
    index = rng.choice(len(weights), count, p=weights / weights.sum()).astype(np.uint8)
    sigmas = gaussian_sigmas()
    symbols = np.rint(rng.normal(size=count) * sigmas[index]).astype(np.int16)
    ideal = 0.0
    for level in np.unique(index):
        p, first = gaussian_probabilities(sigmas[level])
        ideal -= float(np.log2(p[symbols[index == level].astype(int) - first]).sum())
    return symbols, index, ideal


def run(name: str, weights: np.ndarray, count: int) -> dict[str, object]:
    tables = gaussian_tables()
    symbols, index, ideal = draw(weights, count)

    def encode() -> bytes:
        encoder = Encoder()
        encoder.push(symbols, index, tables)
        return encoder.finish()

    data = encode()

    def decode() -> np.ndarray:
        decoder = Decoder(data)
        decoded = decoder.pop(index, tables)
        decoder.finish()
        return decoded

    if not np.array_equal(decode(), symbols):
        raise RuntimeError(f"workload {name}: the decoded symbols are not those that were coded")
    return {
        "workload": name,
        "symbols": count,
        "bits/symbol": 8 * len(data) / count,
        "overhead %": 100 * (8 * len(data) / ideal - 1) if ideal else math.inf,
        "encode Msym/s": count / measure(encode, 1.0) / 1e6,
        "decode Msym/s": count / measure(decode, 1.0) / 1e6,
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.coder", description="speed of the entropy coder")
    parser.add_argument("--symbols", type=int, default=4_000_000)
    parser.add_argument("--csv", help="also write the table to this file")
    options = parser.parse_args(argv)
    rows = [run(name, weights, options.symbols) for name, weights in WORKLOADS.items()]
    print_table(rows)
    if options.csv:
        write_csv(options.csv, rows)


if __name__ == "__main__":
    main()
