"""GELU whose bits do not depend on the number of threads.

torch cuts a large tensor into one piece per thread and takes another formula of erf for the values that fill no vector
at the end of each, so that their last bits depend on where the cuts are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import preferred_layout
from .pointwise import is_traced

__all__ = ["gelu"]

#: Values of one piece, which is fewer than torch shares among threads, and whole vectors.
_PIECE = 1 << 14


def gelu(x: Tensor) -> Tensor:
    """The exact (erf) GELU of a map (B, C, H, W) of any dtype, device and layout, in the layout of ``x``.

    With gradients, on a GPU, in traced graphs and in transforms of ``torch.func`` it is
    :func:`torch.nn.functional.gelu`; else that of every piece of 2^14 values by itself.
    """
    if is_traced(x) or torch.is_grad_enabled() or x.device.type != "cpu" or x.numel() <= _PIECE:
        return F.gelu(x)
    order = (0, 2, 3, 1) if preferred_layout(x) == torch.channels_last else (0, 1, 2, 3)
    rows = x.permute(order).contiguous()
    out = torch.empty_like(rows)
    for piece, place in zip(rows.view(-1).split(_PIECE), out.view(-1).split(_PIECE), strict=True):
        place.copy_(F.gelu(piece))
    return out.permute([order.index(dim) for dim in range(4)])
