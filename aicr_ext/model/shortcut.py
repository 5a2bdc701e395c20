"""What stands between the linear shortcut of the analysis and the latent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aicr_ext import ops
from aicr_ext.nn import PointwiseConv2d

__all__ = ["ShortcutGate"]

# Of magnitudes: noise of standard deviation 1/255 is about 1, and nothing below a tenth of that is told apart.
_UNIT, _FLOOR = 1000.0, 0.01


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
    """

    def __init__(self, width: int, components: int, hidden: int = 96, noise: bool = False) -> None:
        super().__init__()
        self.around = nn.Conv2d(components, components, 3, padding=1, groups=components)
        self.mix = PointwiseConv2d(width + 2 * components, hidden)
        self.overall = PointwiseConv2d(components, hidden, bias=False)
        self.head = PointwiseConv2d(hidden, components)
        self.noise = PointwiseConv2d(hidden, components) if noise else None

    def forward(self, features: Tensor, linear: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (B, width, h, w) and components (B, components, h, w) float32 to float32 of the components' shape:
        factors, and the standard deviation of the noise that they leave, if asked for.
        """
        size = 0.5 * torch.log(_UNIT * linear.square() + _FLOOR)
        seen = [features, size.to(features.dtype), self.around(size).to(features.dtype)]
        h = ops.gelu(self.mix(torch.cat(seen, 1)) + self.overall(size.mean((2, 3), keepdim=True)))
        factor = 2 * torch.sigmoid(self.head(h).float())
        if self.noise is None:
            return factor, None
        return factor, factor * self.noise(h).float().clamp(-20, 5).exp()
