"""Speed and overhead of the entropy coder: ``python -m benchmarks.coder [--symbols N] [--csv FILE]``.

Three workloads with the Gaussian tables: A draws the scale of each symbol uniformly from the 127 coded levels, B mostly
from the small ones, and C is the latent of the sample photograph at quality 32, again and again, with all the places
whose symbol is 0 by definition. Every instruction set of this processor takes part, with one thread and with two, each
of which has a stream of its own; then whatever other coder can be imported (``benchmarks/other_coders.py``). They take
turns, so that a busy machine is the same to all.

Times of one thread are its processor time: waiting for a core does not count, sharing its caches with other programs
does. Those of two are by the clock, from the start of both to the end of the slower one, and need two cores. The
fastest round counts, the one that other programs disturbed least. The overhead is that of the whole stream over the
ideal code length of the same symbols.

``--device`` measures the operators on many streams at once instead (``coder_streams.py``).
"""

from __future__ import annotations

import argparse
import math
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch

import aicr_ext
from aicr_ext import _native
from aicr_ext.codec.rans import Decoder, Encoder
from aicr_ext.codec.tables import gaussian_probabilities, gaussian_sigmas, gaussian_tables
from aicr_ext.images import read_image

from .coder_streams import STREAMS, stream_rows
from .entropy import SAMPLE, coding_steps
from .other_coders import other_coders
from .timing import circumstances, print_table, write_csv

#: How often each level comes in the workloads that are drawn.
LEVELS = {"A, uniform": np.ones(128), "B, skewed": np.exp(-np.arange(128) / 16)}

Symbols = tuple[np.ndarray, np.ndarray]


def drawn(weights: np.ndarray, count: int) -> Symbols:
    """Symbols and table indices; without level 0, the skip table."""
    rng = np.random.default_rng(0)
    weights = weights * (np.arange(len(weights)) > 0)
    index = rng.choice(len(weights), count, p=weights / weights.sum()).astype(np.uint8)
    return np.rint(rng.normal(size=count) * gaussian_sigmas()[index]).astype(np.int16), index


def photographed(count: int) -> Symbols:
    """The symbols of all coding steps of a photograph, repeated."""
    codec = aicr_ext.Codec()
    picture = torch.from_numpy(np.array(read_image(SAMPLE))).permute(2, 0, 1)
    with torch.no_grad():
        y = codec.latent(picture, 32)
        steps = coding_steps(codec, torch.round(codec.model.hyper_analysis(codec.model.y_and_detail(y)[0])), y)
    symbols, index = (torch.cat(part).numpy() for part in zip(*steps, strict=True))
    return np.resize(symbols, count), np.resize(index, count)


WORKLOADS: dict[str, Callable[[int], Symbols]] = {
    **{name: partial(drawn, weights) for name, weights in LEVELS.items()},
    "C, photograph": photographed,
}


def information(symbols: np.ndarray, index: np.ndarray) -> float:
    """Bits that the symbols carry under the distributions of their levels."""
    sigmas, bits = gaussian_sigmas(), 0.0
    for level in np.unique(index[index > 0]):
        p, first = gaussian_probabilities(sigmas[level])
        bits -= float(np.log2(p[(symbols[index == level].astype(int) - first).clip(0, len(p) - 1)]).sum())
    return bits


class Ours:
    """The coder with one instruction set and number of lanes."""

    def __init__(self, isa: str, lanes: int) -> None:
        self.name, self.isa, self.lanes = f"aicr_ext, {isa}, {lanes} lanes", isa, lanes
        self.tables = gaussian_tables()

    def encode(self, symbols: np.ndarray, index: np.ndarray) -> bytes:
        encoder = Encoder(self.lanes)
        encoder.push(symbols, index, self.tables)
        return encoder.finish()

    def decode(self, data: bytes, index: np.ndarray) -> np.ndarray:
        decoder = Decoder(data)
        symbols = decoder.pop(index, self.tables)
        decoder.finish()
        return symbols


#: Calls of each of several threads: until the second one runs takes as long as a tenth of a call.
_IN_A_ROW = 8

#: They stay, and with them the memory they have had: a program that codes picture after picture has that too.
_WORKERS = ThreadPoolExecutor(2)


def seconds_of(call: Callable[[], object], threads: int) -> float:
    """Seconds of ``call`` on several threads at once, by the clock; on one, of its processor time."""
    start = threading.Barrier(threads)
    clock, calls = (time.perf_counter, _IN_A_ROW) if threads > 1 else (time.thread_time, 1)

    def work(_: int) -> tuple[float, float]:
        start.wait()
        begin = clock()
        for _ in range(calls):
            call()
        return begin, clock()

    begun, ended = zip(*_WORKERS.map(work, range(threads)), strict=True)
    return (max(ended) - min(begun)) / calls


def run(name: str, count: int, rounds: int) -> list[dict[str, object]]:
    symbols, index = WORKLOADS[name](count)
    ideal = information(symbols, index)
    native = _native.require_C()
    ours = [Ours(isa, lanes) for isa in native.coder_isas() for lanes in (32, 8)]
    cores = len(os.sched_getaffinity(0))
    contenders = [(coder, threads) for coder in ours for threads in (1, 2) if threads <= cores]
    contenders += [(coder, 1) for coder in other_coders()]
    rows, times = [], []
    for coder, threads in contenders:
        native.select_coder_isa(getattr(coder, "isa", ""))
        data = coder.encode(symbols, index)
        if not np.array_equal(coder.decode(data, index), symbols):
            raise RuntimeError(f"workload {name}: what {coder.name} decoded is not what was coded")
        size = len(data)
        rows.append(
            {
                "workload": name,
                "coder": coder.name,
                "threads": threads,
                "symbols": threads * count,
                "bits/symbol": 8 * size / count,
                "overhead %": 100 * (8 * size / ideal - 1) if ideal else math.inf,
            }
        )
        times.append(([], [], data))
    for _ in range(rounds):
        for (coder, threads), (encoding, decoding, data) in zip(contenders, times, strict=True):
            native.select_coder_isa(getattr(coder, "isa", ""))
            encoding.append(seconds_of(lambda c=coder: c.encode(symbols, index), threads))
            decoding.append(seconds_of(lambda c=coder, d=data: c.decode(d, index), threads))
    native.select_coder_isa("")
    for row, (encoding, decoding, _) in zip(rows, times, strict=True):
        row["encode Msym/s"] = row["symbols"] / min(encoding) / 1e6
        row["decode Msym/s"] = row["symbols"] / min(decoding) / 1e6
    return rows


def many_streams(options: argparse.Namespace) -> None:
    """The table of ``--device``: the GPU's rows and the CPU's. The file grows row by row."""
    rows: list[dict[str, object]] = []
    facts = circumstances(options.device)
    devices = ["cpu"] if options.device == "cpu" else ["cuda", "cpu"]
    for name in WORKLOADS:
        symbols, index = WORKLOADS[name](options.symbols)
        for device, streams in product(devices, options.streams):
            rows.append(stream_rows(name, symbols, index, device, streams, options.rounds))
            if options.csv:
                write_csv(options.csv, [row | facts for row in rows])
    print_table(rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.coder", description="speed of the entropy coder")
    parser.add_argument("--symbols", type=int, help="per stream (default: 1000000; with --device 65536)")
    parser.add_argument("--rounds", type=int, default=7, help="of which the fastest counts (default: %(default)s)")
    parser.add_argument("--csv", help="also write the table to this file; 'auto' names it after the processor")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="many streams at once, on this device and the CPU")
    parser.add_argument("--streams", type=int, nargs="+", default=STREAMS, help="with --device: how many at once")
    options = parser.parse_args(argv)
    options.symbols = options.symbols or (65536 if options.device else 1_000_000)
    if options.device:
        many_streams(options)
        return
    torch.set_num_threads(1)  # of the other coders
    rows = [row for name in WORKLOADS for row in run(name, options.symbols, options.rounds)]
    print_table(rows)
    if options.csv:
        facts = circumstances()
        path = Path(options.csv)
        if options.csv == "auto":
            name = re.sub(r"[^a-z0-9]+", "-", facts["cpu"].lower()).strip("-")
            path = Path(__file__).parent / "results" / f"coder-{name}.csv"
            path.parent.mkdir(exist_ok=True)
        write_csv(path, [row | facts for row in rows])


if __name__ == "__main__":
    main()
