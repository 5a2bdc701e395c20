"""Convolutions whose sums have one order, whatever the number of threads and the size of the map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from .pointwise import OfMapAlone, alone_wants_gradient, has_onednn, is_traced

__all__ = ["steady_convolution"]


def steady_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> Tensor:
    """:func:`torch.nn.functional.conv2d` of one group; in float32 on a CPU without gradients always by oneDNN.

    For small maps torch alone takes another library, whose sums depend on the number of threads.

    Args:
        x: (B, C, H, W), any dtype, device and layout; what is not channels-last is copied into it.
        weight: (D, C, h, w) in the dtype of ``x``.
        bias: (D,) or None.
        stride, padding: of rows and columns; zeros are padded.

    Returns:
        (B, D, H', W'). Without oneDNN (``torch.backends.mkldnn``), under autocast, in other dtypes, in graphs and with
        gradients this is the plain convolution; but where ``x`` alone wants a gradient, there is no stride and less
        padding than kernel, that is a convolution of this kind, too.
    """
    of_map = stride == (1, 1) and all(p < side for p, side in zip(padding, weight.shape[2:], strict=True))
    of_map = of_map and alone_wants_gradient(x, weight, bias)
    if (
        is_traced(x)
        or (torch.is_grad_enabled() and not of_map)
        or forward_ad._current_level >= 0
        or x.device.type != "cpu"
        or not x.dtype == weight.dtype == torch.float32
        or torch.is_autocast_enabled("cpu")
        or not x.numel()
        or not has_onednn()
    ):
        return F.conv2d(x, weight, bias, stride, padding)
    x = x.contiguous(memory_format=torch.channels_last)
    if of_map:
        return OfMapAlone.apply(x, weight, bias, padding)
    return torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, stride, (1, 1), 1)
