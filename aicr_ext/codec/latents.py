"""Between latent tensors and bytes: quantisation in two steps, and the symbols' way through the coder.

Encoder and decoder obtain table index and mean of every symbol from the same integer functions of the same integers.
All is done for B pictures of one size, on the device of the latents; ``docs/cuda.md`` says where a host waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aicr_ext.codec.fixed_point import power_of_two
from aicr_ext.codec.priors import IntegerPriors, Parameters
from aicr_ext.codec.rans import TableSet
from aicr_ext.codec.streams import StreamsDecoder, encode_streams
from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.model.aicr import AICR, checkerboard

__all__ = ["Steps", "decode_latents", "encode_latents", "of_each"]

#: Symbols are int16.
_LIMIT = 32767


class Steps:
    """The two coding steps of latents, as encoder and decoder both take them.

    A step takes half of the channels of every cell: the first one the lower half where row + column is even and the
    upper half elsewhere, the second one the others. What belongs to a step is (B, h, w, N / 2), the rest (B, h, w, N).
    """

    def __init__(self, priors: IntegerPriors, z: Tensor, height: int, width: int) -> None:
        self.priors = priors
        self.parameters = priors.first(z, height, width)
        self.quant_step = self.parameters.quant_step
        channels = self.parameters.mean.shape[3]
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
        return torch.where(self.lower, *x.chunk(2, -1))

    def index(self) -> Tensor:
        """Table of each symbol of the current step, in coding order (picture, row, column, channel)."""
        return self.level.flatten()

    def quantise(self, y: Tensor) -> Tensor:
        """Symbols of the current step of y (B, h, w, N), float64; 0 where the scale is too small to be coded."""
        residual = torch.round(self._of_step(y) - _real(self.mean, self.places)).clamp_(-_LIMIT, _LIMIT)
        return (residual * (self.level > 0)).to(torch.int16).flatten()

    def accept(self, symbols: Tensor) -> None:
        """Takes the symbols of the current step in; the first time this opens the second step."""
        coded = symbols.to(self.mean.device, torch.int32).view_as(self.mean)
        value = (coded << self.places) + self.mean
        self.values += torch.cat([value * self.lower, value * ~self.lower], 3)
        if self.parameters is not None:
            parameters, self.parameters = self.parameters, None
            self._begin(~self.lower, self.priors.second(self.values, parameters))

    def latent(self) -> Tensor:
        """The decoded y after both steps, (B, N, h, w) float32."""
        y = _real(self.values, self.exponent)
        y = y if self.quant_step is None else y * self.quant_step
        return y.float().permute(0, 3, 1, 2)


def _real(value: Tensor, exponent: Tensor) -> Tensor:
    """Fixed-point numbers as float64, which holds them exactly."""
    return value.double() * power_of_two(-exponent)


def _hyper_index(shape: torch.Size | tuple[int, ...], device: torch.device) -> Tensor:
    """The table of each z symbol: its channel."""
    pictures, channels, height, width = shape
    index = torch.arange(channels, dtype=torch.uint8, device=device)
    return index[:, None].expand(pictures, -1, height * width).flatten()


def of_each(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``function`` of a batch; on a CPU of each picture, for there its last bits depend on how many there are."""
    if inputs[0].device.type != "cpu" or len(inputs[0]) == 1:
        return function(*inputs)
    return torch.cat([function(*one) for one in zip(*(x.split(1) for x in inputs), strict=True)])


def encode_latents(model: AICR, priors: IntegerPriors, hyper_tables: TableSet, y: Tensor) -> list[list[bytes]]:
    """Coded streams of each latent of y (B, N, h, w) in units of the quantiser step."""
    z = torch.round(of_each(model.hyper_analysis, y)).clamp(-_LIMIT, _LIMIT)
    segments = [(z.flatten().to(torch.int16), _hyper_index(z.shape, z.device), hyper_tables)]
    steps = Steps(priors, z, *y.shape[2:])
    pictures = len(y)
    y = y.permute(0, 2, 3, 1).double()
    if steps.quant_step is not None:
        y = y / steps.quant_step
    for _ in range(2):
        symbols = steps.quantise(y)
        segments.append((symbols, steps.index(), gaussian_tables()))
        steps.accept(symbols)
    return encode_streams(segments, pictures)


def decode_latents(
    priors: IntegerPriors,
    hyper_tables: TableSet,
    pictures: Sequence[Sequence[bytes | memoryview]],
    height: int,
    width: int,
    device: torch.device,
    names: Sequence[str] | None = None,
) -> tuple[Tensor, Callable[[], None]]:
    """Decoded latents (B, N, height, width) of :func:`encode_latents`' streams, on ``device``.

    Returns:
        the latents, and a function that raises what is wrong with the streams. On CUDA errors are raised by nothing
        else, and it waits for decoding, so call it when all that needs the latents is queued.

    Args:
        names: of the pictures, for messages.

    Raises:
        BitstreamError: the bytes are damaged.
    """
    shape = (len(pictures), priors.config.hyper, -(-height // 4), -(-width // 4))
    of_step = height * width * priors.config.latent // 2
    sizes = [shape[1] * shape[2] * shape[3], of_step, of_step]
    decoder = StreamsDecoder(pictures, sizes, device, names)
    z = decoder.pop(_hyper_index(shape, device), hyper_tables)
    steps = Steps(priors, z.to(device).view(shape), height, width)
    for _ in range(2):
        steps.accept(decoder.pop(steps.index(), gaussian_tables()))
    decoder.finish()
    return steps.latent(), decoder.check
