"""Whole-codec speed and memory: ``python -m benchmarks.speed [--csv FILE]``.

Each row runs in a process of its own, so that its peak memory is its own, with the sample photograph, enlarged where
more pixels are asked for. "eager" is the same network in plain torch: whole maps instead of strips, and the reference
of every operator of analysis and synthesis that has a native kernel; the entropy path is the same. Networks without
shipped weights run with random ones: their pictures mean nothing, their times do. JPEG, WebP and AVIF are Pillow's,
with the settings of ``aicr eval``, at the lowest quality whose file is at least as large as that of aicr-t.

With ``--device cuda`` all rows run in one process, and the memory is that which torch held on the device: batches of
one picture and of several, in float32 and bfloat16, and with CUDA graphs where :class:`aicr_ext.Codec` has them. The
file of ``--csv`` grows row by row; a row that fails is named, and the others run. ``--device cpu`` makes the same table
on the CPU.
"""

from __future__ import annotations

import argparse
import gc
import inspect
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import product

import numpy as np
import torch
from PIL import Image

import aicr_ext
from aicr_ext.codec.checkpoint import shipped_models, untrained
from aicr_ext.evaluate.codecs import PillowCodec
from aicr_ext.images import read_image
from aicr_ext.ops import strips
from aicr_ext.ops.kernels import plain_torch

from .entropy import SAMPLE
from .timing import circumstances, measure, print_table, write_csv

PILLOW, NO_FEEDBACK, EFFORT = "Pillow", "aicr_ext, no feedback", "aicr_ext, effort 10"
#: What the encoder is asked for, where that is not its default.
OPTIONS = {NO_FEEDBACK: {"feedback": False}, EFFORT: {"effort": 10}}

#: (model, width, height, path, precision): eager where its memory allows.
ROWS = [
    ("aicr-t", 768, 512, "eager", "float32"),
    ("aicr-t", 768, 512, "aicr_ext", "float32"),
    ("aicr-t", 768, 512, "aicr_ext", "bfloat16"),
    ("aicr-t", 768, 512, NO_FEEDBACK, "float32"),
    ("aicr-t", 768, 512, NO_FEEDBACK, "bfloat16"),
    ("aicr-t", 768, 512, EFFORT, "float32"),
    ("jpeg", 768, 512, PILLOW, ""),
    ("webp", 768, 512, PILLOW, ""),
    ("avif", 768, 512, PILLOW, ""),
    ("aicr-s", 768, 512, "eager", "float32"),
    ("aicr-s", 768, 512, "aicr_ext", "float32"),
    ("aicr-s", 768, 512, "aicr_ext", "bfloat16"),
    ("aicr-t", 3000, 2000, "aicr_ext", "float32"),
    ("aicr-t", 3000, 2000, EFFORT, "float32"),
    ("aicr-t", 6000, 4000, "aicr_ext", "float32"),
    ("aicr-t", 6000, 4000, "aicr_ext", "bfloat16"),
    ("aicr-t", 6000, 4000, NO_FEEDBACK, "float32"),
]
#: Ways to run the codec on a GPU: with CUDA graphs, and one picture also in so many streams.
STREAMS = 16
GRAPHS, MANY_STREAMS = "aicr_ext, graphs", f"aicr_ext, graphs, {STREAMS} streams"


def once(call: Callable[[], object]) -> float:
    """Seconds of a single call, for those that take long."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def photograph(width: int, height: int) -> torch.Tensor:
    """The sample of that size, (3, H, W) uint8."""
    image = read_image(SAMPLE)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def pictures(count: int, width: int, height: int) -> torch.Tensor:
    """Smooth ones, (count, 3, H, W) uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, height // 40 + 2, width // 40 + 2, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (smooth * 255).byte()


def run(model: str, width: int, height: int, path: str, precision: str, threads: int) -> dict[str, object]:
    """Encode and decode one picture; seconds of each and the process's peak memory."""
    torch.set_num_threads(threads)
    if path == PILLOW:
        return measured_pillow(model, width, height)
    with ExitStack() as stack:
        if path == "eager":
            strips.STRIP_VALUES = sys.maxsize
            stack.enter_context(plain_torch(coding=False))
        return measured(model, width, height, path, precision)


def measured(model: str, width: int, height: int, path: str, precision: str) -> dict[str, object]:
    """The row of :func:`run`; ``path`` is only its name."""
    codec = aicr_ext.Codec(model if model in shipped_models() else untrained(model), precision=precision)
    picture, options = photograph(width, height), OPTIONS.get(path, {})
    start = peak_memory()
    data = codec.compress(picture, **options)
    if width * height > 4e6:
        codec.decompress(data)
        encode = once(lambda: codec.compress(picture, **options))
        decode = once(lambda: codec.decompress(data))
    else:
        encode = measure(lambda: codec.compress(picture, **options), seconds=2)
        decode = measure(lambda: codec.decompress(data), seconds=2)
    return {
        "model": model,
        "size": f"{width}x{height}",
        "path": path,
        "precision": precision,
        "quality": 32,
        "bytes": len(data),
        "encode s": encode,
        "decode s": decode,
        "peak GiB": peak_memory(),
        "of which before GiB": start,
    }


def measured_pillow(name: str, width: int, height: int) -> dict[str, object]:
    """The row of one of Pillow's codecs."""
    picture, codec = photograph(width, height), PillowCodec(name)  # AVIF takes as many threads as there are cores
    least = len(aicr_ext.compress(picture))
    pixels = picture.permute(1, 2, 0).numpy()
    quality = next(q for q in range(1, 101) if len(codec.encode(pixels, q)) >= least)
    data = codec.encode(pixels, quality)
    return {
        "model": name,
        "size": f"{width}x{height}",
        "path": PILLOW,
        "precision": "",
        "quality": quality,
        "bytes": len(data),
        "encode s": measure(lambda: codec.encode(pixels, quality), seconds=2),
        "decode s": measure(lambda: codec.decode(data), seconds=2),
        "peak GiB": "",
        "of which before GiB": "",
    }


def peak_memory() -> float:
    """GiB that this process has taken at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def device_paths(device: str) -> list[str]:
    """The ways to run the codec on a device; CUDA graphs if this version of it has them."""
    paths = ["aicr_ext", "eager"]
    if device == "cuda" and "cuda_graphs" in inspect.signature(aicr_ext.Codec).parameters:
        paths = [GRAPHS, MANY_STREAMS, *paths]
    return paths


def on_device(
    model: str, precision: str, batch: int, path: str, device: str, size: tuple[int, int], seconds: float
) -> dict[str, object]:
    """Median seconds of encoding and decoding a batch on the device, and GiB that torch held there at most."""
    options = {"cuda_graphs": True} if path in (GRAPHS, MANY_STREAMS) else {}
    streams = STREAMS if path == MANY_STREAMS else None
    width, height = size
    cuda = device == "cuda"
    with ExitStack() as stack:
        if path == "eager":
            stack.enter_context(plain_torch(coding=False))
        weights = model if model in shipped_models() else untrained(model)
        codec = aicr_ext.Codec(weights, device=device, precision=precision, **options)
        batch_of = pictures(batch, width, height).to(device)
        if cuda:
            gc.collect()  # the codecs of the rows before
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        files = codec.compress(batch_of, streams=streams)
        encode = measure(lambda: codec.compress(batch_of, streams=streams), seconds, device)
        decode = measure(lambda: codec.decompress(files), seconds, device)
    return {
        "model": model,
        "size": f"{width}x{height}",
        "path": path,
        "precision": precision,
        "batch": batch,
        "encode s": encode,
        "decode s": decode,
        "encode pictures/s": batch / encode,
        "decode pictures/s": batch / decode,
        "bytes": sum(map(len, files)),
        **({"peak GiB": torch.cuda.max_memory_allocated() / 2**30} if cuda else {}),
    }


def table_of_device(args: argparse.Namespace) -> None:
    """The rows of ``--device``."""
    rows: list[dict[str, object]] = []
    failed = []
    facts = circumstances(args.device)
    wanted = product(args.models, args.precision, args.batch, device_paths(args.device))
    for model, precision, batch, path in wanted:
        if path == MANY_STREAMS and batch > 1:  # pictures beside one another are as good
            continue
        try:
            row = on_device(model, precision, batch, path, args.device, tuple(args.size), args.seconds)
        except Exception as error:  # out of memory, or whatever else a path is not fit for: the others are
            failed.append(f"{model}, {precision}, batch {batch}, {path}: {type(error).__name__}: {error}")
            print(failed[-1], flush=True)
            continue
        rows.append(row)
        if args.csv:
            write_csv(args.csv, [row | facts for row in rows])
    if rows:
        print_table(rows)
    if failed:
        raise SystemExit(f"{len(failed)} of {len(failed) + len(rows)} rows failed")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.speed", description="speed and memory of the whole codec")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--csv", help="also write the table to this file")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    device = parser.add_argument_group("the table of a device")
    device.add_argument("--device", choices=("cuda", "cpu"), help="this table instead, in one process")
    device.add_argument("--models", nargs="+", default=["aicr-t", "aicr-s"])
    device.add_argument("--precision", nargs="+", default=["bfloat16", "float32"])
    device.add_argument("--batch", type=int, nargs="+", default=[1, 16], help="pictures per call")
    device.add_argument("--size", type=int, nargs=2, default=[768, 512], metavar=("WIDTH", "HEIGHT"))
    device.add_argument("--seconds", type=float, default=0.5, help="per row and direction (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.device:
        table_of_device(args)
        return
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
        write_csv(args.csv, [row | {"threads": args.threads} | circumstances() for row in rows])


if __name__ == "__main__":
    main()
