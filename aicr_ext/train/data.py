"""Training photographs: kept decoded in memory, cropped and flipped at random."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aicr_ext.model.config import QUALITIES
from aicr_ext.train import shards
from aicr_ext.train.mixture import Mixture

__all__ = ["Batch", "Batches", "load_images", "principal_components"]


def load_images(folder: str | Path, minimum_side: int = shards.MINIMUM_SIDE) -> list[Tensor]:
    """Every picture whose sides are at least ``minimum_side``, as uint8 (3, H, W), by name.

    Args:
        folder: holds photographs, shards made by ``python -m aicr_ext.train.pack``, or both; or one shard.

    Raises:
        ValueError: no such picture there, or one that is damaged.
    """
    return shards.load(folder, minimum_side)


class Batch(NamedTuple):
    """What one step sees: inputs and clean targets (B, 3, side, side) in [0, 1], channels-last; qualities (B,)."""

    source: Tensor
    target: Tensor
    quality: Tensor


class Batches:
    """Random batches, each a function of the seed and its number alone, so that any process can make any of them.

    A patch: a picture in proportion to its area, then place, flips and transposition, all at random; the input is
    what ``mixture`` makes of it. Qualities are uniform over 0..63.
    """

    def __init__(self, images: list[Tensor], seed: int, mixture: Mixture) -> None:
        self.images, self.seed, self.mixture = images, seed, mixture
        areas = np.array([i.shape[1] * i.shape[2] for i in images], dtype=np.float64)
        self.weights = areas / areas.sum()

    def make(self, number: int, count: int, side: int) -> Batch:
        """Batch ``number``: ``count`` patches of ``side`` x ``side`` pixels."""
        rng = np.random.default_rng((self.seed, number))
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 32)))
        clean = [self._patch(index, side, rng) for index in rng.choice(len(self.images), count, p=self.weights)]
        source = [self.mixture(patch, generator) for patch in clean]
        quality = torch.from_numpy(rng.integers(0, QUALITIES, count))
        return Batch(_stack(source), _stack(clean), quality)

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


def _stack(patches: list[Tensor]) -> Tensor:
    return torch.stack(patches).contiguous(memory_format=torch.channels_last)


def principal_components(
    images: list[Tensor], count: int, seed: int, patches_per_image: int = 800
) -> tuple[Tensor, Tensor, Tensor]:
    """The first ``count`` principal components of 16x16 RGB patches: basis (count, 768), mean, deviation."""
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
    values, vectors = torch.linalg.eigh(square / n - mean[:, None] * mean)
    values, basis = values.flip(0)[:count], vectors.flip(1)[:, :count].t()
    return basis.float().contiguous(), mean.float(), values.clamp_min(1e-9).sqrt().float()
