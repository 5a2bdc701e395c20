"""What rain and snow have in common: particles in the air that hide the picture, and the veil of those far away."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .depth import random_depth
from .light import scatter

__all__ = ["coverage", "density", "painted", "turned", "veiled"]


def density(amount: float, share: float, area: float) -> float:
    """Particles per pixel of a sort that covers ``share`` of ``amount`` of the picture, each ``area`` pixels."""
    return min(0.5, max(1e-9, amount) * share / area)


def turned(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates along and across a fall, ``angle`` radians against the vertical; positive, and it is to the left."""
    return x * torch.sin(-angle) + y * torch.cos(angle), x * torch.cos(angle) + y * torch.sin(angle)


def coverage(particles: Tensor, opacity: float) -> Tensor:
    """What summed particles (B, 1, H, W) hide of a pixel: those behind one another add up to less than ``opacity``."""
    return opacity * (1 - torch.exp(-2.5 * particles))


def painted(image: Tensor, cover: Tensor, light: float) -> Tensor:
    """The picture (B, 3, H, W) with grey of the sRGB sample ``light`` over what ``cover`` hides."""
    return torch.lerp(image, torch.full_like(image[:1, :, :1, :1], light), cover)


def veiled(image: Tensor, veil: float, light: float, generator: torch.Generator) -> Tensor:
    """The picture (B, 3, H, W) at random depth behind air of brightness ``light`` hiding ``veil`` of the farthest."""
    depth = random_depth((image.shape[0], *image.shape[2:]), generator, image.device)
    return scatter(image, depth, -math.log(1 - veil), (light,) * 3)
