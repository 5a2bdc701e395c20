"""Memory layouts, decided as the native kernels decide (csrc/host/layout.hpp)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["preferred_layout"]


def preferred_layout(x: Tensor) -> torch.memory_format:
    """The layout of the result for an input (B, C, H, W): channels-last if it is, or is a view of such."""
    if x.is_contiguous():
        return torch.contiguous_format
    if x.stride(1) == 1 and x.stride(3) >= x.shape[1] and x.stride(2) >= x.shape[3] * x.stride(3):
        return torch.channels_last
    return torch.contiguous_format
