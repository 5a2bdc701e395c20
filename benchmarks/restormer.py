"""A network of Restormer's shape ("Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022),
in plain torch, from the facts of the paper: what :func:`aicr_ext.accelerate` is measured on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Attention", "FeedForward", "LayerNorm", "Restormer"]


class LayerNorm(nn.Module):
    """Over the channels of (B, C, H, W), with bias."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        return self.body(rows).transpose(1, 2).reshape(x.shape)


class Attention(nn.Module):
    """Multi-Dconv head transposed attention."""

    def __init__(self, dim: int, heads: int, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(1, (self.heads, -1)).flatten(3) for t in self.qkv_dwconv(self.qkv(x)).chunk(3, 1))
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(2, 3) * self.temperature
        return self.project_out((scores.softmax(-1) @ v).reshape(x.shape))


class FeedForward(nn.Module):
    """Gated-Dconv feed-forward network."""

    def __init__(self, dim: int, expansion: float, bias: bool = False) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.dwconv(self.project_in(x)).chunk(2, 1)
        return self.project_out(F.gelu(a) * b)


class Block(nn.Module):
    """Attention, then feed-forward, each of a norm of its input, each added to it."""

    def __init__(self, dim: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.norm1, self.attn = LayerNorm(dim), Attention(dim, heads)
        self.norm2, self.ffn = LayerNorm(dim), FeedForward(dim, expansion)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Restormer(nn.Module):
    """Four levels of blocks with skips, a refinement at full resolution, and the input added to the result.

    Args:
        dim: channels of the first level; each further one has twice as many at half the resolution.
        blocks: of the levels; ``heads`` likewise.
        refinement: blocks at the end.
        expansion: of the feed-forwards.

    Pictures (B, 3, H, W), sides multiples of 8.
    """

    def __init__(
        self,
        dim: int = 48,
        blocks: tuple[int, ...] = (4, 6, 6, 8),
        heads: tuple[int, ...] = (1, 2, 4, 8),
        refinement: int = 4,
        expansion: float = 2.66,
    ) -> None:
        super().__init__()

        def stage(width: int, count: int, level: int) -> nn.Sequential:
            return nn.Sequential(*(Block(width, heads[level], expansion) for _ in range(count)))

        def smaller(width: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(width, width // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))

        def larger(width: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.PixelShuffle(2))

        widths = [dim * 2**level for level in range(4)]
        self.embed = nn.Conv2d(3, dim, 3, padding=1, bias=False)
        self.encoders = nn.ModuleList(stage(widths[i], blocks[i], i) for i in range(3))
        self.downs = nn.ModuleList(smaller(widths[i]) for i in range(3))
        self.latent = stage(widths[3], blocks[3], 3)
        self.ups = nn.ModuleList(larger(widths[i + 1]) for i in (2, 1, 0))
        # The last level keeps both halves of what it is given.
        self.reduces = nn.ModuleList(
            nn.Conv2d(2 * widths[i], widths[i], 1, bias=False) if i else nn.Identity() for i in (2, 1, 0)
        )
        self.decoders = nn.ModuleList(stage(max(widths[i], 2 * dim), blocks[i], i) for i in (2, 1, 0))
        self.refinement = stage(2 * dim, refinement, 0)
        self.output = nn.Conv2d(2 * dim, 3, 3, padding=1, bias=False)

    def forward(self, picture: Tensor) -> Tensor:
        x = self.embed(picture)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(x))
            x = down(skips[-1])
        x = self.latent(x)
        for up, reduce, decoder in zip(self.ups, self.reduces, self.decoders, strict=True):
            x = decoder(reduce(torch.cat([up(x), skips.pop()], 1)))
        return self.output(self.refinement(x)) + picture
