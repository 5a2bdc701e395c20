"""What streams cost beside their payload: ``python -m benchmarks.framing [--csv FILE]``.

Sizes, no times, so that every machine prints the same. The payload is the ideal code length under the frequencies of
the tables, raw bits included: what is above it is the header, the states and the checksum in them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch

import aicr_ext
from aicr_ext.codec.container import Header, pack
from aicr_ext.codec.rans import Encoder
from aicr_ext.codec.streams import encode_as, encode_streams
from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.images import read_image

from .coder import LEVELS
from .entropy import SAMPLE
from .timing import circumstances, print_table, write_csv


def draw(weights: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Symbols as frequent as their tables have them, table indices, and their code length in bytes; no escapes."""
    rng, tables = np.random.default_rng(seed), gaussian_tables()
    weights = weights * (np.arange(len(weights)) > 0)
    index = rng.choice(len(weights), count, p=weights / weights.sum()).astype(np.uint8)
    symbols, bits = np.zeros(count, np.int16), 0.0
    for level in np.unique(index):
        own, shift = index == level, int(tables.shifts[level])
        frequencies = tables.frequencies[level, : tables.sizes[level]].astype(float)
        p = frequencies[:-1] / frequencies[:-1].sum()
        entry = rng.choice(len(p), own.sum(), p=p)
        raw = rng.integers(0, 1 << shift, own.sum())
        symbols[own] = ((entry + tables.offsets[level]) << shift) + raw - (1 << shift >> 1)
        bits += float(np.sum(14 - np.log2(frequencies[entry]) + shift))
    return symbols, index, bits / 8


def of_one_stream(name: str, weights: np.ndarray, lanes: int, count: int, streams: int = 400) -> dict[str, object]:
    """Averages over many streams of few symbols."""
    sizes, payloads = [], []
    for seed in range(streams):
        symbols, index, payload = draw(weights, count, seed)
        encoder = Encoder(lanes)
        encoder.push(symbols, index, gaussian_tables())
        sizes.append(len(encoder.finish()))
        payloads.append(payload)
    return {
        "workload": name,
        "lanes": lanes,
        "symbols": count,
        "payload bytes": round(float(np.mean(payloads))),
        "beside it, bytes": float(np.mean(np.subtract(sizes, payloads))),
    }


def of_several_streams(name: str, weights: np.ndarray, count: int) -> dict[str, object]:
    """One picture's symbols as one stream, and as many as the encoder makes of them, in whole files."""
    symbols, index, _ = draw(weights, count, 0)
    segments = [(torch.from_numpy(symbols), torch.from_numpy(index), gaussian_tables())]
    header = Header("aicr-t", bytes(4), 0, 1000, 1000)
    (one,), (several,) = encode_as(segments, [1]), encode_streams(segments)
    sizes = [len(pack(header, streams)) for streams in (one, several)]
    more = max(1, len(several) - 1)
    return {
        "workload": name,
        "symbols": count,
        "streams": len(several),
        "file, one stream": sizes[0],
        "file, streams": sizes[1],
        "bytes per further stream": (sizes[1] - sizes[0]) / more,
        "more %": 100 * (sizes[1] / sizes[0] - 1),
    }


def of_a_photograph(codec: aicr_ext.Codec, streams: int) -> dict[str, object]:
    """The sample photograph at quality 32, as a file of so many streams."""
    picture = torch.from_numpy(np.array(read_image(SAMPLE))).permute(2, 0, 1)
    one, several = (len(codec.compress(picture, streams=count)) for count in (1, streams))
    further = (several - one) / max(1, streams - 1)
    return {
        "streams": streams,
        "file": several,
        "bytes per further stream": further,
        "more %": 100 * (several / one - 1),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.framing", description="what streams cost beside payload")
    parser.add_argument("--csv", help="also write the second table to this file")
    options = parser.parse_args(argv)
    print_table([of_one_stream(*workload, lanes, 2000) for workload in LEVELS.items() for lanes in (8, 32)])
    rows = [
        of_several_streams(*workload, count)
        for workload in LEVELS.items()
        for count in (100_000, 400_000, 1_600_000, 6_400_000)
    ]
    print()
    print_table(rows)
    codec = aicr_ext.Codec()
    print()
    print_table([of_a_photograph(codec, streams) for streams in (1, 2, 4, 8, 16, 32)])
    if options.csv:
        write_csv(options.csv, [row | circumstances() for row in rows])


if __name__ == "__main__":
    main()
