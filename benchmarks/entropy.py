"""The entropy path of a codec: ``python -m benchmarks.entropy [PICTURE ...] [--threads 2] [--csv FILE]``.

From z to table indices and means in integers, the coder, and the whole way from payload to latent, in milliseconds,
beside plain torch; and the payload against the bits that the float networks promise for the same symbols.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import aicr_ext
from aicr_ext.codec.latents import Steps, decode_latents, encode_latents
from aicr_ext.codec.rans import Decoder, Encoder
from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.images import read_image
from aicr_ext.ops.kernels import plain_torch

from .timing import circumstances, measure, measure_together, print_table, write_csv

SAMPLE = Path(__file__).parents[1] / "samples" / "kodim23.png"
QUALITIES = (0, 32, 63)


@torch.no_grad()
def row(codec: aicr_ext.Codec, path: Path, quality: int, threads: int) -> dict[str, object]:
    """Times and sizes of one picture at one quality."""
    picture = torch.from_numpy(np.array(read_image(path))).permute(2, 0, 1)
    y = codec.latent(picture, quality)
    height, width = y.shape[2:]
    priors, tables = codec._priors, codec._hyper_tables
    z = torch.round(codec.model.hyper_analysis(y))
    first = priors.first(z, height, width)
    values = torch.zeros_like(first.mean)
    streams = encode_latents(codec.model, priors, tables, y)
    size = sum(map(len, streams[0]))

    def networks() -> None:
        priors.second(values, priors.first(z, height, width))

    def plainly() -> None:
        with plain_torch():
            networks()

    native, plain = measure_together([networks, plainly], seconds=1)
    steps = coding_steps(codec, z, y)
    encoded = code(steps)
    return {
        **circumstances(),
        "threads": threads,
        "picture": path.stem,
        "size": f"{picture.shape[2]}x{picture.shape[1]}",
        "quality": quality,
        "networks ms": 1e3 * native,
        "x plain torch": plain / native,
        "coder encode ms": 1e3 * measure(lambda: code(steps)),
        "coder decode ms": 1e3 * measure(lambda: decode(encoded, steps)),
        "payload to latent ms": 1e3
        * measure(lambda: decode_latents(priors, tables, streams, height, width, y.device), seconds=1),
        "payload bytes": size,
        "over promised %": 100 * (8 * size / codec.estimate_bits(picture, quality=quality) - 1),
    }


def coding_steps(codec: aicr_ext.Codec, z: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Symbols and table indices of both steps."""
    steps = Steps(codec._priors, z, *y.shape[2:])
    found = []
    for _ in range(2):
        found.append((steps.quantise(y.permute(0, 2, 3, 1).double()), steps.index()))
        steps.accept(found[-1][0])
    return found


def code(steps: list[tuple[Tensor, Tensor]]) -> bytes:
    encoder = Encoder()
    for symbols, index in steps:
        encoder.push(symbols, index, gaussian_tables())
    return encoder.finish()


def decode(data: bytes, steps: list[tuple[Tensor, Tensor]]) -> None:
    decoder = Decoder(data)
    for _, index in steps:
        decoder.pop(index, gaussian_tables())
    decoder.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("pictures", nargs="*", type=Path, default=[SAMPLE])
    parser.add_argument("--model", default="aicr-t")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--csv", help="also write the table to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    codec = aicr_ext.Codec(args.model)
    rows = [row(codec, path, quality, args.threads) for path in args.pictures for quality in QUALITIES]
    hidden = ("cpu", "gpu", "torch", "date", "commit")
    print_table([{k: v for k, v in r.items() if k not in hidden} for r in rows])
    if args.csv:
        write_csv(args.csv, rows)


if __name__ == "__main__":
    main()
