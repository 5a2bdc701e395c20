"""Random depth for pictures that come without one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .draw import uniform_field

__all__ = ["random_depth"]

# Side of the random grid and weight of each octave: slopes, objects, wisps.
_OCTAVES = ((2, 1.0), (4, 0.5), (8, 0.2))

# Share of the slope from the near bottom to the far top, which most photographs have.
_RISE = 0.5


def random_depth(shape: tuple[int, int, int], generator: torch.Generator, device: torch.device) -> Tensor:
    """A smooth map (B, 1, H, W) in [0, 1], farther towards the top, each picture with its own.

    It follows no object of the picture: what lies behind what is not known.
    """
    count, height, width = shape
    # Rows, not pixels, so that a crop of one row is as deep as any other.
    depth = torch.linspace(_RISE, 0, height, dtype=torch.float32, device=device)[:, None].expand(
        count, 1, height, width
    )
    total = sum(weight for _, weight in _OCTAVES)
    for side, weight in _OCTAVES:
        grid = uniform_field((count, 1, side, side), generator, device)
        smooth = F.interpolate(grid, (height, width), mode="bicubic", align_corners=True)
        depth = depth + (1 - _RISE) * weight / total * smooth
    return depth.clamp_(0, 1)
