"""A layer norm over channels and the 1x1 convolutions of it, as one operator.

Source: the beginning of every block of Restormer (CVPR 2022) and of AICR: qkv, project_in, both projections of S-DA.

Norm and convolution by themselves write the normalised map and read it again, 2 of their 3 + D / C passes over a map
of the size of x; the CUDA kernel normalises in shared memory. Normalised values are rounded to the dtype of x there, so
the results are those of :func:`aicr_ext.ops.layer_norm2d` and :func:`aicr_ext.ops.pointwise_convolution` up to the
order of float32 sums, and a network may use either. (Products of x itself, divided by the deviation afterwards, would
need no pass within shared memory, but would round other numbers, and lose digits where a mean is subtracted.) On a
CPU with AVX512_BF16 and without AMX_BF16 a kernel does the same in the first cache, for channels-last bfloat16 maps of
32 channels or more (:mod:`aicr_ext.ops.pointwise_tiles`); elsewhere the CPU, whose blocks work in strips within the
cache, runs these two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .. import _native
from .autocast import outside_autocast
from .block_parts import Projection, as_map, pointwise_backward, rows, wide
from .kernels import has_kernel
from .layer_norm2d import layer_norm2d
from .layout import preferred_layout
from .pointwise import pointwise_convolution
from .pointwise_tiles import normalises, projected_like, projection_flops
from .reference import layer_norm2d_backward_reference, layer_norm_conv1x1_reference

__all__ = ["MOST_CHANNELS", "layer_norm_conv1x1", "layer_norm_conv1x1_pair"]

#: Of x, for the CUDA kernel: so many of a tile of pixels fit into shared memory.
MOST_CHANNELS = 384


def layer_norm_conv1x1(
    x: Tensor,
    norm_weight: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm_bias: Tensor | None = None,
    subtract_mean: bool = False,
    eps: float = 1e-5,
) -> Tensor:
    """The 1x1 convolution of :func:`aicr_ext.ops.layer_norm2d` of x.

    Args:
        x: (B, C, H, W); float32, bfloat16, float16, on the CPU also float64. NCHW or channels-last; other
            strides cost a copy.
        norm_weight: (C,), in the dtype of ``x`` or float32; ``norm_bias`` likewise, or None.
        weight: (D, C, 1, 1) and ``bias``: (D,) or None, likewise. The weight is rounded to the dtype of ``x``.
        subtract_mean, eps: as for the norm.

    Returns:
        (B, D, H, W) in the dtype and the memory layout of ``x``. Statistics and sums are in float32 (float64 for
        float64); the normalised values are rounded to the dtype of ``x``, and so is each result, once.

    Differentiable in all tensors; only they are kept for the backward pass, which computes the norm again. Autocast
    changes nothing: the operator runs in the dtype of ``x``. In float32 the CUDA kernel multiplies in float32, never in
    TF32.

    With more than 384 channels on CUDA the two operators run one after the other. Where the native library is not
    loaded, or a device has no kernel, the result is that of
    :func:`aicr_ext.ops.reference.layer_norm_conv1x1_reference`.

    Raises:
        RuntimeError: shapes, dtypes or devices other than these; ``eps`` negative or not finite.
    """
    return _run(x, norm_weight, norm_bias, weight, bias, None, None, subtract_mean, eps)[0]


def layer_norm_conv1x1_pair(
    x: Tensor,
    norm_weight: Tensor,
    first: Projection,
    second: Projection,
    *,
    norm_bias: Tensor | None = None,
    subtract_mean: bool = False,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """Two 1x1 convolutions, each of a weight and a bias or None, of one norm of x, which is read once.

    Each result is that of :func:`layer_norm_conv1x1`, a dense map of its own.
    """
    return _run(x, norm_weight, norm_bias, *first, *second, subtract_mean, eps)


def _run(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    if not has_kernel(x.device.type):
        return layer_norm_conv1x1_reference(x, *rest)
    if x.device.type == "cuda" and x.dim() == 4 and x.shape[1] > MOST_CHANNELS:
        return _one_after_the_other(x, *rest)
    return torch.ops.aicr_ext.layer_norm_conv1x1(x, *rest)


@outside_autocast
def _one_after_the_other(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    second_weight: Tensor | None,
    second_bias: Tensor | None,
    subtract_mean: bool,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """The norm, and the convolutions of it."""
    normed = layer_norm2d(x, norm_weight, eps, bias=norm_bias, subtract_mean=subtract_mean)

    def project(weight: Tensor | None, bias: Tensor | None) -> Tensor:
        if weight is None:
            return x.new_empty(0)
        out = pointwise_convolution(normed, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
        return out.contiguous(memory_format=preferred_layout(x))

    return project(weight, bias), project(second_weight, second_bias)


def _on_cpu(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """By one kernel, where the processor and the map are such."""
    if normalises(x) and preferred_layout(x) == torch.channels_last:
        return torch.ops.aicr_ext.pointwise_tiles(x, *rest)
    return _one_after_the_other(x, *rest)


def _fake(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    second_weight: Tensor | None,
    second_bias: Tensor | None,
    subtract_mean: bool,
    eps: float,
) -> tuple[Tensor, Tensor]:
    layout = preferred_layout(x)
    return projected_like(x, weight, layout), projected_like(x, second_weight, layout)


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.subtract_mean, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


@outside_autocast
def _backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    x, norm_weight, norm_bias, weight, bias, second_weight, second_bias = ctx.saved_tensors
    normed = rows(layer_norm2d(x, norm_weight, ctx.eps, bias=norm_bias, subtract_mean=ctx.subtract_mean))
    grad_normed, of_projections = None, []
    for grad, projection, offset in zip(grads, (weight, second_weight), (bias, second_bias), strict=True):
        if projection is None:
            of_projections += [None, None]
            continue
        up = rows(grad)
        through, grad_weight = pointwise_backward(up, normed, projection)
        grad_normed = through if grad_normed is None else grad_normed + through
        grad_bias = None if offset is None else wide(up).sum((0, 1)).to(offset.dtype)
        of_projections += [grad_weight.to(projection.dtype), grad_bias]
    # Gradients that are differentiated again have to consist of operations that have derivatives.
    native = has_kernel(x.device.type) and not torch.is_grad_enabled()
    backward = torch.ops.aicr_ext.layer_norm2d_backward if native else layer_norm2d_backward_reference
    grad_x, grad_norm, grad_norm_bias = backward(
        as_map(grad_normed, x), x, norm_weight, norm_bias is not None, ctx.subtract_mean, ctx.eps
    )
    grad_norm_bias = None if norm_bias is None else grad_norm_bias.to(norm_bias.dtype)
    return grad_x, grad_norm.to(norm_weight.dtype), grad_norm_bias, *of_projections, None, None


if _native.HAS_OPS:
    torch.library.register_kernel("aicr_ext::layer_norm_conv1x1", "cpu", _on_cpu)
    torch.library.register_fake("aicr_ext::layer_norm_conv1x1", _fake)
    torch.library.register_autograd("aicr_ext::layer_norm_conv1x1", _backward, setup_context=_save_inputs)
    register_flop_formula(torch.ops.aicr_ext.layer_norm_conv1x1)(projection_flops)
