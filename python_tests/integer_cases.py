"""Arguments of the integer operators, and a program that compares every one with its definition.

As a program (``python integer_cases.py``) it runs under whatever AICR_ISA says, in a process of its own, because an
instruction set is chosen once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from seeds import SEED
from torch import Tensor

from aicr_ext.codec.fixed_point import asinh_table
from aicr_ext.ops import integer
from aicr_ext.ops.kernels import plain_torch

LIMIT = 32767


def draw(generator: torch.Generator, shape: tuple[int, ...], low: int, high: int, dtype: torch.dtype) -> Tensor:
    """Integers from ``low`` to ``high``."""
    return torch.randint(low, high + 1, shape, generator=generator, dtype=torch.int64).to(dtype)


def extreme(generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    """int16, half of them at a limit, zero or one."""
    values = draw(generator, shape, -LIMIT, LIMIT, torch.int16)
    corners = torch.tensor([-LIMIT, -1, 0, 1, LIMIT], dtype=torch.int16)
    corners = corners[torch.randint(0, 5, shape, generator=generator)]
    return torch.where(torch.rand(shape, generator=generator) < 0.5, values, corners)


def linear_case(seed: int, pixels: tuple[int, ...], inputs: int, outputs: int, residual: bool) -> tuple:
    """Arguments of integer_linear whose sums use all of int32 and never leave it."""
    generator = torch.Generator().manual_seed(SEED + seed)
    shift = draw(generator, (outputs,), 1, 31, torch.int32)
    budget = (2**31 - 2**30 - 1) // LIMIT  # so much for the absolute weights of an output
    weight = draw(generator, (outputs, inputs), -LIMIT, LIMIT, torch.int64).double()
    weight *= torch.clamp(budget * torch.rand(outputs, 1, generator=generator) / weight.abs().sum(1, True), max=1)
    weight = weight.trunc().to(torch.int16)
    left = 2**31 - 2**30 - 1 - weight.long().abs().sum(1) * LIMIT
    bias = (left.double() * (2 * torch.rand(outputs, generator=generator).double() - 1)).to(torch.int32)
    slope = torch.tensor([32768, 3277, 328, 0], dtype=torch.int32)[draw(generator, (outputs,), 0, 3, torch.int64)]
    arguments = (
        extreme(generator, (*pixels, inputs)),
        weight.T.unflatten(0, (-1, 2)).transpose(1, 2).contiguous(),
        bias,
        shift,
        slope,
    )
    if not residual:
        return arguments
    return (
        *arguments,
        extreme(generator, (*pixels, outputs)),
        draw(generator, (outputs,), -15, 15, torch.int32),
    )


def bounds_case() -> tuple:
    """Arguments of integer_linear whose sums, with what rounding adds, reach either end of int32."""
    lowest = -LIMIT - 1
    x = torch.tensor([[LIMIT, LIMIT], [-LIMIT, -LIMIT], [LIMIT, lowest], [lowest, LIMIT], [lowest, 255], [-256, -1]])
    weight = torch.tensor([[LIMIT, LIMIT], [-LIMIT, LIMIT], [-LIMIT, -LIMIT], [lowest, 0], [-1, lowest], [128, -129]])
    weight = weight.repeat_interleave(2, 0)  # for both ends
    sums, half = x @ weight.T, 1 << 3
    bias = torch.where(torch.arange(len(weight)) % 2 == 0, 2**31 - 1 - half - sums.amax(0), -(2**31) - sums.amin(0))
    shift, slope = (torch.full((len(weight),), value, dtype=torch.int32) for value in (4, 1 << 15))
    pairs = weight.T.unflatten(0, (-1, 2)).transpose(1, 2).to(torch.int16).contiguous()
    return x.to(torch.int16), pairs, bias.to(torch.int32), shift, slope


def asinh_case(seed: int, pixels: int, channels: int) -> tuple:
    """Arguments of integer_asinh of every magnitude it takes."""
    generator = torch.Generator().manual_seed(SEED + seed)
    exponent = draw(generator, (channels,), 0, 12, torch.int32)
    size = 16 * torch.rand((pixels, channels), generator=generator) + exponent
    value = torch.exp2(size.double()) * torch.sign(torch.rand((pixels, channels), generator=generator).double() - 0.5)
    return value.to(torch.int32), exponent, asinh_table()


def cases() -> Iterator[tuple[str, tuple]]:
    """Operators by name, with arguments: whole and broken tiles, one pixel and none, extremes."""
    shapes = [(1, 2, 1), (5, 64, 64), (7, 30, 70), (13, 192, 384), (48, 66, 16), (97, 8, 129), (0, 4, 20), (3, 0, 5)]
    for number, (rows, inputs, outputs) in enumerate(shapes):
        for residual in (False, True):
            yield "integer_linear", linear_case(number, (rows,), inputs, outputs, residual)
    yield "integer_linear", linear_case(20, (3, 5), 34, 48, True)
    yield "integer_linear", bounds_case()
    generator = torch.Generator().manual_seed(SEED)
    for height, width, channels in ((1, 1, 1), (3, 4, 70), (17, 2, 64), (2, 9, 5), (0, 3, 4)):
        weight = draw(generator, (9, channels), -7000, 7000, torch.int16)
        bias = draw(generator, (channels,), -(2**16), 2**16, torch.int32)
        shift = draw(generator, (channels,), 1, 20, torch.int32)
        yield "integer_depthwise", (extreme(generator, (height, width, channels)), weight, bias, shift)
    for shape in ((1, 2), (5, 7, 66), (300, 128), (0, 4)):
        yield "integer_sum", (extreme(generator, shape),)
        for shift in (1, 9, 30):
            yield "integer_gate", (extreme(generator, shape), shift)
    yield "integer_asinh", asinh_case(1, 500, 37)


def differences() -> list[str]:
    """Operators whose native result is not their definition's, or that have none."""
    found = []
    for name, arguments in cases():
        native = getattr(torch.ops.aicr_ext, name)(*arguments, *[None] * (2 if len(arguments) == 5 else 0))
        with plain_torch():
            expected = getattr(integer, name)(*arguments)
        if native.dtype != expected.dtype or not torch.equal(native, expected):
            found.append(f"{name} {[tuple(a.shape) if isinstance(a, Tensor) else a for a in arguments]}")
    return found


if __name__ == "__main__":
    wrong = differences()
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))
