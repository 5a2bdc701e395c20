"""What a change of the encoder brings on photographs that training kept out, shared by the benchmarks of its parts."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from aicr_ext.codec.checkpoint import load_model
from aicr_ext.model.aicr import AICR
from aicr_ext.model.scale import lambda_of
from aicr_ext.train.data import load_images
from aicr_ext.train.validation import clean_batch, split
from benchmarks.timing import print_table

__all__ = ["QUALITIES", "SIGMAS", "Losses", "log_losses", "print_changes"]

QUALITIES = (0, 16, 32, 48, 63)
#: Strengths of Gaussian noise, of 255.
SIGMAS = (0, 15, 25)

#: Of source and target, batches (B, 3, H, W) in [0, 1], at a quality: the logarithm of each picture's loss, (B,).
Losses = Callable[[Tensor, Tensor, int], Tensor]


@torch.no_grad()
def log_losses(model: AICR, source: Tensor, target: Tensor, quality: int) -> Tensor:
    """:data:`Losses` of a model: of bpp + lambda * MSE, in the float network."""
    index = torch.full((len(source),), quality)
    coded = model(source, index)
    mse = (coded.picture.clamp(0, 1) - target).square().mean((1, 2, 3))
    return (coded.y_bpp + coded.z_bpp + 3 * lambda_of(index, model.config.lambdas) * mse).log()


def print_changes(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    losses_of: Callable[[AICR, int], tuple[Losses, Mapping[str, Losses]]],
) -> None:
    """Prints by how many percent variants of a model change the loss, geometric mean over the photographs.

    Args:
        parser: of the program, whose arguments are added to it.
        losses_of: of a model and one of :data:`SIGMAS`, the losses to compare with, and those of the variants by name.
    """
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
        plain, variants = losses_of(model, sigma)
        for quality in QUALITIES:
            before = plain(source, clean, quality)
            row: dict[str, object] = {"noise": sigma, "quality": quality}
            for name, losses in variants.items():
                change = float((losses(source, clean, quality) - before).mean())
                row[f"{name}, %"] = round(100 * math.expm1(change), 2)
            rows.append(row)
    print_table(rows)
