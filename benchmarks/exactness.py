"""Whether everything that decides symbols is the same everywhere: ``python -m benchmarks.exactness PICTURE ...``.

Each instruction set of this processor, forced by ``AICR_ISA`` in a process of its own, with every number of threads and
pictures per call that is asked for,

* multiplies, sums, requantises and saturates ``--sums`` numbers that fill int32, extremes among them, which must equal
  the plain-torch definition, and so must the scale level of each of the 65536 possible log scales;
* decodes the files that the first process made of the pictures: the latents must be the same, bit for bit;
* compresses the pictures: the files must be those of the first process. Between machines they may differ, for the
  analysis is floating point: where it rounds otherwise, another symbol is coded, and decoded as it was coded. On one
  machine nothing that is varied here may change its bits.

Ends with status 1 if a sum, a latent or a file differs. A picture is a file or a folder of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import groupby, product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import aicr_ext
from aicr_ext import _native
from aicr_ext.codec.fixed_point import LIMIT
from aicr_ext.images import READ_SUFFIXES, read_image
from aicr_ext.ops.integer import integer_linear
from aicr_ext.ops.integer_reference import integer_linear_reference
from aicr_ext.ops.latent import latent_scale_index

from .timing import circumstances, print_table, write_csv

_ROWS, _INPUTS, _OUTPUTS = 4096, 4, 256


def linear_arguments(seed: int) -> tuple[Tensor, ...]:
    """Arguments of integer_linear whose sums fill int32 and never leave it; half of the inputs are extremes."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high + 1, shape, generator=generator)

    x, corners = draw(-LIMIT, LIMIT, _ROWS, _INPUTS), torch.tensor([-LIMIT, -1, 0, 1, LIMIT])
    x = torch.where(draw(0, 1, *x.shape) > 0, x, corners[draw(0, 4, *x.shape)])
    shift = draw(1, 31, _OUTPUTS)
    budget = 2**31 - 1 - (1 << (shift - 1))
    share = torch.rand(_OUTPUTS, _INPUTS + 1, generator=generator, dtype=torch.float64) ** 2
    share *= (budget / share.sum(1))[:, None] * draw(0, 1, *share.shape).mul(2).sub(1)
    weight = (share[:, 1:] / LIMIT).trunc().clamp(-LIMIT, LIMIT)
    slope = torch.tensor([32768, 3277, 328, 0])[draw(0, 3, _OUTPUTS)]
    pairs = weight.T.unflatten(0, (-1, 2)).transpose(1, 2).contiguous()
    return x.short(), pairs.short(), share[:, 0].trunc().int(), shift.int(), slope.int()


def check_sums(count: int) -> dict[str, int]:
    """Requantised sums and scale levels: how many there were, and how many differed from their definitions."""
    wrong = sums = 0
    for seed in range(-(-count // (_ROWS * _OUTPUTS))):
        arguments = linear_arguments(seed)
        wrong += int((integer_linear(*arguments) != integer_linear_reference(*arguments)).sum())
        sums += _ROWS * _OUTPUTS
    log_scale = torch.arange(-(2**15), 2**15)
    steps = (log_scale.numpy().astype(object) + 4520).clip(0) * 40856  # of docs/bitstream.md, in unbounded integers
    level = ((steps + 2**21) // 2**22).clip(0, 127).astype(np.uint8)
    parameters = log_scale.short().view(1, 1, -1, 1).expand(-1, -1, -1, 4)  # of two channels with the same scale
    wrong += int((latent_scale_index(parameters, 2).numpy() != level).sum())
    return {"sums": sums + len(level), "sums that differ": wrong}


class _Recorder(nn.Module):
    """In place of the synthesis: remembers the latents it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.digests: list[str] = []

    def forward(self, latent: Tensor, _quality: Tensor) -> Tensor:
        self.digests += [hashlib.sha256(one.numpy().tobytes()).hexdigest() for one in latent]
        return torch.zeros(len(latent), 3, 16 * latent.shape[2], 16 * latent.shape[3])


def batches(paths: list[Path], size: int) -> Iterator[tuple[list[Path], Tensor]]:
    """Pictures of one shape, at most ``size`` at a time, as (B, 3, H, W) uint8."""
    pictures = [(path, np.asarray(read_image(path))) for path in paths]
    for _, same in groupby(sorted(pictures, key=lambda item: item[1].shape), key=lambda item: item[1].shape):
        group = list(same)
        for first in range(0, len(group), size):
            names, arrays = zip(*group[first : first + size], strict=True)
            yield list(names), torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def check_pictures(paths: list[Path], qualities: list[int], size: int, folder: Path) -> dict[str, int]:
    """Files and latents against those in ``folder``, which the first process to come here writes."""
    codec = aicr_ext.Codec()
    recorder = codec.networks["synthesis"] = _Recorder()  # of latents to decode; feedback has its own synthesis
    found = {"files": 0, "files that differ": 0, "latents that differ": 0}
    for (names, pictures), quality in product(list(batches(paths, size)), qualities):
        coded = codec.compress(pictures, quality=quality)
        places = [folder / f"{path.stem}-{quality}" for path in names]
        found["files"] += len(places)
        for place, data in zip(places, coded, strict=True):
            if not place.with_suffix(".aicr").exists():
                place.with_suffix(".aicr").write_bytes(data)
            found["files that differ"] += place.with_suffix(".aicr").read_bytes() != data
        recorder.digests.clear()
        codec.decompress([place.with_suffix(".aicr").read_bytes() for place in places])
        for place, digest in zip(places, recorder.digests, strict=True):
            if not place.with_suffix(".latent").exists():
                place.with_suffix(".latent").write_text(digest)
            found["latents that differ"] += place.with_suffix(".latent").read_text() != digest
    return found


def pictures_of(given: Path) -> list[Path]:
    if not given.is_dir():
        return [given]
    return sorted(path for path in given.iterdir() if path.suffix.lower() in READ_SUFFIXES)


def run(isa: str, threads: int, size: int, args: argparse.Namespace, folder: str) -> dict[str, object]:
    """One process of :func:`work` and its findings."""
    job = [sys.executable, "-m", "benchmarks.exactness", *map(str, args.pictures), "--worker", folder]
    job += ["--threads", str(threads), "--batch", str(size), "--sums", str(args.sums)]
    job += ["--qualities", *map(str, args.qualities)]
    environment = {**os.environ, "AICR_ISA": isa, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(job, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"AICR_ISA={isa}, {threads} threads:\n{done.stderr}")
    return {"instruction set": isa, "threads": threads, "batch": size, **json.loads(done.stdout)}


def work(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads[0])
    found = check_sums(args.sums)
    if args.pictures:
        found |= check_pictures(args.pictures, args.qualities, args.batch[0], Path(args.worker))
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--sums", type=int, default=100_000_000, help="per process (default: %(default)s)")
    parser.add_argument("--qualities", type=int, nargs="+", default=[0, 32, 63])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4], help="pictures per call")
    parser.add_argument("--csv", help="also write the table to this file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.pictures = [path for given in args.pictures for path in pictures_of(given)]
    if args.worker:
        work(args)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for isa, threads, size in product(_native.require_C().coder_isas(), args.threads, args.batch):
            # The sums know nothing of pictures per call.
            once = argparse.Namespace(**{**vars(args), "sums": args.sums if size == args.batch[0] else 0})
            rows.append(run(isa, threads, size, once, folder))
    print_table(rows)
    if args.csv:
        write_csv(args.csv, [row | circumstances() for row in rows])
    wrong = [name for name in ("sums", "latents", "files") if any(row.get(f"{name} that differ") for row in rows)]
    if wrong:
        raise SystemExit(f"{' and '.join(wrong)} differ")


if __name__ == "__main__":
    main()
