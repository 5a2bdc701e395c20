"""What decoding would get wrong, back into the latent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aicr_ext import ops
from aicr_ext.model.config import QUALITIES
from aicr_ext.model.evidence import LOCAL, WHOLE
from aicr_ext.nn import GELU, PointwiseConv2d

__all__ = ["LEAST_QUALITY", "Feedback"]

#: Below this quality there is no feedback: nothing that is wrong is worth its bits.
LEAST_QUALITY = 18

_HIDDEN, _JUDGED = 32, 64
# As of the gate: logarithms of squares, in which noise of standard deviation 1/255 is about 0.
_UNIT, _FLOOR = 65025.0, 0.1


class Feedback(nn.Module):
    """The share of what the synthesis gets wrong that is added to each component of a latent; from 0 to 2.

    The analysis is one function for all qualities and has learned to leave out what looks like damage, so where rates
    are high its latents lack things that the synthesis could show. The encoder can look: it decodes what it has, before
    anything is rounded, and takes the linear components of the difference to the picture. Added to the latents as they
    are they would be a step of Gauss and Newton's method, for a synthesis that is nearly its linear shortcut. But in a
    noisy picture most of the difference is noise, and where rates are low it is not worth its bits. So the share is a
    function of quality, of the noise that the picture shows (:func:`aicr_ext.model.evidence.noise_evidence`) and of the
    size of the component itself. Not part of the published network.

    Args:
        components: of y, or of its detail.
    """

    def __init__(self, components: int) -> None:
        super().__init__()
        self.local = PointwiseConv2d(LOCAL, _HIDDEN, bias=False)
        self.whole = nn.Sequential(PointwiseConv2d(WHOLE + 1, _JUDGED), GELU(), PointwiseConv2d(_JUDGED, _HIDDEN))
        self.head = PointwiseConv2d(_HIDDEN, components)
        self.slope = nn.Parameter(torch.zeros(components, 1, 1))

    def forward(self, wrong: Tensor, evidence: tuple[Tensor, Tensor], quality: Tensor) -> Tensor:
        """Components (B, C, h, w) of the difference, evidence, and quality (B,) to shares of the first's shape;
        0 below :data:`LEAST_QUALITY`.
        """
        local, whole = evidence
        level = (quality.to(whole.dtype) / (QUALITIES - 1) - 0.5)[:, None, None, None]
        h = ops.gelu(self.local(local) + self.whole(torch.cat([whole, level], 1)))
        size = 0.5 * torch.log(_UNIT * wrong.square() + _FLOOR)
        share = 2 * torch.sigmoid(self.head(h).float() + self.slope * size)
        return share * (quality >= LEAST_QUALITY)[:, None, None, None]
