"""Between the latent tensor and bytes: quantisation in two steps, and the symbols' way through the coder.

Encoder and decoder obtain table index and mean of every symbol from the same functions on the same inputs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aicr_ext.codec.rans import Decoder, Encoder, TableSet
from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.errors import ChecksumError, FormatError, TruncatedError
from aicr_ext.model.aicr import AICR, checkerboard
from aicr_ext.model.entropy import scale_level

__all__ = ["decode_latents", "encode_latents"]

#: Symbols are int16.
_LIMIT = 32767


class _Steps:
    """The two coding steps of one picture's latent, as encoder and decoder both take them."""

    def __init__(self, model: AICR, z_hat: Tensor, height: int, width: int) -> None:
        self.model = model
        self.parameters = model.first_parameters(z_hat, height, width)
        self.quant_step, log_scale, mean = model.split_parameters(self.parameters)
        self.first = checkerboard(mean.shape[1], height, width, mean.device)
        self.values = torch.zeros_like(mean)
        self._begin(self.first, log_scale, mean)

    def _begin(self, mask: Tensor, log_scale: Tensor, mean: Tensor) -> None:
        self.mask, self.mean = mask, mean
        self.level = scale_level(log_scale)[mask]

    def index(self) -> np.ndarray:
        """Table of each symbol of the current step, in coding order (channel, row, column)."""
        return self.level.cpu().numpy()

    def quantise(self, y: Tensor) -> np.ndarray:
        """Symbols of the current step; 0 where the scale is too small to be coded."""
        residual = torch.round((y - self.mean)[self.mask]).clamp(-_LIMIT, _LIMIT)
        return (residual * (self.level > 0)).to(torch.int16).cpu().numpy()

    def accept(self, symbols: np.ndarray) -> None:
        """Takes the symbols of the current step in; the first time this opens the second step."""
        decoded = torch.from_numpy(symbols).to(self.mean.device, self.mean.dtype)
        self.values[self.mask] = decoded + self.mean[self.mask]
        if self.mask is self.first:
            log_scale, mean = self.model.second_parameters(self.values, self.parameters).chunk(2, 1)
            self._begin(~self.first, log_scale, mean)

    def latent(self) -> Tensor:
        """The decoded y, after both steps."""
        return self.values if self.quant_step is None else self.values * self.quant_step


def _hyper_index(shape: torch.Size | tuple[int, ...]) -> np.ndarray:
    """The table of each z symbol: its channel."""
    _, channels, height, width = shape
    return np.repeat(np.arange(channels, dtype=np.uint8), height * width)


def encode_latents(model: AICR, hyper_tables: TableSet, y: Tensor) -> bytes:
    """Coded bytes of one picture's latent y (1, N, h, w) in units of the quantiser step."""
    z = torch.round(model.hyper_analysis(y)).clamp(-_LIMIT, _LIMIT)
    encoder = Encoder()
    encoder.push(z.flatten().to(torch.int16).cpu().numpy(), _hyper_index(z.shape), hyper_tables)
    steps = _Steps(model, z.contiguous(), *y.shape[2:])
    if steps.quant_step is not None:
        y = y / steps.quant_step
    for _ in range(2):
        symbols = steps.quantise(y)
        encoder.push(symbols, steps.index(), gaussian_tables())
        steps.accept(symbols)
    return encoder.finish()


def decode_latents(model: AICR, hyper_tables: TableSet, payload: bytes | memoryview, height: int, width: int) -> Tensor:
    """The decoded latent (1, N, height, width) of :func:`encode_latents`' bytes.

    Raises:
        BitstreamError: the bytes are damaged, or this machine computed other coding parameters than the encoder's.
    """
    device = next(model.parameters()).device
    shape = (1, model.config.hyper, -(-height // 4), -(-width // 4))
    decoder = Decoder(payload)
    z = decoder.pop(_hyper_index(shape), hyper_tables)
    steps = _Steps(model, torch.from_numpy(z).to(device, torch.float32).view(shape), height, width)
    try:
        for _ in range(2):
            steps.accept(decoder.pop(steps.index(), gaussian_tables()))
        decoder.finish()
    except (ChecksumError, FormatError, TruncatedError) as error:
        raise ChecksumError(
            "the coded symbols do not decode here: the file is intact, but this machine's floating-point entropy "
            f"networks disagree with the encoder's ({error})"
        ) from error
    return steps.latent()
