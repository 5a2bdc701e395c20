"""The gated depthwise feed-forward as modules; maps and ``recompute`` as in :mod:`aicr_ext.nn.attention`."""

from __future__ import annotations

from torch import Tensor, nn

from aicr_ext import ops

from .norm import LayerNorm2d

__all__ = ["GatedConvolutions", "GatedFeedForward"]


class GatedConvolutions(nn.Module):
    """The gated feed-forward without norm or residual: GDFN of Restormer (CVPR 2022).

    Shapes: (B, ``channels``, H, W) to the same.

    Args:
        channels: C.
        hidden: channels of each half; Restormer has int(2.66 C).
        bias: of all convolutions.
        activation: of the first half: ``"gelu"``, or None for a plain product.
        recompute: see :mod:`aicr_ext.nn.attention`.

    Keys of the ``state_dict``: ``project_in``, ``dwconv``, ``project_out``, as in Restormer.

    Raises:
        ValueError: another activation.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        bias: bool = False,
        activation: str | None = "gelu",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if activation not in ("gelu", None):
            raise ValueError(f"activation must be 'gelu' or None, got {activation!r}")
        self.activation, self.recompute = activation, recompute
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return ops.gated_convolutions(
            x,
            (self.project_in.weight, self.project_in.bias),
            (self.dwconv.weight, self.dwconv.bias),
            (self.project_out.weight, self.project_out.bias),
            activation=self.activation,
            recompute=self.recompute,
        )


class GatedFeedForward(nn.Module):
    """Gated depthwise feed-forward (GDFN) with its norm and residual, as AICR has it: x + GDFN(LN x).

    Shapes: (B, ``channels``, H, W) to the same. Each half has int(``expansion`` · ``channels``) channels.

    Keys of the ``state_dict``: ``norm``, ``project_in``, ``dwconv``, ``project_out``.
    """

    def __init__(self, channels: int, expansion: float, *, recompute: bool = False) -> None:
        super().__init__()
        hidden = int(expansion * channels)
        self.recompute = recompute
        self.norm = LayerNorm2d(channels)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor, *, overwrite: bool = False) -> Tensor:
        """``overwrite``: without gradients, x may be lost; the result then takes its memory."""
        return ops.gated_feed_forward(
            x,
            self.norm.weight,
            self.project_in.weight,
            self.dwconv.weight,
            self.project_out.weight,
            eps=self.norm.eps,
            recompute=self.recompute,
            overwrite=overwrite,
        )
