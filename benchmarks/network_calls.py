"""Every operator that a network calls on a GPU, with what it moves and computes, found without a GPU.

The networks run on the meta device, where tensors have shapes but no values, along the path that they take on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from aicr_ext.codec.latents import Steps
from aicr_ext.model.aicr import AICR
from aicr_ext.model.config import ModelConfig
from aicr_ext.model.entropy import SCALE_LEVELS
from aicr_ext.model.precision import with_cast_weights
from aicr_ext.ops import block_paths, blocks
from aicr_ext.profiling.costs import bytes_moved, flops, tensors_in

__all__ = ["NetworkCall", "network_calls"]

#: What autocast casts the arguments of, among the functions that these networks call.
_CAST = (F.conv2d, torch.conv2d, torch.matmul, Tensor.matmul, Tensor.__matmul__)


@dataclass(frozen=True)
class NetworkCall:
    """One call.

    Attributes:
        name: of the operator, ``aten::convolution`` or ``aicr_ext::layer_norm2d``.
        dtype: of its first tensor; ``"int16"`` for those of the entropy networks.
        arguments: by position; tensors are on the meta device.
        bytes, flops: as :mod:`aicr_ext.profiling.costs` counts them.
    """

    name: str
    dtype: str
    arguments: tuple[Any, ...]
    bytes: int
    flops: int

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the tensors among the arguments."""
        return tuple(tuple(t.shape) for t in tensors_in(list(self.arguments)))

    def drawn(self, device: str) -> tuple[Any, ...]:
        """The arguments with numbers from a normal distribution, always the same; those for norms are squares."""
        generator = torch.Generator().manual_seed(0)

        def draw(argument: Any) -> Any:
            if not isinstance(argument, Tensor):
                return argument
            values = torch.randn(argument.shape, generator=generator).to(device, argument.dtype)
            if argument.dim() == 3:  # sums of squares, which no other argument of the kernels has the shape of
                values = values.square() + 1
            return torch.empty_strided(argument.shape, argument.stride(), dtype=values.dtype, device=device).copy_(
                values
            )

        return tuple(map(draw, self.arguments))


class _Autocast(TorchFunctionMode):
    """Casts as autocast does, which the meta device has not: each tensor once."""

    def __init__(self, low: torch.dtype | None) -> None:
        super().__init__()
        self.low = low
        self.cast: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if self.low is not None and func in _CAST:
            args = tuple(self._low(a) if isinstance(a, Tensor) else a for a in args)
        return func(*args, **(kwargs or {}))

    def _low(self, tensor: Tensor) -> Tensor:
        if tensor.dtype == self.low:
            return tensor
        if id(tensor) not in self.cast:
            self.cast[id(tensor)] = tensor, tensor.to(self.low)
        return self.cast[id(tensor)][1]


class _Recorder(TorchDispatchMode):
    """Notes every call that computes something."""

    def __init__(self, calls: list[NetworkCall], dtype: str = "") -> None:
        super().__init__()
        self.calls, self.dtype = calls, dtype

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func._schema.name == "aten::convolution":  # by weights that are channels-last, as cuDNN gives it
            result = torch.empty_like(result, memory_format=torch.channels_last)
        if not func.is_view and func._schema.name != "aten::_unsafe_view":
            self._note(func, args, kwargs, result)
        return result

    def _note(self, func, args, kwargs, result) -> None:
        inputs = [*args, *kwargs.values()]
        if not any(t.numel() for t in tensors_in([inputs, result])):
            return
        name = func._schema.name
        if self.dtype and name == "aten::_to_copy":  # of weights, which the integer networks have as they need them
            return
        dtype = self.dtype or next((str(t.dtype).removeprefix("torch.") for t in tensors_in([inputs, result])), "")
        size, operations = bytes_moved(inputs, result), flops(func, args, kwargs, result)
        self.calls.append(NetworkCall(name, dtype, args, size, operations))


class _NoPriors:
    """In place of the entropy networks, whose calls are noted by themselves: parameters of any value."""

    def __init__(self, config: ModelConfig, y: Tensor) -> None:
        self.config = config
        self.mean_exponent = torch.empty(config.latent, dtype=torch.int32, device="meta")
        self.zones, self.variances = (torch.empty(SCALE_LEVELS, device="meta") for _ in range(2))
        self._first, self._second, self._detail = (
            torch.empty(len(y), *y.shape[2:], channels, dtype=torch.int16, device="meta")
            for channels in ((3 if config.quant_step else 2) * config.latent, 2 * config.latent, config.detail)
        )

    def first(self, _z: Tensor, _height: int, _width: int) -> Tensor:
        return self._first

    def second(self, _values: Tensor, _first: Tensor) -> Tensor:
        return self._second

    def detail(self, _first: Tensor, _second: Tensor) -> Tensor:
        return self._detail


@contextmanager
def _as_on_cuda(low: torch.dtype | None) -> Iterator[None]:
    """Blocks take the kernels that only CUDA has, and see autocast to ``low``."""
    with (
        mock.patch.object(block_paths, "has_channel_kernels", lambda x: x.dtype != torch.float64),
        mock.patch.object(blocks, "autocast_dtype", return_value=low),
    ):
        yield


@torch.no_grad()
def network_calls(model: str, width: int, height: int, precision: str, batch: int = 1) -> dict[str, list[NetworkCall]]:
    """What a network calls for pictures of one size.

    Args:
        model: the name of a configuration.
        width, height: multiples of 64.
        precision: ``"float32"``, or ``"bfloat16"`` for calls as autocast makes them.

    Returns:
        The calls in their order, by part: ``analysis``, ``synthesis``, ``hyper analysis``, ``entropy networks``, and
            ``encode steps`` and ``decode steps``, what is between latents and coder. Entropy networks are those in
            floating point, whose shapes the integer ones share, with two bytes for each number.

    Raises:
        ValueError: an unknown model, or sides that are no multiples of 64.
    """
    if width % 64 or height % 64 or min(width, height) < 64:
        raise ValueError(f"width and height must be multiples of 64, got {width} x {height}")
    with torch.device("meta"):
        network = AICR(model).eval().to(memory_format=torch.channels_last)
        picture = torch.empty(batch, 3, height, width).contiguous(memory_format=torch.channels_last)
        quality = torch.empty(batch, dtype=torch.long)
        latents = torch.empty(batch, network.config.components, height // 16, width // 16)
        z = torch.empty(batch, network.config.hyper, height // 64, width // 64)
        analysed = torch.cat([latents] * (2 if network.config.wiener_filter else 1), 1)
        latents, analysed, z = (t.contiguous(memory_format=torch.channels_last) for t in (latents, analysed, z))
        y, detail = (part.contiguous(memory_format=torch.channels_last) for part in network.y_and_detail(latents))
        symbols = [torch.empty(part.numel() // 2, dtype=torch.int16) for part in (y, y, detail, detail)]
    priors = _NoPriors(network.config, y)
    low = torch.bfloat16 if precision == "bfloat16" else None
    analysis, synthesis = (with_cast_weights(part, precision) for part in (network.analysis, network.synthesis))

    def entropy_networks() -> None:
        parameters = network.first_parameters(z, *y.shape[2:])
        network.second_parameters(y, parameters)
        if network.config.detail:
            network.detail_parameters(y)

    def encode_steps() -> None:
        steps = Steps(priors, z, *y.shape[2:])
        for step in range(steps.count):
            symbols, _ = steps.quantise(analysed)
            if step + 1 < steps.count:
                steps.accept(symbols)

    def decode_steps() -> None:
        steps = Steps(priors, z, *y.shape[2:])
        for decoded in symbols[: steps.count]:
            steps.index()
            steps.accept(decoded)
        steps.latents()

    parts: dict[str, tuple[Callable[[], object], torch.dtype | None, str]] = {
        "analysis": (partial(analysis, picture, quality, synthesis=synthesis), low, ""),
        "hyper analysis": (partial(network.hyper_analysis, y), None, ""),
        "entropy networks": (entropy_networks, torch.bfloat16, "int16"),
        "encode steps": (encode_steps, None, ""),
        "decode steps": (decode_steps, None, ""),
        "synthesis": (partial(synthesis, latents, quality), low, ""),
    }
    found: dict[str, list[NetworkCall]] = {}
    for name, (call, cast, dtype) in parts.items():
        found[name] = []
        with _as_on_cuda(cast), _Recorder(found[name], dtype), _Autocast(cast):
            call()
    return found
