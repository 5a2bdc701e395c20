"""Between the latent tensor and bytes: quantisation in two steps, and the symbols' way through the coder.

Encoder and decoder obtain table index and mean of every symbol from the same integer functions of the same integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aicr_ext.codec.fixed_point import power_of_two
from aicr_ext.codec.priors import IntegerPriors, Parameters
from aicr_ext.codec.rans import TableSet
from aicr_ext.codec.streams import StreamsDecoder, encode_streams
from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.model.aicr import AICR, checkerboard

__all__ = ["Steps", "decode_latents", "encode_latents"]

#: Symbols are int16.
_LIMIT = 32767


class Steps:
    """The two coding steps of one picture's latent, as encoder and decoder both take them.

    A step takes half of the channels of every cell: the first one the lower half where row + column is even and the
    upper half elsewhere, the second one the others. What belongs to a step is (h, w, N / 2), the rest (h, w, N).
    """

    def __init__(self, priors: IntegerPriors, z: Tensor, height: int, width: int) -> None:
        self.priors = priors
        self.parameters = priors.first(z, height, width)
        self.quant_step = self.parameters.quant_step
        channels = self.parameters.mean.shape[2]
        lower = checkerboard(channels, height, width, z.device)[0, 0, :, :, None]
        self.exponent = priors.mean_exponent.expand(height, width, -1)
        self.values = torch.zeros_like(self.parameters.mean)
        self._begin(lower, self.parameters)

    def _begin(self, lower: Tensor, parameters: Parameters) -> None:
        self.lower = lower
        self.mean = self._of_step(parameters.mean)
        self.places = self._of_step(self.exponent)
        self.level = self._of_step(parameters.level)

    def _of_step(self, x: Tensor) -> Tensor:
        return torch.where(self.lower, *x.chunk(2, 2))

    def index(self) -> Tensor:
        """Table of each symbol of the current step, in coding order (row, column, channel), on the CPU."""
        return self.level.flatten().cpu()

    def quantise(self, y: Tensor) -> Tensor:
        """Symbols of the current step of y (h, w, N), float64; 0 where the scale is too small to be coded."""
        residual = torch.round(self._of_step(y) - _real(self.mean, self.places)).clamp_(-_LIMIT, _LIMIT)
        return (residual * (self.level > 0)).to(torch.int16).flatten().cpu()

    def accept(self, symbols: Tensor) -> None:
        """Takes the symbols of the current step in; the first time this opens the second step."""
        coded = symbols.to(self.mean.device, torch.int32).view_as(self.mean)
        value = (coded << self.places) + self.mean
        self.values += torch.cat([value * self.lower, value * ~self.lower], 2)
        if self.parameters is not None:
            parameters, self.parameters = self.parameters, None
            self._begin(~self.lower, self.priors.second(self.values, parameters))

    def latent(self) -> Tensor:
        """The decoded y after both steps, (1, N, h, w) float32."""
        y = _real(self.values, self.exponent)
        y = y if self.quant_step is None else y * self.quant_step
        return y.float().permute(2, 0, 1)[None]


def _real(value: Tensor, exponent: Tensor) -> Tensor:
    """Fixed-point numbers as float64, which holds them exactly."""
    return value.double() * power_of_two(-exponent)


def _hyper_index(shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The table of each z symbol: its channel."""
    _, channels, height, width = shape
    return torch.arange(channels, dtype=torch.uint8)[:, None].expand(-1, height * width).flatten()


def encode_latents(model: AICR, priors: IntegerPriors, hyper_tables: TableSet, y: Tensor) -> list[bytes]:
    """Coded streams of one picture's latent y (1, N, h, w) in units of the quantiser step."""
    z = torch.round(model.hyper_analysis(y)).clamp(-_LIMIT, _LIMIT)
    segments = [(z.flatten().to(torch.int16).cpu(), _hyper_index(z.shape), hyper_tables)]
    steps = Steps(priors, z, *y.shape[2:])
    y = y[0].permute(1, 2, 0).double()
    if steps.quant_step is not None:
        y = y / steps.quant_step
    for _ in range(2):
        symbols = steps.quantise(y)
        segments.append((symbols, steps.index(), gaussian_tables()))
        steps.accept(symbols)
    return encode_streams(segments)


def decode_latents(
    priors: IntegerPriors,
    hyper_tables: TableSet,
    streams: Sequence[bytes | memoryview],
    height: int,
    width: int,
    device: torch.device,
) -> Tensor:
    """The decoded latent (1, N, height, width) of :func:`encode_latents`' streams, on ``device``.

    Raises:
        BitstreamError: the bytes are damaged.
    """
    shape = (1, priors.config.hyper, -(-height // 4), -(-width // 4))
    decoder = StreamsDecoder(streams)
    z = decoder.pop(_hyper_index(shape), hyper_tables)
    steps = Steps(priors, z.to(device).view(shape), height, width)
    for _ in range(2):
        steps.accept(decoder.pop(steps.index(), gaussian_tables()))
    decoder.finish()
    return steps.latent()
