"""Whole-codec speed and memory: ``python -m benchmarks.speed [--csv FILE]``.

Each row runs in a process of its own, so that its peak memory is its own. "eager" is the same network in plain
torch: whole maps instead of strips, and the reference of every operator that has a native kernel. Networks without
shipped weights run with random ones: their pictures mean nothing, their times do.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

import torch

import aicr_ext
from aicr_ext.codec.checkpoint import shipped_models, untrained
from aicr_ext.ops import blocks
from aicr_ext.ops.kernels import plain_torch

from .timing import measure, print_table, write_csv

#: (model, width, height, path, precision): eager where its memory allows.
ROWS = [
    ("aicr-t", 768, 512, "eager", "float32"),
    ("aicr-t", 768, 512, "aicr_ext", "float32"),
    ("aicr-t", 768, 512, "aicr_ext", "bfloat16"),
    ("aicr-s", 768, 512, "eager", "float32"),
    ("aicr-s", 768, 512, "aicr_ext", "float32"),
    ("aicr-s", 768, 512, "aicr_ext", "bfloat16"),
    ("aicr-t", 6000, 4000, "aicr_ext", "float32"),
    ("aicr-t", 6000, 4000, "aicr_ext", "bfloat16"),
]


def once(call: Callable[[], object]) -> float:
    """Seconds of a single call, for those that take long."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def run(model: str, width: int, height: int, path: str, precision: str, threads: int) -> dict[str, object]:
    """Encode and decode one picture; seconds of each and the process's peak memory."""
    torch.set_num_threads(threads)
    with ExitStack() as stack:
        if path == "eager":
            blocks.STRIP_VALUES = sys.maxsize
            stack.enter_context(plain_torch())
        return measured(model, width, height, path, precision)


def measured(model: str, width: int, height: int, path: str, precision: str) -> dict[str, object]:
    """The row of :func:`run`; ``path`` is only its name."""
    codec = aicr_ext.Codec(model if model in shipped_models() else untrained(model), precision=precision)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, height // 40 + 2, width // 40 + 2, generator=generator)
    picture = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)[0]
    picture = (picture * 255).byte()
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = codec.compress(picture)
    if width * height > 4e6:
        encode, decode = once(lambda: codec.compress(picture)), once(lambda: codec.decompress(data))
    else:
        encode = measure(lambda: codec.compress(picture), seconds=2)
        decode = measure(lambda: codec.decompress(data), seconds=2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "model": model,
        "size": f"{width}x{height}",
        "path": path,
        "precision": precision,
        "encode s": encode,
        "decode s": decode,
        "peak GiB": peak / 2**20,
        "of which before GiB": start / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--csv", help="also write the table to this file")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(run(*json.loads(args.row), args.threads)))
        return
    rows = []
    for row in ROWS:
        command = [
            sys.executable,
            "-m",
            "benchmarks.speed",
            "--row",
            json.dumps(row),
            "--threads",
            str(args.threads),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    print_table(rows)
    if args.csv:
        write_csv(args.csv, rows)


if __name__ == "__main__":
    main()
