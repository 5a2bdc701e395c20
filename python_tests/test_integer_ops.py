"""The integer operators: native results equal the definitions bit for bit, and the definitions mean what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from integer_cases import asinh_case, cases, differences, draw, linear_case
from op_cases import assert_same_bits, with_threads

from aicr_ext import _native
from aicr_ext.codec.fixed_point import asinh_table
from aicr_ext.ops.integer import integer_asinh, integer_depthwise, integer_gate, integer_linear, integer_sum
from aicr_ext.ops.kernels import plain_torch

needs_native = pytest.mark.skipif(not _native.HAS_OPS, reason="native operators not built")


@needs_native
def test_kernels_equal_their_definitions():
    assert differences() == []


@needs_native
@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same_bits(isa):
    program = Path(__file__).parent / "integer_cases.py"
    done = subprocess.run(
        [sys.executable, str(program)], env={**os.environ, "AICR_ISA": isa}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_native
def test_threads_change_nothing():
    arguments = linear_case(3, (500,), 64, 96, True)
    assert_same_bits(with_threads(lambda: integer_linear(*arguments)))


@needs_native
@pytest.mark.parametrize("name", sorted({name for name, _ in cases()}))
def test_the_compiler_knows_them(name):
    arguments = next(given for case, given in cases() if case == name)
    arguments = (*arguments, *[None] * (2 if len(arguments) == 5 else 0))
    torch.library.opcheck(getattr(torch.ops.aicr_ext, name), arguments)


@needs_native
@pytest.mark.parametrize("name", sorted({name for name, _ in cases()}))
def test_the_compiler_knows_the_layout_of_results(name):
    arguments = next(given for case, given in cases() if case == name and given[0].dim() > 1)
    arguments = (*arguments, *[None] * (2 if len(arguments) == 5 else 0))
    first = arguments[0].transpose(0, -1).contiguous().transpose(0, -1)
    torch.library.opcheck(getattr(torch.ops.aicr_ext, name), (first, *arguments[1:]), test_utils="test_faketensor")


@pytest.mark.gpu
@pytest.mark.skipif(not (torch.cuda.is_available() and _native.HAS_CUDA_OPS), reason="no GPU")
def test_cuda_equals_the_cpu():
    for name, arguments in cases():
        on_device = [a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments]
        rest = [None] * (2 if len(arguments) == 5 else 0)
        op = getattr(torch.ops.aicr_ext, name)
        assert torch.equal(op(*on_device, *rest).cpu(), op(*arguments, *rest)), name


def test_linear_is_a_matrix_product_with_all_that_follows():
    x = torch.tensor([[100, -50]], dtype=torch.int16)
    weight = torch.tensor([[[3, 4], [-3, -4], [3, 4]]], dtype=torch.int16)  # one pair of inputs, three outputs
    bias = torch.tensor([5, 0, 5], dtype=torch.int32)  # sums: 105, -100, 105
    shift, slope = torch.tensor([1, 2, 3]).int(), torch.tensor([32768, 3277, 32768]).int()
    expected = [[53, -3, 13]]  # 52.5 up; -25 * 3277 / 32768 = -2.5001; 13.125
    assert integer_linear(x, weight, bias, shift, slope).tolist() == expected
    residual = torch.tensor([[7, 7, 32767]], dtype=torch.int16)
    summed = integer_linear(x, weight, bias, shift, slope, residual, torch.tensor([1, -2, 0]).int())
    assert summed.tolist() == [[57, 25, 32767]]


def test_depthwise_is_a_convolution():
    generator = torch.Generator().manual_seed(1)
    x = draw(generator, (5, 6, 3), -100, 100, torch.int16)
    weight = draw(generator, (9, 3), -50, 50, torch.int16)
    bias = draw(generator, (3,), -99, 99, torch.int32)
    kernels = weight.T.reshape(3, 1, 3, 3).double()
    plain = torch.nn.functional.conv2d(x.permute(2, 0, 1)[None].double(), kernels, bias.double(), padding=1, groups=3)
    expected = torch.floor(plain[0].permute(1, 2, 0) / 16 + 0.5).to(torch.int16)
    assert torch.equal(integer_depthwise(x, weight, bias, torch.full((3,), 4).int()), expected)


def test_halves():
    x = torch.tensor([[30000, -3, 5000, 7]], dtype=torch.int16)
    assert integer_sum(x).tolist() == [[32767, 4]]
    assert integer_gate(x, 1).tolist() == [[32767, -10]]  # -10.5, halves up


def test_asinh_is_near():
    value, exponent, table = asinh_case(2, 4000, 13)
    exact = torch.asinh(value.double() / torch.exp2(exponent.double()))
    ours = integer_asinh(value, exponent, table).double() / 2**11
    assert (ours - exact).abs().max() < 3e-4
    zero = torch.zeros(1, 1, dtype=torch.int32)
    assert integer_asinh(zero, torch.zeros(1, dtype=torch.int32), table).item() == 0
    assert torch.equal(integer_asinh(-value, exponent, table), -integer_asinh(value, exponent, table))


def test_the_table_is_asinh():
    octave, place = torch.arange(1025).double().div(64, rounding_mode="floor"), torch.arange(1025).double() % 64
    expected = torch.asinh(torch.exp2(octave) * (1 + place / 64) - 1) * 2**16
    assert (asinh_table() - expected).abs().max() <= 0.5000001


@needs_native
@pytest.mark.parametrize(
    "change, message",
    [
        ({0: torch.zeros(3, 4)}, "x must be Short"),
        ({0: torch.zeros(3, 6, dtype=torch.int16)}, r"expected x \(..., K\) and weight"),
        ({2: torch.zeros(4, dtype=torch.int32)}, r"bias must have the shape \(5,\)"),
        ({3: torch.zeros(5)}, "shift must be Int"),
        ({5: torch.zeros(3, 4, dtype=torch.int16)}, "residual must have the shape of the result"),
        ({6: None}, "residual and residual_shift come together"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = list(linear_case(0, (3,), 4, 5, True))
    for place, value in change.items():
        arguments[place] = value
    with pytest.raises(RuntimeError, match=message):
        integer_linear(*arguments)


@needs_native
def test_bad_halves_are_named():
    odd = torch.zeros(2, 3, dtype=torch.int16)
    with pytest.raises(RuntimeError, match="integer_sum: x must have an even number of channels"):
        integer_sum(odd)
    with pytest.raises(RuntimeError, match="integer_gate: shift must be 1 to 30, got 31"):
        integer_gate(odd[:, :2], 31)


def test_definitions_serve_where_no_kernel_is(monkeypatch):
    arguments = linear_case(5, (9,), 16, 24, True)
    expected = integer_linear(*arguments)
    with plain_torch():
        assert torch.equal(integer_linear(*arguments), expected)
