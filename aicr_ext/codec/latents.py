"""Between the latent tensor and bytes: quantisation in two steps, and the symbols' way through the coder.

Encoder and decoder obtain table index and mean of every symbol from the same exact functions of the same integers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aicr_ext.codec.exact import ExactPriors, scale_level
from aicr_ext.codec.rans import Decoder, Encoder, TableSet
from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.model.aicr import AICR, checkerboard

__all__ = ["decode_latents", "encode_latents"]

#: Symbols are int16.
_LIMIT = 32767


class _Steps:
    """The two coding steps of one picture's latent, as encoder and decoder both take them; (h, w, N), float64."""

    def __init__(self, priors: ExactPriors, z: Tensor, height: int, width: int) -> None:
        self.priors = priors
        self.parameters = priors.first_parameters(z, height, width)
        self.quant_step, log_scale, mean = priors.config.split(self.parameters, dim=2)
        self.first = checkerboard(mean.shape[2], height, width, mean.device)[0].permute(1, 2, 0)
        self.values = torch.zeros_like(mean)
        self._begin(self.first, log_scale, mean)

    def _begin(self, mask: Tensor, log_scale: Tensor, mean: Tensor) -> None:
        self.mask = mask
        self.mean = mean[mask]
        self.level = scale_level(log_scale[mask])

    def index(self) -> np.ndarray:
        """Table of each symbol of the current step, in coding order (row, column, channel)."""
        return self.level.cpu().numpy()

    def quantise(self, y: Tensor) -> np.ndarray:
        """Symbols of the current step; 0 where the scale is too small to be coded."""
        residual = torch.round(y[self.mask] - self.mean).clamp_(-_LIMIT, _LIMIT)
        return (residual * (self.level > 0)).to(torch.int16).cpu().numpy()

    def accept(self, symbols: np.ndarray) -> None:
        """Takes the symbols of the current step in; the first time this opens the second step."""
        self.values[self.mask] = torch.from_numpy(symbols).to(self.mean.device, torch.float64) + self.mean
        if self.mask is self.first:
            log_scale, mean = self.priors.second_parameters(self.values, self.parameters).chunk(2, 2)
            self._begin(~self.first, log_scale, mean)

    def latent(self) -> Tensor:
        """The decoded y after both steps, (1, N, h, w) float32."""
        y = self.values if self.quant_step is None else self.values * self.quant_step
        return y.float().permute(2, 0, 1)[None]


def _hyper_index(shape: torch.Size | tuple[int, ...]) -> np.ndarray:
    """The table of each z symbol: its channel."""
    _, channels, height, width = shape
    return np.repeat(np.arange(channels, dtype=np.uint8), height * width)


def encode_latents(model: AICR, priors: ExactPriors, hyper_tables: TableSet, y: Tensor) -> bytes:
    """Coded bytes of one picture's latent y (1, N, h, w) in units of the quantiser step."""
    z = torch.round(model.hyper_analysis(y)).clamp(-_LIMIT, _LIMIT)
    encoder = Encoder()
    encoder.push(z.flatten().to(torch.int16).cpu().numpy(), _hyper_index(z.shape), hyper_tables)
    steps = _Steps(priors, z, *y.shape[2:])
    y = y[0].permute(1, 2, 0).double()
    if steps.quant_step is not None:
        y = y / steps.quant_step
    for _ in range(2):
        symbols = steps.quantise(y)
        encoder.push(symbols, steps.index(), gaussian_tables())
        steps.accept(symbols)
    return encoder.finish()


def decode_latents(
    priors: ExactPriors,
    hyper_tables: TableSet,
    payload: bytes | memoryview,
    height: int,
    width: int,
    device: torch.device,
) -> Tensor:
    """The decoded latent (1, N, height, width) of :func:`encode_latents`' bytes, on ``device``.

    Raises:
        BitstreamError: the bytes are damaged.
    """
    shape = (1, priors.config.hyper, -(-height // 4), -(-width // 4))
    decoder = Decoder(payload)
    z = decoder.pop(_hyper_index(shape), hyper_tables)
    steps = _Steps(priors, torch.from_numpy(z).to(device).view(shape), height, width)
    for _ in range(2):
        steps.accept(decoder.pop(steps.index(), gaussian_tables()))
    decoder.finish()
    return steps.latent()
