"""The gate of the gated feed-forward on one tensor that holds both halves.

Source: Restormer's GDFN (CVPR 2022), whose feed-forward AICR uses.

In plain PyTorch the halves are two views, whose gradients are copied together again in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _native
from .kernels import has_kernel
from .layout import preferred_layout
from .reference import gelu_gate_backward_reference, gelu_gate_reference

__all__ = ["gelu_gate"]


def gelu_gate(x: Tensor) -> Tensor:
    """GELU(x[:, :C]) ⊙ x[:, C:], with the exact (erf) GELU.

    Args:
        x: (B, 2C, H, W); float32, bfloat16, float16, on the CPU also float64. NCHW or channels-last; other
            strides cost a copy.

    Returns:
        (B, C, H, W) in the dtype and the memory layout of ``x``; arithmetic in float32 (float64 for float64), each
        element rounded to the dtype once.

    Differentiable. Autocast changes nothing: the operator runs in the dtype of ``x``. Where the native library is
    not loaded, or a device has no kernel, the result is that of
    :func:`aicr_ext.ops.reference.gelu_gate_reference`.

    Raises:
        RuntimeError: another number of dimensions, an odd number of channels, or another dtype.
    """
    if not has_kernel(x.device.type):
        return gelu_gate_reference(x)
    return torch.ops.aicr_ext.gelu_gate(x)


def _fake(x: Tensor) -> Tensor:
    size = (x.shape[0], x.shape[1] // 2, *x.shape[2:])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=preferred_layout(x))


def _fake_backward(grad: Tensor, x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=preferred_layout(x))


def _save_inputs(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    # Gradients that are differentiated again have to consist of operations that have derivatives.
    if torch.is_grad_enabled() or not has_kernel(x.device.type):
        return gelu_gate_backward_reference(grad, x)
    return torch.ops.aicr_ext.gelu_gate_backward(grad, x)


if _native.HAS_OPS:
    torch.library.register_fake("aicr_ext::gelu_gate", _fake)
    torch.library.register_fake("aicr_ext::gelu_gate_backward", _fake_backward)
    torch.library.register_autograd("aicr_ext::gelu_gate", _backward, setup_context=_save_inputs)
