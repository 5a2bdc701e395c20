"""What training minimises."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["guidance_term", "rate_distortion_loss"]


def rate_distortion_loss(
    bpp: Tensor,
    picture: Tensor,
    target: Tensor,
    lam: Tensor,
    balance: bool = True,
    extra: Tensor | float = 0.0,
    knee: float = math.inf,
) -> tuple[Tensor, Tensor]:
    """Mean loss of a batch and the MSE of each picture (mean over channels and pixels).

    A picture's loss L is bpp + lambda * MSE + ``extra``, the MSE summed over the three channels in [0, 1]; with
    ``balance`` times 16 / sqrt(lambda). It counts as knee * ln(1 + L / knee): otherwise the few pictures that can
    hardly be restored, many times as far from their target as a clean one, would decide the direction of every step.
    Their own balance of rate and distortion stays as it is.
    """
    mse = (picture - target).square().mean((1, 2, 3))
    loss = bpp + lam * 3 * mse + extra
    if balance:
        loss = loss * 16 / lam.sqrt()
    if not math.isinf(knee):
        loss = knee * torch.log1p(loss / knee)
    return loss.mean(), mse


def guidance_term(taps: Sequence[Tensor], guide: Sequence[Tensor]) -> Tensor:
    """Per picture, the mean absolute difference of the features (B, C, H, W) at each tap, summed over the taps.

    "Optimizing Image Compression via Joint Learning with Denoising" (ECCV 2022): features of the degraded picture
    against those of the clean one, from the same weights.
    """
    return sum((a.float() - b.float()).abs().mean((1, 2, 3)) for a, b in zip(taps, guide, strict=True))
