"""The 1x1 convolution at the end of a block's branch, and what is added to it, in one pass where a kernel has both."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .pointwise import is_traced, pointwise_convolution
from .pointwise_tiles import adds

__all__ = ["OutputProjection"]


class OutputProjection:
    """A 1x1 convolution whose result may be added to a map, and may be written to rows of one.

    Args:
        weight: (D, K, 1, 1), or (B, D, K) with one for each picture.
        bias: (D,) or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight, self.bias = weight, bias

    @property
    def channels(self) -> int:
        """Of the result."""
        return self.weight.shape[-2 if self.weight.dim() == 3 else 0]

    def __call__(self, t: Tensor, added: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        """The convolution of t (B, K, H, W), plus ``added`` (B, D, H, W).

        Args:
            out: where the result goes; may be ``added``.
        """
        if out is not None and self.writes(t, added) and has_rows_side_by_side(out):
            self._write(t, added, out)
            return out
        result = self._convolve(t)
        if added is not None:
            return added.add_(result) if out is added else torch.add(added, result, out=out)
        return result if out is None else out.copy_(result)

    def writes(self, t: Tensor, added: Tensor | None = None) -> bool:
        """Whether the kernel puts the sum of t's convolution and of ``added`` into a channels-last map at once."""
        if torch.is_grad_enabled() or is_traced(t) or forward_ad._current_level >= 0 or not adds(t):
            return False
        return added is None or (added.dtype == t.dtype and not is_traced(added) and has_rows_side_by_side(added))

    def _write(self, t: Tensor, added: Tensor | None, out: Tensor) -> None:
        into = torch.ops.aicr_ext.pointwise_tiles_into
        no_norm, no_second = (None, None), (None, None, False, 0.0)
        if self.weight.dim() == 4:
            into(t, *no_norm, self.weight, self.bias, *no_second, added, out, None)
            return
        for i, matrix in enumerate(self.weight):
            one, weight = slice(i, i + 1), matrix[:, :, None, None]
            to = None if added is None else added[one]
            into(t[one], *no_norm, weight, self.bias, *no_second, to, out[one], None)

    def _convolve(self, t: Tensor) -> Tensor:
        if self.weight.dim() == 4:
            return pointwise_convolution(t, self.weight, self.bias)
        if not is_traced(t) and t.device.type == "cpu" and len(t) and not torch.is_grad_enabled():
            # the same bits for any number of threads, which products of few rows do not have
            matrices = self.weight[:, :, :, None, None]
            maps = [pointwise_convolution(one, matrix) for one, matrix in zip(t.split(1), matrices, strict=True)]
            out = torch.cat(maps) if len(maps) > 1 else maps[0]
        else:
            rows = t.permute(0, 2, 3, 1).flatten(1, 2) @ self.weight.transpose(1, 2)
            out = rows.unflatten(1, t.shape[2:]).permute(0, 3, 1, 2)
        return out if self.bias is None else out + self.bias[:, None, None]


def has_rows_side_by_side(t: Tensor) -> bool:
    """Whether t is a channels-last map, or some rows of one: a pixel follows the other within a picture."""
    _, c, h, w = t.shape
    channels_last = not t.is_contiguous() and t.stride(1) == 1
    return channels_last and (w == 1 or t.stride(3) == c) and (h == 1 or t.stride(2) == w * c)
