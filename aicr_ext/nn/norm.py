"""The norm over channels as a module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from aicr_ext import ops

__all__ = ["LayerNorm2d"]


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of a map: :func:`aicr_ext.ops.layer_norm2d` with its parameters.

    Shapes: (B, ``channels``, H, W) to the same, in any dtype the operator takes.

    Args:
        channels: C.
        eps: added to the variance.
        bias: with a bias, and the mean subtracted, as in Restormer's ``WithBias_LayerNorm`` and NAFNet; without either,
            x / sqrt(var(x) + eps) * weight, as in Restormer's ``BiasFree_LayerNorm`` and AICR.
        subtract_mean: to have one without the other; default: as ``bias``.

    Keys of the ``state_dict``: ``weight``, ``bias``. Restormer's ``body.weight`` and ``body.bias`` are loaded too.
    """

    def __init__(
        self, channels: int, eps: float = 1e-5, *, bias: bool = False, subtract_mean: bool | None = None
    ) -> None:
        super().__init__()
        self.eps = eps
        self.subtract_mean = bias if subtract_mean is None else subtract_mean
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.layer_norm2d(x, self.weight, self.eps, bias=self.bias, subtract_mean=self.subtract_mean)

    def arguments(self) -> ops.Norm:
        """What a block needs that has this norm in front."""
        return ops.Norm(self.weight, self.bias, self.subtract_mean, self.eps)

    def extra_repr(self) -> str:
        mean = ", subtract_mean" if self.subtract_mean else ""
        return f"{len(self.weight)}, eps={self.eps}, bias={self.bias is not None}{mean}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("weight", "bias"):
            if f"{prefix}body.{name}" in state_dict:
                state_dict[f"{prefix}{name}"] = state_dict.pop(f"{prefix}body.{name}")
        super()._load_from_state_dict(state_dict, prefix, *rest)
