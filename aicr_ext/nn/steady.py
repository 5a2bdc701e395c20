"""Layers of ``torch.nn`` that give the same bits for any number of threads on a CPU.

A codec rounds what they compute: where a last bit decides, other symbols are coded.
"""

from __future__ import annotations

from torch import Tensor, nn

from aicr_ext import ops

__all__ = ["GELU", "PointwiseConv2d", "SteadyConv2d"]


class GELU(nn.GELU):
    """:class:`torch.nn.GELU`, exact, of maps (B, C, H, W) of any dtype; see :func:`aicr_ext.ops.gelu`."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return ops.gelu(x)


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 :class:`torch.nn.Conv2d`; see :func:`aicr_ext.ops.pointwise_convolution`.

    Shapes: (B, ``in_channels``, H, W) to (B, ``out_channels``, H, W), any dtype; channels-last is the fast layout.
    Parameters, their names and their first values are those of ``nn.Conv2d(in_channels, out_channels, 1, bias=bias)``.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return ops.pointwise_convolution(x, self.weight, self.bias)


class SteadyConv2d(nn.Conv2d):
    """A :class:`torch.nn.Conv2d` of one group, zero padding and no dilation; see
    :func:`aicr_ext.ops.steady_convolution`.

    Parameters, their names and their first values are those of ``nn.Conv2d``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return ops.steady_convolution(x, self.weight, self.bias, self.stride, self.padding)
