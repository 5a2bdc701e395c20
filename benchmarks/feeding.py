"""Making batches: ``python -m benchmarks.feeding [--side N] [--workers N ...] [--csv FILE]``.

For the mixture of each config, the milliseconds that one core needs for a patch, and the patches a second that worker
processes deliver, in batches of 32, to a loop that does nothing else.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from aicr_ext.train import TrainingOptions
from aicr_ext.train.data import Batches, load_images
from aicr_ext.train.feed import Feed, Request

from .timing import print_table, write_csv

SAMPLES = Path(__file__).parent.parent / "samples"

MIXTURES = ("clean", "noise", "weather", "everything")

BATCH = 32


def seconds_per_patch(batches: Batches, side: int, seconds: float) -> float:
    """Mean time of a patch in this process; the mean, since single degradations differ much."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        batches.make(count, range(4), side)
        count += 1
    return (time.perf_counter() - start) / (4 * count)


def patches_per_second(batches: Batches, side: int, workers: int, seconds: float) -> float:
    """What so many processes deliver, once the queues they had filled are empty."""
    feed = Feed(batches, lambda n: Request(n, range(BATCH), BATCH, side), 0, workers, torch.device("cpu"))
    for _ in range(2 * workers):
        next(feed)
    start, count = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        next(feed)
        count += 1
    elapsed = time.perf_counter() - start
    feed.close()
    return BATCH * count / elapsed


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.feeding", description="making batches, on the CPU")
    parser.add_argument("--side", type=int, default=256, help="sides of the patches in pixels")
    parser.add_argument("--workers", type=int, nargs="*", default=[1], help="numbers of processes to try")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each measurement")
    parser.add_argument("--csv", help="also write the table to this file")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # as a worker has
    images = load_images(SAMPLES)
    rows: list[dict[str, object]] = []
    for config in MIXTURES:
        batches = Batches(images, 0, TrainingOptions.from_config(SAMPLES, "out", config).mixture)
        each = seconds_per_patch(batches, options.side, options.seconds)
        row: dict[str, object] = {"mixture": config, "ms per patch": 1000 * each}
        for workers in options.workers:
            name = f"patches/s from {workers} worker{'s' * (workers > 1)}"
            row[name] = patches_per_second(batches, options.side, workers, options.seconds)
        rows.append(row)
    print(f"torch {torch.__version__}, {options.side}x{options.side}, one thread each\n")
    print_table(rows)
    if options.csv:
        write_csv(options.csv, rows)


if __name__ == "__main__":
    main()
