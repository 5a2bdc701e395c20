"""Photographs that a run keeps out of training, to try its weights on."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from aicr_ext.model.config import QUALITIES
from aicr_ext.train.data import Batch, stack
from aicr_ext.train.mixture import Mixture

__all__ = ["Trial", "center_crop", "clean_batch", "split", "trials"]

_SIDE = 192


class Trial(NamedTuple):
    """A fixed batch and the quality (B,) of each picture."""

    batch: Batch
    quality: Tensor


def split(images: list[Tensor], count: int) -> tuple[list[Tensor], list[Tensor]]:
    """``images`` without ``count`` of them, evenly spread, and those; at least half stay."""
    count = min(count, len(images) // 2)
    chosen = {int((i + 0.5) * len(images) / count) for i in range(count)}
    kept = [image for i, image in enumerate(images) if i not in chosen]
    return kept, [images[i] for i in sorted(chosen)]


def center_crop(image: Tensor, side: int) -> Tensor:
    """The middle square of (3, H, W)."""
    top, left = ((s - side) // 2 for s in image.shape[1:])
    return image[:, top : top + side, left : left + side]


def clean_batch(images: list[Tensor]) -> Tensor:
    """The middles of pictures (3, H, W) uint8 as one batch (B, 3, S, S) in [0, 1]; S is a multiple of 64."""
    side = min(_SIDE, *(s // 64 * 64 for image in images for s in image.shape[1:]))
    return stack(center_crop(image, side).float().div_(255) for image in images)


def trials(images: list[Tensor], mixture: Mixture) -> dict[str, Trial]:
    """Trials by the name of their loss in the log: middles of the photographs, clean and as the run's mixture makes
    them. The qualities are spread evenly."""
    if not images:
        return {}
    target = clean_batch(images)
    quality = torch.linspace(0, QUALITIES - 1, len(images)).round().long()
    found = {"valid_clean": Trial(Batch(target, target), quality)}
    if mixture.clean < 1:
        generator = torch.Generator().manual_seed(0)
        only = replace(mixture, clean=0.0)
        found["valid_degraded"] = Trial(Batch(stack(only(p, generator) for p in target), target), quality)
    return found
