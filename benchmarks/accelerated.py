"""A network of Restormer's published shape, as it is and accelerated: ``python -m benchmarks.accelerated``.

Inference in float32 and under bfloat16 autocast, and a training step on half of the side. Each row runs in a process
of its own; paths take turns, ``--rounds`` times. The memory is what a call adds to that of the process at most. The
error is the largest difference of the picture to that of the first path in float32.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

import aicr_ext
from aicr_ext.profiling.memory import added_memory

from .restormer import Restormer
from .timing import circumstances, print_table, write_csv

PATHS = ("eager", "eager, channels-last", "compiled", "accelerated")
TASKS = ("float32", "bfloat16", "training")


def prepare(path: str) -> torch.nn.Module:
    """The network with random weights, the same for every path."""
    torch.manual_seed(0)
    model = Restormer().eval()
    if path in ("eager, channels-last", "compiled"):
        model.to(memory_format=torch.channels_last)
    if path == "compiled":
        return torch.compile(model)
    if path == "accelerated":
        aicr_ext.accelerate(model)
    return model


def infer(model: torch.nn.Module, x: Tensor, task: str) -> Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=task == "bfloat16"):
        return model(x).float()


def step(model: torch.nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        loss = (model(x) - x).abs().mean()
    loss.backward()
    model.zero_grad(set_to_none=True)
    return loss.detach()


def run(path: str, task: str, side: int, folder: Path) -> dict[str, float]:
    """Seconds of the second call, GiB that the third one adds, and the error of the picture."""
    model = prepare(path)
    side = side // 2 if task == "training" else side
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    if path != "eager":
        x = x.contiguous(memory_format=torch.channels_last)
    call = (lambda: step(model, x)) if task == "training" else (lambda: infer(model, x, task))
    call()
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    gc.collect()
    measured = {"s": seconds, "GiB": added_memory(call)[1] / 2**30}
    if task == "training":
        return measured
    exact = folder / "picture.pt"
    if not exact.exists():
        torch.save(result, exact)
    return measured | {"error": float((result - torch.load(exact)).abs().max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--side", type=int, default=256, help="of the square picture (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=list(PATHS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--csv", help="also write the table to this file")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.row:
        path, task, folder = json.loads(args.row)
        print(json.dumps(run(path, task, args.side, Path(folder))))
        return
    measured: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for task in args.tasks:
                for path in args.paths:
                    job = [sys.executable, "-m", "benchmarks.accelerated", "--side", str(args.side)]
                    job += ["--threads", str(args.threads), "--row", json.dumps([path, task, folder])]
                    done = subprocess.run(job, stdout=subprocess.PIPE, text=True, check=True)
                    measured.setdefault((path, task), []).append(json.loads(done.stdout.splitlines()[-1]))
    rows = []
    for (path, task), runs in measured.items():
        median = {key: statistics.median(one[key] for one in runs) for key in runs[0]}
        first = measured[args.paths[0], task]
        rows.append(
            {
                "task": task,
                "side": args.side // 2 if task == "training" else args.side,
                "path": path,
                "error": "",  # of a picture
                **median,
                "x first": statistics.median(one["s"] for one in first) / median["s"],
                "memory of first": statistics.median(one["GiB"] for one in runs)
                / statistics.median(one["GiB"] for one in first),
            }
        )
    print_table(rows)
    if args.csv:
        write_csv(args.csv, [row | {"threads": args.threads} | circumstances() for row in rows])


if __name__ == "__main__":
    main()
