"""Modules around the operators of :mod:`aicr_ext.ops`."""

from aicr_ext.nn.steady import GELU, PointwiseConv2d

__all__ = ["GELU", "PointwiseConv2d"]
