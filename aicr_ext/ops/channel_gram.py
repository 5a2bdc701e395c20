"""The scores of attention between channels, and the norms they are scaled by, in one pass over queries and keys.

Source: Restormer's MDTA (CVPR 2022), whose attention AICR's C-GA divides into groups.

In plain PyTorch the groups of channels-last maps are copied for the product, and squares are maps of their own. On CUDA
the operator runs its plain-torch definition; there :func:`aicr_ext.ops.depthwise_gram` has the convolution in front
of it too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .. import _native
from .autocast import outside_autocast
from .kernels import has_kernel
from .layout import preferred_layout
from .reference import channel_gram_reference, pixels_of_groups

__all__ = ["channel_gram"]

#: Channels up to which the derivative has one product of all groups: zeros between them cost less than copies of each.
_WHOLE_CHANNELS = 64


def channel_gram(q: Tensor, k: Tensor, *, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Per group q kᵀ, and |q|² and |k|² of each channel: sums over pixels.

    Args:
        q: (B, C, H, W); float32, bfloat16, float16, float64. NCHW or channels-last, and views of some channels or rows
            of such; other strides cost a copy.
        k: likewise, of the shape and dtype of ``q``.
        groups: divides C; channels of different groups have no score.

    Returns:
        The scores (B, groups, C / groups, C / groups), of queries by keys, and the sums of squares over pixels of q and
        of k, (B, groups, C / groups) each; float32 (float64 for float64). On the CPU no sum is rounded to a lower
        dtype, and the bits are the same for any number of threads. Those of a picture are the sums of those of its
        parts.

    Differentiable, also a second time. Autocast changes nothing: the operator runs in the dtype of ``q``. Where the
    native library is not loaded, and on other devices than a CPU, the result is that of
    :func:`aicr_ext.ops.reference.channel_gram_reference`.

    Raises:
        RuntimeError: shapes, dtypes or devices other than these.
    """
    if q.device.type == "cuda" or not has_kernel(q.device.type):
        return channel_gram_reference(q, k, groups)
    return torch.ops.aicr_ext.channel_gram(q, k, groups)


def _fake(q: Tensor, k: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    sums = torch.float64 if q.dtype == torch.float64 else torch.float32
    batch, depth = q.shape[0], q.shape[1] // groups
    scores = q.new_empty((batch, groups, depth, depth), dtype=sums)
    return scores, *(q.new_empty((batch, groups, depth), dtype=sums) for _ in range(2))


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *maps, ctx.groups = inputs
    ctx.save_for_backward(*maps)


def _backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    return *_gradients(*ctx.saved_tensors, *grads), None


@outside_autocast
def _gradients(q: Tensor, k: Tensor, grad_scores: Tensor, grad_q_norm: Tensor, grad_k_norm: Tensor) -> list[Tensor]:
    """Of both maps, from those of the results; in plain torch, for they are differentiated too."""
    size, groups = q.shape, grad_scores.shape[1]
    low, of_q, of_k = (t.to(q.dtype) for t in (grad_scores, grad_q_norm, grad_k_norm))
    planes = preferred_layout(q) == torch.contiguous_format
    if not planes and groups > 1 and size[1] <= _WHOLE_CHANNELS:
        apart = torch.eye(groups, dtype=low.dtype, device=low.device)[:, None, :, None]
        low = (low[:, :, :, None] * apart).reshape(size[0], 1, size[1], size[1])
        of_q, of_k, groups = of_q.reshape(size[0], 1, size[1]), of_k.reshape(size[0], 1, size[1]), 1
    q, k, of_q, of_k = pixels_of_groups(q, groups), pixels_of_groups(k, groups), of_q[:, :, None], of_k[:, :, None]
    if planes:
        grad_q = torch.addcmul(low @ k.mT, q.mT, of_q.mT, value=2)
        grad_k = torch.addcmul(low.mT @ q.mT, k.mT, of_k.mT, value=2)
        return [grad_q.reshape(size), grad_k.reshape(size)]
    if groups > 1 and low.dtype in (torch.bfloat16, torch.float16):
        q, k = q.contiguous(), k.contiguous()
    gradients = torch.addcmul(k @ low.mT, q, of_q, value=2), torch.addcmul(q @ low, k, of_k, value=2)
    rows = (t.transpose(1, 2).reshape(size[0], *size[2:], size[1]) for t in gradients)
    return [t.permute(0, 3, 1, 2) for t in rows]


def _flops(q: Any, k: Any, groups: int, *, out_shape: Any = None, **_: Any) -> int:
    """Those of the scores, as torch counts products."""
    batch, channels, height, width = q
    return 2 * batch * height * width * channels * (channels // groups)


if _native.HAS_OPS:
    torch.library.register_kernel("aicr_ext::channel_gram", "cuda", channel_gram_reference)
    torch.library.register_fake("aicr_ext::channel_gram", _fake)
    torch.library.register_autograd("aicr_ext::channel_gram", _backward, setup_context=_save_inputs)
    register_flop_formula(torch.ops.aicr_ext.channel_gram)(_flops)
