"""Training photographs: kept decoded in memory, cropped and flipped at random."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aicr_ext.model.config import QUALITIES
from aicr_ext.train import shards
from aicr_ext.train.mixture import Mixture

__all__ = ["Batch", "Batches", "draw_qualities", "load_images", "patch_statistics", "principal_components", "stack"]


def load_images(folder: str | Path, minimum_side: int = shards.MINIMUM_SIDE) -> list[Tensor]:
    """Every picture whose sides are at least ``minimum_side``, as uint8 (3, H, W), by name.

    Args:
        folder: holds photographs, shards made by ``python -m aicr_ext.train.pack``, or both; or one shard.

    Raises:
        ValueError: no such picture there, or one that is damaged.
    """
    return shards.load(folder, minimum_side)


class Batch(NamedTuple):
    """Inputs and clean targets, both (B, 3, side, side) float32, channels-last; targets and most inputs in [0, 1]."""

    source: Tensor
    target: Tensor


class Batches:
    """Random batches. A patch is a function of the seed, the batch and its row alone, so that any process can make it.

    A patch: a picture in proportion to its area, then place, flips and transposition, all at random; the input is
    what ``mixture`` makes of it.
    """

    def __init__(self, images: list[Tensor], seed: int, mixture: Mixture) -> None:
        self.images, self.seed, self.mixture = images, seed, mixture
        areas = np.array([i.shape[1] * i.shape[2] for i in images], dtype=np.float64)
        self.bounds = np.cumsum(areas / areas.sum())

    def make(self, number: int, rows: Iterable[int], side: int) -> Batch:
        """These rows of batch ``number``, patches of ``side`` x ``side`` pixels."""
        source, target = zip(*(self._row(number, row, side) for row in rows), strict=True)
        return Batch(stack(source), stack(target))

    def _row(self, number: int, row: int, side: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, number, row))
        index = min(int(np.searchsorted(self.bounds, rng.random(), side="right")), len(self.images) - 1)
        clean = self._patch(index, side, rng)
        return self.mixture(clean, torch.Generator().manual_seed(int(rng.integers(1 << 32)))), clean

    def _patch(self, index: int, side: int, rng: np.random.Generator) -> Tensor:
        image = self.images[index]
        top = rng.integers(image.shape[1] - side + 1)
        left = rng.integers(image.shape[2] - side + 1)
        patch = image[:, top : top + side, left : left + side]
        if rng.random() < 0.5:
            patch = patch.flip(1)
        if rng.random() < 0.5:
            patch = patch.flip(2)
        if rng.random() < 0.5:
            patch = patch.transpose(1, 2)
        return patch.float().div_(255)


def stack(patches: Iterable[Tensor]) -> Tensor:
    """Patches (3, H, W) as one batch, channels-last."""
    return torch.stack(list(patches)).contiguous(memory_format=torch.channels_last)


def draw_qualities(kind: str, seed: int, step: int, rows: Iterable[int], progress: float) -> Tensor:
    """The quality index (B,) of these rows in one optimiser step.

    ``"uniform"`` draws from 0..63. ``"pairs"`` takes {0, 21} and {42, 63} in turn for the first half of the run
    (``progress`` below 0.5), neighbouring rows the two of a pair, and is uniform after it.
    """
    if kind == "pairs" and progress < 0.5:
        pair = ((0, 21), (42, 63))[step % 2]
        return torch.tensor([pair[row % 2] for row in rows])
    # the last number keeps these draws apart from those of the patches
    return torch.tensor([np.random.default_rng((seed, step, row, 1)).integers(QUALITIES) for row in rows])


def patch_statistics(images: list[Tensor], seed: int, patches_per_image: int = 800) -> tuple[Tensor, Tensor]:
    """Mean (768,) and covariance (768, 768) of 16x16 RGB patches in [0, 1], float64."""
    generator = torch.Generator().manual_seed(seed)
    total, square, n = torch.zeros(768, dtype=torch.float64), torch.zeros(768, 768, dtype=torch.float64), 0
    for image in images:
        h, w = (s // 16 * 16 for s in image.shape[1:])
        blocks = F.pixel_unshuffle(image[None, :, :h, :w].float() / 255, 16)[0].flatten(1)
        blocks = blocks[:, torch.randperm(blocks.shape[1], generator=generator)[:patches_per_image]].double()
        total += blocks.sum(1)
        square += blocks @ blocks.t()
        n += blocks.shape[1]
    mean = total / n
    return mean, square / n - mean[:, None] * mean


def principal_components(mean: Tensor, covariance: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first ``count`` of :func:`patch_statistics`: basis (count, 768), mean, deviation; float32."""
    values, vectors = torch.linalg.eigh(covariance)
    values, basis = values.flip(0)[:count], vectors.flip(1)[:, :count].t()
    return basis.float().contiguous(), mean.float(), values.clamp_min(1e-9).sqrt().float()
