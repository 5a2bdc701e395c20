"""1x1 convolutions whose sums have one order, whatever the number of threads.

With one thread torch multiplies float32 maps by another library than with several, which adds in another order and
takes longer. In a codec such a difference, where the latent is rounded, makes other symbols of the same picture.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import conv_flop_count, flop_registry, register_flop_formula

from .autocast import autocast_dtype
from .pointwise_tiles import multiplies

__all__ = ["OfMapAlone", "alone_wants_gradient", "has_onednn", "is_traced", "pointwise_convolution"]


def pointwise_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The 1x1 convolution of :func:`torch.nn.functional.conv2d`; in float32 on a CPU always by oneDNN.

    In bfloat16, where neither ``x`` nor ``weight`` nor ``bias`` wants a gradient, by a kernel of this package on CPUs
    with AVX512_BF16 and without AMX_BF16: the products of channel pairs add up in their order, pixel by pixel.

    Args:
        x: (B, C, H, W), any dtype, device and layout; what is not channels-last is copied into it on a CPU.
        weight: (D, C, 1, 1) in the dtype of ``x``.
        bias: (D,) or None.

    Returns:
        (B, D, H, W). On a CPU its bits do not depend on the number of threads, in float32 and the lower dtypes, if
        torch has oneDNN (``torch.backends.mkldnn``); without it this is the plain convolution. Nor do those of its
        derivative by ``x`` in float32, if ``x`` alone wants one.

    Autocast and derivatives are those of the plain convolution, which is also what ``torch.compile``, ``torch.export``,
    tracing, the transforms of ``torch.func`` and forward-mode derivatives get.
    """
    if is_traced(x) or x.device.type != "cpu" or x.dim() != 4 or not x.numel() or forward_ad._current_level >= 0:
        return F.conv2d(x, weight, bias)
    if _has_tiles(x, weight, bias):
        return torch.ops.aicr_ext.pointwise_tiles(x, None, None, weight, bias, None, None, False, 0.0)[0]
    width = x.shape[3]
    if x.shape[2] == width == 1:
        # The layout of a single pixel is ambiguous, and oneDNN shares its sum among threads.
        x = x.expand(-1, -1, -1, 2)
    x = x.contiguous(memory_format=torch.channels_last)
    if x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu") and has_onednn():
        if alone_wants_gradient(x, weight, bias):
            out = OfMapAlone.apply(x, weight, bias, (0, 0))
        else:
            out = torch.ops.aten.mkldnn_convolution(x, weight, bias, [0, 0], [1, 1], [1, 1], 1)
    else:
        out = F.conv2d(x, weight, bias)
    return out if out.shape[3] == width else out[..., :width]


def _has_tiles(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the native kernel for bfloat16 computes this convolution: nobody asks for its gradient."""
    if not multiplies(x) or weight.dtype != x.dtype or autocast_dtype("cpu") not in (None, x.dtype):
        return False
    inputs = (x, weight) if bias is None else (x, weight, bias)
    return not torch.is_grad_enabled() or not any(t.requires_grad for t in inputs)


def alone_wants_gradient(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether a derivative is wanted, by the map and not by the parameters."""
    if not (torch.is_grad_enabled() and x.requires_grad) or weight.requires_grad:
        return False
    return bias is None or not bias.requires_grad


class OfMapAlone(torch.autograd.Function):
    """oneDNN's convolution without strides, padded by less than its kernel, whose derivative by the map is one, too.

    Torch's own derivative takes other orders of sums with other numbers of threads.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.padding = padding
        return torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, (1, 1), (1, 1), 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        padding = tuple(side - 1 - p for side, p in zip(weight.shape[2:], ctx.padding, strict=True))
        mirrored = weight.flip(2, 3).transpose(0, 1)
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return OfMapAlone.apply(gradient, mirrored, None, padding), None, None, None


def is_traced(x: Tensor) -> bool:
    """Whether a graph is being made, a transform of ``torch.func`` is at work, or ``x`` is not a tensor with values."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return True  # within a transform the type of a tensor is no other, but vmap knows no layout of it
    return type(x) is not Tensor and type(x) is not torch.nn.Parameter


@cache
def _built_with_onednn() -> bool:
    return torch.backends.mkldnn.is_available()


def has_onednn() -> bool:
    """Whether this torch has oneDNN, and may use it."""
    return _built_with_onednn() and torch.backends.mkldnn.enabled


def _flops(x: Any, weight: Any, bias: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return conv_flop_count(x, weight, out_shape)


if torch.ops.aten.mkldnn_convolution not in flop_registry:
    register_flop_formula(torch.ops.aten.mkldnn_convolution)(_flops)
