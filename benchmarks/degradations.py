"""Time of each kind of degradation: ``python -m benchmarks.degradations [--threads N] [--side N ...] [--csv FILE]``.

One patch at a time with new random parameters each time, as in training; the median over many draws. The spread
between draws is large where parameters decide how much there is to do (streaks and flakes of different sizes).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from aicr_ext.degradations import KINDS, degrade, random_degradation

from .timing import measure_together, print_table, write_csv


def calls(side: int) -> dict[str, Callable[[], object]]:
    """One call for each kind and one for a random combination of all, each with a generator of its own."""
    patch: Tensor = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    named: dict[str, Callable[[], object]] = {
        kind: partial(degrade, patch, kind, torch.Generator().manual_seed(0)) for kind in KINDS
    }
    named["random_degradation"] = partial(random_degradation, patch, torch.Generator().manual_seed(0))
    return named


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.degradations", description="time per patch, on the CPU")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1, as a data worker has)")
    parser.add_argument("--side", type=int, nargs="+", default=[128, 256], help="sides of the patches in pixels")
    parser.add_argument("--csv", help="also write the table to this file")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} CPU thread(s), median ms per patch\n")
    columns = {f"{side}x{side}": measure_together(list(calls(side).values()), 1.0) for side in options.side}
    rows: list[dict[str, object]] = [
        {"kind": kind} | {name: 1000 * durations[index] for name, durations in columns.items()}
        for index, kind in enumerate(calls(1))
    ]
    print_table(rows)
    if options.csv:
        write_csv(options.csv, rows)


if __name__ == "__main__":
    main()
