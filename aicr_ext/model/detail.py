"""Detail: linear components beyond those of the latent, for high qualities."""

from __future__ import annotations

from torch import Tensor, nn

from aicr_ext.model.feedback import Feedback
from aicr_ext.model.scale import RateScale, linear_float32
from aicr_ext.model.shortcut import ShortcutGate
from aicr_ext.nn import PointwiseConv2d

__all__ = ["DetailAnalysis", "DetailSynthesis"]

_HIDDEN = 48  # of the gate


class DetailAnalysis(nn.Module):
    """Components of 16 x 16 pixels that the latent has no channels for, in units of their quantiser steps.

    N linear components are all that a latent of N channels can hold, and what is left out is what limits the picture
    where rates are high. So E more are coded, with scales that follow from the decoded y; the networks of analysis and
    synthesis do not see them. Not part of the published network.

    Args:
        width: channels of the features that the gate sees.
        components: E.
        ends: scales at quality 0 and 63 before training.
        noise, evidence: as in :class:`ShortcutGate`.
        feedback: with shares of what decoding would get wrong (:class:`Feedback`), for the analysis to add.
    """

    def __init__(
        self,
        width: int,
        components: int,
        ends: tuple[float, float],
        noise: bool = False,
        evidence: bool = False,
        feedback: bool = False,
    ) -> None:
        super().__init__()
        self.linear = PointwiseConv2d(3 * 256, components)
        self.gate = ShortcutGate(width, components, _HIDDEN, noise, evidence)
        self.scale = RateScale(components, ends, channelwise=True)
        self.feedback = Feedback(components) if feedback else None

    def forward(
        self, features: Tensor, patches: Tensor, quality: Tensor, evidence: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Features (B, width, h, w) and patches (B, 768, h, w) to (B, E, h, w) float32: components, noise in them."""
        linear, scale = linear_float32(self.linear, patches), self.scale(quality)
        factor, noise = self.gate(features, linear, evidence)
        return linear * factor * scale, None if noise is None else noise * scale


class DetailSynthesis(nn.Module):
    """What decoded components add to patches; the mirror of :class:`DetailAnalysis`."""

    def __init__(self, components: int, ends: tuple[float, float]) -> None:
        super().__init__()
        self.linear = PointwiseConv2d(components, 3 * 256, bias=False)
        self.scale = RateScale(components, ends, channelwise=True)

    def forward(self, detail: Tensor, quality: Tensor) -> Tensor:
        """(B, E, h, w) to patches (B, 768, h, w), float32."""
        return linear_float32(self.linear, detail * self.scale(quality))
