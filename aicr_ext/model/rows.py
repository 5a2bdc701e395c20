"""Pictures worked through in rows of patches, so that what is computed in between stays in the processor's cache.

Like :mod:`aicr_ext.ops.strips`, for what the network does beside its blocks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from aicr_ext.ops.pointwise import is_traced

__all__ = ["over_rows"]

#: Pixels of a strip, about; fixed, so that a picture always gives the same strips.
_PIXELS = 1 << 17
#: Rows of a patch.
_PATCH = 16


def over_rows(function: Callable[..., Tensor], x: Tensor, *fields: Tensor) -> Tensor:
    """``function(x, *fields)``, rows by rows where no derivative needs what is in between, on a CPU.

    Args:
        function: of pictures and of fields over them, to a result over them; each row of it depends on nothing but the
            patches of 16 x 16 pixels that it lies in.
        x: (B, C, H, W), sides multiples of 16.
        fields: (B, D, h, w), of as many rows for every patch.
    """
    patches = max(1, _PIXELS // (_PATCH * max(1, len(x) * x.shape[3])))
    if torch.is_grad_enabled() or x.device.type != "cpu" or is_traced(x) or _PATCH * patches >= x.shape[2]:
        return function(x, *fields)
    count, out = x.shape[2] // _PATCH, None

    def part(t: Tensor, first: int) -> Tensor:
        size = t.shape[2] // count
        return t[:, :, first * size : (first + patches) * size]

    for first in range(0, count, patches):
        result = function(*(part(t, first) for t in (x, *fields)))
        if out is None:
            rows = count * (result.shape[2] // patches)
            out = result.new_empty(*result.shape[:2], rows, result.shape[3])
        part(out, first).copy_(result)
    return out
