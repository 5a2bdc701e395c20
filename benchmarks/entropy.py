"""The entropy path of a codec: ``python -m benchmarks.entropy [PICTURE ...] [--threads 2] [--csv FILE]``.

From z to scales and means in integers, the coding steps between these, latents and symbols (both ways together), the
coder, and the whole way from payload to latent, in milliseconds, some beside plain torch; and the payload against the
bits that the float networks promise for the same symbols.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import aicr_ext
from aicr_ext.codec.latents import Steps, decode_latents, encode_latents
from aicr_ext.codec.priors import IntegerPriors
from aicr_ext.codec.rans import Decoder, Encoder
from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.images import read_image
from aicr_ext.ops.kernels import plain_torch
from aicr_ext.ops.latent import latent_accept, latent_dequantise, latent_quantise, latent_scale_index

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
    values = torch.zeros(1, height, width, y.shape[1], dtype=torch.int32)
    streams = encode_latents(codec.model, priors, tables, y)
    size = sum(map(len, streams[0]))

    def networks() -> None:
        priors.second(values, priors.first(z, height, width))

    steps = coding_steps(codec, z, y)
    both_ways = partial(quantise_and_accept, priors, y, first, priors.second(values, first))
    native, plain = measure_together([networks, partial(plainly, networks)], seconds=1)
    native_steps, plain_steps = measure_together([both_ways, partial(plainly, both_ways)], seconds=0.5)
    encoded = code(steps)
    return {
        **circumstances(),
        "threads": threads,
        "picture": path.stem,
        "size": f"{picture.shape[2]}x{picture.shape[1]}",
        "quality": quality,
        "networks ms": 1e3 * native,
        "x plain torch": plain / native,
        "steps ms": 1e3 * native_steps,
        "steps x plain torch": plain_steps / native_steps,
        "coder encode ms": 1e3 * measure(lambda: code(steps)),
        "coder decode ms": 1e3 * measure(lambda: decode(encoded, steps)),
        "payload to latent ms": 1e3
        * measure(lambda: decode_latents(priors, tables, streams, height, width, y.device), seconds=1),
        "payload bytes": size,
        "over promised %": 100 * (8 * size / codec.estimate_bits(picture, quality=quality) - 1),
    }


def plainly(function: Callable[[], None]) -> None:
    with plain_torch():
        function()


def quantise_and_accept(priors: IntegerPriors, y: Tensor, first: Tensor, second: Tensor) -> None:
    """What encoder and decoder do in both steps besides networks and coder."""
    y, exponent, quant_step = y.permute(0, 2, 3, 1), priors.mean_exponent, first if priors.config.quant_step else None
    symbols, _ = latent_quantise(y, first, exponent, quant_step, False, priors.zones)
    latent_accept(symbols, first, exponent)
    symbols_of_second, _ = latent_quantise(y, second, exponent, quant_step, True, priors.zones)
    latent_scale_index(first, len(exponent))
    values = latent_accept(symbols, first, exponent)
    latent_scale_index(second, len(exponent), True)
    latent_dequantise(latent_accept(symbols_of_second, second, exponent, values), exponent, quant_step)


def coding_steps(codec: aicr_ext.Codec, z: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Symbols and table indices of both steps."""
    steps = Steps(codec._priors, z, *y.shape[2:])
    first = steps.quantise(y)
    steps.open_second(first[0])
    return [first, steps.quantise(y)]


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
