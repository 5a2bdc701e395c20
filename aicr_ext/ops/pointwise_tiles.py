"""1x1 convolutions on the CPU, with a norm in front or without, in bfloat16 and float32.

The operator ``aicr_ext::pointwise_tiles`` is for processors with AVX-512; in bfloat16 for those with AVX512_BF16 and
without AMX_BF16, where torch's convolution is slower than such products are. :func:`aicr_ext.ops.layer_norm_conv1x1`
calls it where it runs, and in bfloat16 :func:`aicr_ext.ops.pointwise_convolution`, too. ``pointwise_tiles_into`` is the
same into rows of channels-last maps: of those that strips of a map share (:mod:`aicr_ext.ops.block_paths`), and, of one
convolution without a norm, plus a map that may be the one it is written to (:mod:`aicr_ext.ops.block_output`). Neither
has a derivative.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .. import _native
from .kernels import has_kernel

__all__ = ["LEAST_NORMED_CHANNELS", "adds", "multiplies", "normalises", "projected_like", "projection_flops"]

#: Channels from which on the kernel has the norm; csrc/cpu/pointwise_tiles_kernel.hpp says the same.
LEAST_NORMED_CHANNELS = 32


@cache
def _here(dtype: torch.dtype) -> bool:
    return torch.ops.aicr_ext.has_pointwise_tiles(dtype == torch.bfloat16)


def multiplies(x: Tensor) -> bool:
    """Whether the operator is the one for a 1x1 convolution of x, a tensor with values.

    In float32 oneDNN is as fast.
    """
    return x.dtype == torch.bfloat16 and _runs(x)


def adds(x: Tensor) -> bool:
    """Whether ``aicr_ext::pointwise_tiles_into`` is the one for the sum of a 1x1 convolution of x and of a map."""
    return x.dtype in (torch.bfloat16, torch.float32) and x.dim() == 4 and _runs(x)


def normalises(x: Tensor) -> bool:
    """Whether it is the one for 1x1 convolutions of a norm of x."""
    known = x.dtype in (torch.bfloat16, torch.float32)
    return known and x.dim() == 4 and x.shape[1] >= LEAST_NORMED_CHANNELS and _runs(x)


def _runs(x: Tensor) -> bool:
    return x.device.type == "cpu" and has_kernel("cpu") and _here(x.dtype)


def projected_like(x: Tensor, weight: Tensor | None, layout: torch.memory_format) -> Tensor:
    """An empty result of a 1x1 convolution of x; one of no elements where there is none."""
    if weight is None:
        return x.new_empty(0)
    size = (x.shape[0], weight.shape[0], *x.shape[2:])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout)


def projection_flops(
    x: Any, norm_weight: Any, norm_bias: Any, weight: Any, bias: Any, second_weight: Any, *_: Any, **__: Any
) -> int:
    """Two operations per product, as torch counts convolutions."""
    batch, channels, height, width = x
    outputs = weight[0] + (0 if second_weight is None else second_weight[0])
    return 2 * batch * height * width * channels * outputs


def _fake(
    x: Tensor, norm_weight: Any, norm_bias: Any, weight: Tensor, bias: Any, second_weight: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor]:
    return projected_like(x, weight, torch.channels_last), projected_like(x, second_weight, torch.channels_last)


if _native.HAS_OPS:
    torch.library.register_fake("aicr_ext::pointwise_tiles", _fake)
    register_flop_formula(torch.ops.aicr_ext.pointwise_tiles)(projection_flops)
    torch.library.register_fake("aicr_ext::pointwise_tiles_into", lambda *_: None)
    register_flop_formula(torch.ops.aicr_ext.pointwise_tiles_into)(projection_flops)
