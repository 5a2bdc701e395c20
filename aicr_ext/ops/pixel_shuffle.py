"""Pixel shuffles that leave maps in their layout.

Only on a CPU do torch's own keep a channels-last map so. Elsewhere the result is NCHW, and so is every sum of a
residual block behind it, while the convolutions of the block want channels-last and copy. Here it is one copy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import preferred_layout

__all__ = ["pixel_shuffle", "pixel_unshuffle"]


def pixel_shuffle(x: Tensor, factor: int) -> Tensor:
    """:func:`torch.nn.functional.pixel_shuffle` of (B, C·factor², H, W), in the memory layout of x."""
    if not _loses_its_layout(x):
        return F.pixel_shuffle(x, factor)
    b, c, h, w = x.shape
    c //= factor**2
    t = x.permute(0, 2, 3, 1).unflatten(3, (c, factor, factor)).permute(0, 1, 4, 2, 5, 3)
    return t.reshape(b, h * factor, w * factor, c).permute(0, 3, 1, 2)


def pixel_unshuffle(x: Tensor, factor: int) -> Tensor:
    """:func:`torch.nn.functional.pixel_unshuffle` of (B, C, H·factor, W·factor), in the memory layout of x."""
    if not _loses_its_layout(x):
        return F.pixel_unshuffle(x, factor)
    b, c, h, w = x.shape
    t = x.permute(0, 2, 3, 1).unflatten(2, (-1, factor)).unflatten(1, (-1, factor)).permute(0, 1, 3, 5, 2, 4)
    return t.reshape(b, h // factor, w // factor, c * factor**2).permute(0, 3, 1, 2)


def _loses_its_layout(x: Tensor) -> bool:
    return x.device.type != "cpu" and x.dim() == 4 and preferred_layout(x) == torch.channels_last
