"""What dead zones of the quantiser bring: ``python -m benchmarks.dead_zone PHOTOGRAPHS [--model aicr-t]``.

By how many percent bpp + lambda * MSE differs from that with plain rounding, for some prices (``PRICE`` in
``aicr_ext/model/entropy.py``; the lower, the wider), qualities and inputs: geometric mean over the photographs that
training keeps out, in the float network.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from unittest import mock

import torch
from torch import Tensor

from aicr_ext.codec.checkpoint import load_model
from aicr_ext.model import entropy
from aicr_ext.model.aicr import AICR
from aicr_ext.train.data import load_images
from aicr_ext.train.losses import lambda_of
from aicr_ext.train.validation import clean_batch, split

from .timing import print_table

PRICES = (60.0, 40.0, 30.0, 20.0)
QUALITIES = (0, 16, 32, 48, 63)
SIGMAS = (0, 15, 25)


@torch.no_grad()
def log_losses(model: AICR, source: Tensor, target: Tensor, quality: int, price: float) -> Tensor:
    """Of each picture of a batch (B, 3, H, W) in [0, 1]: (B,)."""
    index = torch.full((len(source),), quality)
    with mock.patch.object(entropy, "PRICE", price):
        coded = model(source, index)
    mse = (coded.picture.clamp(0, 1) - target).square().mean((1, 2, 3))
    return (coded.y_bpp + coded.z_bpp + 3 * lambda_of(index, model.config.lambdas) * mse).log()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.dead_zone", description="dead zones of the quantiser")
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
        for quality in QUALITIES:
            plain = log_losses(model, source, clean, quality, math.inf)
            row: dict[str, object] = {"noise": sigma, "quality": quality}
            for price in PRICES:
                change = (log_losses(model, source, clean, quality, price) - plain).mean()
                row[f"price {price:g}, %"] = round(100 * math.expm1(float(change)), 2)
            rows.append(row)
    print_table(rows)


if __name__ == "__main__":
    main()
