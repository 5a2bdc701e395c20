"""Quantiser steps and what belongs to linear paths, whose numbers are counted in them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from aicr_ext.model.config import QUALITIES
from aicr_ext.ops.autocast import has_autocast

__all__ = ["RateScale", "lambda_of", "linear_float32", "step_size"]


def step_size(lam: float) -> float:
    """The uniform quantiser step that is optimal at high rate for a trade-off ``lam``: sqrt(6 / (lam ln 2))."""
    return math.sqrt(6.0 / (lam * math.log(2.0)))


def lambda_of(quality: Tensor, ends: tuple[float, float]) -> Tensor:
    """The rate-distortion trade-off of quality indexes: geometric between the two end values."""
    low, high = math.log(ends[0]), math.log(ends[1])
    return torch.exp(low + (high - low) * quality.float() / (QUALITIES - 1))


def linear_float32(conv: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A 1x1 convolution outside autocast: the linear path spans hundreds of steps, more than bfloat16 resolves."""
    if not has_autocast(x.device.type):  # the meta device
        return conv(x.float())
    with torch.autocast(x.device.type, enabled=False):
        return conv(x.float())


class RateScale(nn.Module):
    """A positive scale per channel, interpolated in the log domain between quality 0 and quality 63.

    ``channelwise``: both end points are vectors (aicr-t, on the latent); otherwise one learned vector times a
    scalar between two learned end values (as published, on the feature at 1/4).
    """

    def __init__(self, channels: int, ends: tuple[float, float], channelwise: bool) -> None:
        super().__init__()
        width = channels if channelwise else 1
        self.log_ends = nn.Parameter(torch.tensor(ends).log()[:, None].repeat(1, width))
        self.basic = None if channelwise else nn.Parameter(torch.ones(channels))

    def forward(self, quality: Tensor) -> Tensor:
        """(B,) integer or float quality indexes to scales (B, C, 1, 1)."""
        t = (quality.to(self.log_ends.dtype) / (QUALITIES - 1))[:, None]
        scale = torch.exp(self.log_ends[0] * (1 - t) + self.log_ends[1] * t)
        if self.basic is not None:
            scale = scale * self.basic
        return scale[:, :, None, None]
