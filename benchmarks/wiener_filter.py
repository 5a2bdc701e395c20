"""What the encoder's Wiener filter brings: ``python -m benchmarks.wiener_filter PHOTOGRAPHS [--model aicr-t]``.

By how many percent bpp + lambda * MSE differs from that without the filter, for some strengths of Gaussian noise and
qualities: with the noise that the analysis tells, and with the true one, some factors times its variance. Geometric
mean over the photographs that training keeps out, in the float network.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Sequence

import torch

from aicr_ext.codec.checkpoint import load_model
from aicr_ext.model.aicr import AICR
from aicr_ext.model.entropy import PRICE
from aicr_ext.train.data import load_images
from aicr_ext.train.validation import clean_batch, split
from benchmarks.dead_zone import log_losses
from benchmarks.timing import print_table

__all__ = ["main", "told"]

QUALITIES = (0, 16, 32, 48, 63)
SIGMAS = (0, 15, 25)
#: Times the true variance.
FACTORS = (0.5, 1.0, 2.0)


@torch.no_grad()
def told(model: AICR, deviation: float) -> AICR:
    """A copy whose gates tell that noise of this standard deviation, in pictures from 0 to 1, is before them."""
    model = copy.deepcopy(model)
    for gate in (model.analysis.gate, model.analysis.detail.gate):
        gate.noise.weight.zero_()
        gate.noise.bias.fill_(math.log(max(deviation, 1e-8)))
    return model


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.wiener_filter", description="the encoder's Wiener filter")
    parser.add_argument("photographs", help="those that the model was trained on")
    parser.add_argument("--model", default="aicr-t")
    parser.add_argument("--held-out", type=int, default=16, help="how many of them training kept out")
    args = parser.parse_args(argv)
    model = load_model(args.model).to(memory_format=torch.channels_last)
    clean = clean_batch(split(load_images(args.photographs), args.held_out)[1])
    generator = torch.Generator().manual_seed(0)
    rows = []
    for sigma in SIGMAS:
        source = (clean + sigma / 255 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
        variants = {"told, %": model}
        variants |= {f"true, {f:g} n^2, %": told(model, math.sqrt(f) * sigma / 255) for f in FACTORS}
        without = told(model, 0)
        for quality in QUALITIES:
            plain = log_losses(without, source, clean, quality, PRICE)
            row: dict[str, object] = {"noise": sigma, "quality": quality}
            for name, variant in variants.items():
                change = (log_losses(variant, source, clean, quality, PRICE) - plain).mean()
                row[name] = round(100 * math.expm1(float(change)), 2)
            rows.append(row)
    print_table(rows)


if __name__ == "__main__":
    main()
