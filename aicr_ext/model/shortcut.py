"""What stands between the linear shortcut of the analysis and the latent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aicr_ext import ops
from aicr_ext.model.evidence import LOCAL, WHOLE
from aicr_ext.nn import GELU, PointwiseConv2d

__all__ = ["ShortcutGate"]

# Of magnitudes: noise of standard deviation 1/255 is about 1, and nothing below a tenth of that is told apart.
_UNIT, _FLOOR = 1000.0, 0.01

_JUDGED = 64  # numbers between what a whole picture shows of its noise and the hidden ones


class ShortcutGate(nn.Module):
    """A factor from 0 to 2 for every component at every position of the linear shortcut; 1 before training.

    Linear components of noise are noise. What a component should keep of itself depends on how much of it is picture
    (Wiener's filter), which shows in magnitudes: of the component here, around here, and in the whole picture, where
    noise is the same everywhere. The factor is a function of these and of the features of the last stage. The residual
    blocks beside the shortcut could only subtract noise, after having found its value. Not part of the published
    network.

    Args:
        width: channels of the features.
        components: of the shortcut.
        hidden: channels between.
        noise: tell also how much noise is left, from the same hidden features.
        evidence: see also what the picture shows of its noise (:func:`aicr_ext.model.evidence.noise_evidence`).
    """

    def __init__(
        self, width: int, components: int, hidden: int = 96, noise: bool = False, evidence: bool = False
    ) -> None:
        super().__init__()
        self.around = nn.Conv2d(components, components, 3, padding=1, groups=components)
        self.mix = PointwiseConv2d(width + 2 * components, hidden)
        self.overall = PointwiseConv2d(components, hidden, bias=False)
        self.head = PointwiseConv2d(hidden, components)
        self.noise = PointwiseConv2d(hidden, components) if noise else None
        self.local = PointwiseConv2d(LOCAL, hidden, bias=False) if evidence else None
        self.whole = None
        if evidence:
            self.whole = nn.Sequential(PointwiseConv2d(WHOLE, _JUDGED), GELU(), PointwiseConv2d(_JUDGED, hidden))

    def forward(
        self, features: Tensor, linear: Tensor, evidence: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Features (B, width, h, w) and components (B, components, h, w) float32 to float32 of the components' shape:
        factors, and the standard deviation of the noise that they leave, if asked for. ``evidence`` is of the picture.
        """
        size = 0.5 * torch.log(_UNIT * linear.square() + _FLOOR)
        seen = [features, size.to(features.dtype), self.around(size).to(features.dtype)]
        h = self.mix(torch.cat(seen, 1)) + self.overall(size.mean((2, 3), keepdim=True))
        if self.whole is not None:
            local, whole = evidence
            h = h + self.local(local) + self.whole(whole)
        h = ops.gelu(h)
        factor = 2 * torch.sigmoid(self.head(h).float())
        if self.noise is None:
            return factor, None
        return factor, factor * self.noise(h).float().clamp(-20, 5).exp()
