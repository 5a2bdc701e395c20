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
    z = torch.round(codec.model.hyper_analysis(codec.model.y_and_detail(y)[0]))
    values = torch.zeros(1, height, width, priors.config.latent, dtype=torch.int32)
    streams = encode_latents(codec.model, priors, tables, y)
    size = sum(map(len, streams[0]))

    def networks() -> list[Tensor]:
        first = priors.first(z, height, width)
        second = priors.second(values, first)
        return [first, second, *([priors.detail(first, second)] if priors.config.detail else ())]

    steps = coding_steps(codec, z, y)
    both_ways = partial(quantise_and_accept, Parameters(priors, networks()), y, z)
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
        "of which detail %": 100 * (1 - len(code(steps[:2])) / len(encoded)),
        "over promised %": 100 * (8 * size / codec.estimate_bits(picture, quality=quality) - 1),
    }


def plainly(function: Callable[[], None]) -> None:
    with plain_torch():
        function()


class Parameters:
    """In place of the entropy networks: what they have given before."""

    def __init__(self, priors: IntegerPriors, found: list[Tensor]) -> None:
        self.config, self.mean_exponent = priors.config, priors.mean_exponent
        self.zones, self.variances = priors.zones, priors.variances
        self._found = found

    def first(self, _z: Tensor, _height: int, _width: int) -> Tensor:
        return self._found[0]

    def second(self, _values: Tensor, _first: Tensor) -> Tensor:
        return self._found[1]

    def detail(self, _first: Tensor, _second: Tensor) -> Tensor:
        return self._found[2]


def quantise_and_accept(parameters: Parameters, y: Tensor, z: Tensor) -> None:
    """What encoder and decoder do in all steps besides networks and coder."""
    encoding, decoding = (Steps(parameters, z, *y.shape[2:]) for _ in range(2))
    for _ in range(encoding.count):
        symbols, _ = encoding.quantise(y)
        encoding.accept(symbols)
        decoding.index()
        decoding.accept(symbols)
    decoding.latents()


def coding_steps(codec: aicr_ext.Codec, z: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Symbols and table indices of all steps."""
    steps, found = Steps(codec._priors, z, *y.shape[2:]), []
    for _ in range(steps.count):
        found.append(steps.quantise(y))
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
