"""The blocks as operators of torch: ``torch.ops.aicr_ext.transposed_attention``, ``spatial_attention`` and
``gated_convolutions``, with their derivatives.

They are the compositions of :mod:`aicr_ext.ops.blocks` on every device, as one node of a graph: for the backward pass
only the arguments are kept, and :mod:`aicr_ext.ops.block_backward` computes the rest again. The last argument is the
dtype of convolutions and products; under autocast it is autocast's where it is None. A derivative has the dtypes of its
forward pass, under autocast or not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import block_backward, blocks
from .autocast import outside_autocast
from .layout import preferred_layout

__all__: list[str] = []

#: Devices whose autocast an operator asks for its dtype; :mod:`aicr_ext.ops.blocks` asks that of any other.
_AUTOCAST = {"AutocastCPU": "cpu", "AutocastCUDA": "cuda", "AutocastMPS": "mps", "AutocastXPU": "xpu"}
_TYPES = {"Tensor": "Tensor", "Tensor | None": "Tensor?", "int": "int", "bool": "bool", "float": "float"}
_TYPES |= {"float | None": "float?", "torch.dtype | None": "ScalarType?"}

_library = torch.library.Library("aicr_ext", "FRAGMENT")


def _schema(function: Callable[..., Any]) -> str:
    """The arguments of a schema, from the annotations of a function."""
    return ", ".join(f"{_TYPES[kind]} {name}" for name, kind in _arguments(function).items())


def _arguments(function: Callable[..., Any]) -> dict[str, str]:
    """Names and annotations of the arguments by position; operators do not have the others."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.annotation for p in parameters if p.kind is not p.KEYWORD_ONLY}


def _register(
    name: str,
    composed: Callable[..., Tensor],
    backward: Callable[..., list[Tensor]],
    flops: Callable[..., int],
) -> None:
    """Schema, implementations, fakes, derivative, autocast rule and FLOP formulas of one operator and its backward.

    Args:
        flops: of the forward operator, from shapes where there are tensors.
    """
    parameters = _arguments(composed)
    kinds = list(parameters.values())
    tensors = [i for i, kind in enumerate(kinds) if kind.startswith("Tensor")]
    residual = list(parameters).index("residual") if "residual" in parameters else None
    out_channels = list(parameters).index("project_out")

    def forward(*arguments: Any) -> Tensor:
        return composed(*arguments).contiguous(memory_format=preferred_layout(arguments[0]))

    def fake(*arguments: Any) -> Tensor:
        x, low = arguments[0], arguments[-1] or arguments[0].dtype
        added = residual is None or arguments[residual]
        size = (x.shape[0], arguments[out_channels].shape[0], *x.shape[2:])
        dtype = torch.promote_types(x.dtype, low) if added else low
        return torch.empty(size, dtype=dtype, device=x.device, memory_format=preferred_layout(x))

    def fake_backward(grad: Tensor, *arguments: Any) -> list[Tensor]:
        x = arguments[0]
        given = [arguments[i] for i in tensors]
        return [
            x.new_empty(0) if t is None else torch.empty_like(t, memory_format=torch.contiguous_format) for t in given
        ]

    def keep_arguments(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*(inputs[i] for i in tensors))
        ctx.options = [value for i, value in enumerate(inputs) if i not in tensors]

    def arguments_of(ctx: Any) -> list[Any]:
        saved, options = iter(ctx.saved_tensors), iter(ctx.options)
        return [next(saved if i in tensors else options) for i in range(len(kinds))]

    @outside_autocast
    def derivative(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        arguments, needed = arguments_of(ctx), ctx.needs_input_grad
        gradients: list[Tensor | None] = [None] * len(kinds)
        if torch.is_grad_enabled():  # to be differentiated again: through operations that have derivatives
            wanted = [i for i in tensors if needed[i]]
            found = torch.autograd.grad(
                composed(*arguments), [arguments[i] for i in wanted], grad, create_graph=True, allow_unused=True
            )
            for i, gradient in zip(wanted, found, strict=True):
                gradients[i] = gradient
        else:
            found = getattr(torch.ops.aicr_ext, f"{name}_backward")(grad, *arguments)
            for i, gradient in zip(tensors, found, strict=True):
                gradients[i] = gradient if needed[i] else None
        return tuple(gradients)

    def under_autocast(device: str) -> Callable[..., Tensor]:
        def call(*arguments: Any) -> Tensor:
            # Defaults at the end are left out of what the dispatcher hands over.
            low = arguments[-1] if len(arguments) == len(kinds) else None
            if low is None and arguments[0].dtype != torch.float64:
                low = torch.get_autocast_dtype(device)
            with torch.autocast(device, enabled=False):
                return getattr(torch.ops.aicr_ext, name)(*arguments[: len(kinds) - 1], low)

        return call

    def flops_backward(grad: Any, *arguments: Any, out_shape: Any = None, **_: Any) -> int:
        """The forward pass again, and the gradients of maps and of weights."""
        return 3 * flops(*arguments)

    arguments = _schema(composed)
    _library.define(f"{name}({arguments}=None) -> Tensor")
    _library.define(f"{name}_backward(Tensor grad, {arguments}=None) -> Tensor[]")
    every_device = "CompositeExplicitAutograd"
    _library.impl(name, _with_default(outside_autocast(forward), len(kinds)), every_device)
    _library.impl(f"{name}_backward", _with_default(outside_autocast(backward), len(kinds) + 1), every_device)
    for key, device in _AUTOCAST.items():
        _library.impl(name, under_autocast(device), key)
    torch.library.register_fake(f"aicr_ext::{name}", _with_default(fake, len(kinds)), lib=_library)
    torch.library.register_fake(
        f"aicr_ext::{name}_backward", _with_default(fake_backward, len(kinds) + 1), lib=_library
    )
    torch.library.register_autograd(f"aicr_ext::{name}", derivative, setup_context=keep_arguments, lib=_library)
    register_flop_formula(getattr(torch.ops.aicr_ext, name))(flops)
    register_flop_formula(getattr(torch.ops.aicr_ext, f"{name}_backward"))(flops_backward)


def _with_default(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The dispatcher leaves out a last argument that has its default, None."""

    def call(*arguments: Any) -> Any:
        return function(*arguments, *[None] * (count - len(arguments)))

    return call


def _transposed_attention_flops(*arguments: Any, out_shape: Any = None, **_: Any) -> int:
    """Two operations per product of the convolutions, of the Gram matrix and of the folded projection."""
    x, dwconv, project_out, groups = arguments[0], arguments[6], arguments[9], arguments[11]
    batch, c, height, width = x
    taps = 0 if dwconv is None else 9
    per_pixel = 3 * c * (c + taps) + c * c // groups + c * project_out[0]
    return 2 * batch * (height * width * per_pixel + project_out[0] * c * c // groups)


def _spatial_attention_flops(*arguments: Any, out_shape: Any = None, **_: Any) -> int:
    """Two operations per product of the convolutions."""
    batch, c, height, width = arguments[0]
    return 2 * batch * height * width * c * (3 * c + 2 * arguments[4][3])


def _gated_convolutions_flops(*arguments: Any, out_shape: Any = None, **_: Any) -> int:
    """Two operations per product of the convolutions."""
    (batch, c, height, width), project_out = arguments[0], arguments[7]
    hidden = project_out[1]
    return 2 * batch * height * width * hidden * (2 * c + 2 * 9 + project_out[0])


_register(
    "transposed_attention",
    blocks.composed_transposed_attention,
    block_backward.transposed_attention_backward,
    _transposed_attention_flops,
)
_register(
    "spatial_attention",
    blocks.composed_spatial_attention,
    block_backward.spatial_attention_backward,
    _spatial_attention_flops,
)
_register(
    "gated_convolutions",
    blocks.composed_gated_convolutions,
    block_backward.gated_convolutions_backward,
    _gated_convolutions_flops,
)
