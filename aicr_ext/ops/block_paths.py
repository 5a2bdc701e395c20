"""Where a block goes another way on CUDA than on a CPU: fewer passes over maps instead of strips in the cache.

And where norm and projections are one kernel, on CUDA and on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .block_parts import Projection, normed
from .kernels import has_kernel
from .layer_norm_conv1x1 import layer_norm_conv1x1, layer_norm_conv1x1_pair
from .layout import preferred_layout
from .pointwise import is_traced, pointwise_convolution
from .pointwise_tiles import adds, normalises
from .strips import shared_rows

__all__ = ["StripProjection", "add_projection", "adds_in_place", "has_channel_kernels", "project_norm"]

#: Channels up to which the CUDA kernel of norm and convolution should be faster than these two (docs/performance.md).
_FUSED_CHANNELS = {torch.bfloat16: 256, torch.float16: 256, torch.float32: 32}


def has_channel_kernels(x: Tensor) -> bool:
    """Whether operators that have no CPU kernel run natively on x; on the CPU strips in the cache do better."""
    return x.device.type == "cuda" and has_kernel("cuda") and x.dtype != torch.float64


def adds_in_place(x: Tensor, low: torch.dtype, overwrite: bool) -> bool:
    """Whether the last product of a block adds to x itself, instead of a sum that reads both maps again."""
    fits = x.dtype == low and x.is_contiguous(memory_format=torch.channels_last)
    return overwrite and fits and has_channel_kernels(x)


def project_norm(
    x: Tensor,
    norm: Tensor | None,
    norm_bias: Tensor | None,
    subtract_mean: bool,
    eps: float,
    low: torch.dtype,
    *projections: Projection,
) -> Sequence[Tensor]:
    """One or two 1x1 convolutions of the norm of x, in the dtype ``low``; of x itself where there is no norm."""
    if norm is not None and fuses_norm(x, low):
        second = projections[1] if len(projections) == 2 else (None, None)
        if not has_channel_kernels(x):  # a CPU's kernel at once: what chooses it takes time
            rest = (norm, norm_bias, *projections[0], *second, subtract_mean, eps)
            return torch.ops.aicr_ext.pointwise_tiles(x, *rest)[: len(projections)]
        options: dict[str, Any] = {"norm_bias": norm_bias, "subtract_mean": subtract_mean, "eps": eps}
        if len(projections) == 2:
            return layer_norm_conv1x1_pair(x, norm, *projections, **options)
        return [layer_norm_conv1x1(x, norm, *projections[0], **options)]
    t = normed(x, norm, norm_bias, subtract_mean, eps).to(low)
    return [pointwise_convolution(t, *projection) for projection in projections]


class StripProjection:
    """:func:`project_norm` of strips that follow one another, each with its margin (:mod:`aicr_ext.ops.strips`).

    Where the kernel writes into rows of a map, those that two strips share are computed once. A result then lies in the
    memory of the one before it.
    """

    def __init__(
        self,
        norm: Tensor | None,
        norm_bias: Tensor | None,
        subtract_mean: bool,
        eps: float,
        low: torch.dtype,
        *projections: Projection,
    ) -> None:
        self._norm, self._options = (norm, norm_bias), (subtract_mean, eps)
        self._low, self._projections = low, projections
        self._maps: list[Tensor] = []  # with rows for any strip
        self._rows = 0  # of the last one

    def __call__(self, block: Tensor, keep: slice) -> Sequence[Tensor]:
        """Of a strip, of which the rows ``keep`` are its own."""
        if not self._writes(block, keep):
            return project_norm(block, *self._norm, *self._options, self._low, *self._projections)
        rows, shared = block.shape[2], shared_rows(block, keep)
        if not shared:
            most = rows + (rows - keep.stop)  # a margin before it, too
            size, of_block = (most, block.shape[3]), {"dtype": block.dtype, "device": block.device}
            self._maps = [
                torch.empty((1, len(weight), *size), memory_format=torch.channels_last, **of_block)
                for weight, _ in self._projections
            ]
        for t in self._maps if shared else ():
            t[:, :, :shared] = t[:, :, self._rows - shared : self._rows].clone()
        self._rows = rows
        if rows > shared:
            first, second = (*self._projections, (None, None))[:2]
            out = [t[:, :, shared:rows] for t in self._maps]
            given = (block[:, :, shared:], *self._norm, *first, *second, *self._options, None)
            torch.ops.aicr_ext.pointwise_tiles_into(*given, out[0], out[1] if len(out) == 2 else None)
        return [t[:, :, :rows] for t in self._maps]

    def _writes(self, block: Tensor, keep: slice) -> bool:
        """Whether the kernel does it: of one picture, for what lies behind its rows in a batch is another one's."""
        alone = keep.stop is not None and len(block) == 1 and block.numel() > 0
        if not alone or has_channel_kernels(block) or forward_ad._current_level >= 0:
            return False
        if self._norm[0] is not None:
            return fuses_norm(block, self._low)
        if torch.is_grad_enabled() or is_traced(block) or block.dtype != self._low:
            return False
        return adds(block) and preferred_layout(block) == torch.channels_last


def fuses_norm(x: Tensor, low: torch.dtype) -> bool:
    """Whether norm and 1x1 convolution of x are one kernel.

    Not where gradients are recorded: the derivative would compute the norm again, which moves as many bytes as the
    kernel saves.
    """
    if torch.is_grad_enabled() or x.dtype != low:
        return False
    if has_channel_kernels(x):
        return x.shape[1] <= _FUSED_CHANNELS.get(low, 0)
    return not is_traced(x) and normalises(x) and preferred_layout(x) == torch.channels_last


def add_projection(x: Tensor, t: Tensor, matrix: Tensor) -> Tensor:
    """x, after it has been increased by the 1x1 convolution of t, which is one product and rounds once.

    x (B, C, H, W) and t (B, K, H, W) have one dtype, and x is channels-last; ``matrix`` (C, K), or (B, C, K) with one
    for each picture.
    """
    b, c, h, w = x.shape
    to, of = x.permute(0, 2, 3, 1).view(b, h * w, c), t.permute(0, 2, 3, 1).flatten(1, 2)
    if matrix.dim() == 3:
        torch.baddbmm(to, of, matrix.mT, out=to)
    else:
        to = to.view(b * h * w, c)
        torch.addmm(to, of.flatten(0, 1), matrix.t(), out=to)
    return x
