"""The operators' CUDA kernels, run on the host: right answers in every order of threads, and none left out."""

from __future__ import annotations

import re
from pathlib import Path

import attention_cases
import cuda_cases
import integer_cases
import latent_cases
import pytest
import rans_cases
import torch
from emulation import SEEDS, emulated, launches, requires_emulation, seeded
from op_cases import LAYOUTS, VIEWS, assert_no_worse

from aicr_ext.ops.layout import preferred_layout
from aicr_ext.ops.reference import decoupled_attention_reference

pytestmark = requires_emulation

CUDA = Path(__file__).parent.parent / "csrc" / "cuda"
#: Kernels that cannot run on the host, with the reason.
EXCEPTIONS: dict[str, str] = {}


def calls():
    """A call of every operator that has a CUDA kernel; together they launch all kernels."""
    maps = attention_cases.arguments((1, 3, 5, 6))
    yield "decoupled_attention", maps
    yield "decoupled_attention_backward", (maps[1], *maps)
    for name in sorted({name for name, _ in integer_cases.cases()}):
        yield name, filled(name, next(given for case, given in integer_cases.cases() if case == name))
    for shape, width in latent_cases.SHAPES[:3]:
        yield from latent_cases.calls_of(latent_cases.drawn(shape, width))
    for operator in cuda_cases.OPERATORS:
        for layout in LAYOUTS:
            yield operator.name, cuda_cases.example(operator, torch.float32, layout, "emulated")
    yield "fold_channel_attention", cuda_cases.fold_arguments()
    batch = rans_cases.even([140], 2)
    yield "rans_encode", (batch.symbols, batch.index, batch.tables, batch.splits, 0)
    data, ends = batch.encode()
    state = emulated("rans_decode_begin")(data, ends)
    yield "rans_decode_begin", (data, ends)
    yield "rans_decode_step", (state, data, batch.index[0], batch.tables[0], batch.splits[0])
    yield "rans_decode_end", (state, data)


def filled(name, arguments):
    """With what the schema has beyond them: no residual."""
    return (*arguments, *[None] * (2 if name == "integer_linear" and len(arguments) == 5 else 0))


def test_every_kernel_runs():
    """Both ways: a kernel that no call launches, and a launch that the source does not show."""
    declaration = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\(")
    there = {name for path in CUDA.glob("*.cu*") for name in declaration.findall(path.read_text(encoding="utf-8"))}
    assert len(there) >= 6
    before = launches()
    for name, arguments in calls():
        emulated(name)(*arguments)
    ran = {name for name, count in launches().items() if count > before.get(name, 0)}
    assert ran == there - set(EXCEPTIONS)
    assert set(EXCEPTIONS) <= there


def test_every_operator_is_called():
    registered = re.findall(r'library\.impl\("(\w+)"', (CUDA.parent / "bindings" / "ops_cuda.cpp").read_text())
    assert {name for name, _ in calls()} == set(registered)


def test_the_package_does_not_load_it():
    """Wheels lack it, so nothing may lean on it but tests."""
    sources = (CUDA.parent.parent / "aicr_ext").rglob("*.py")
    assert not [path for path in sources if "_emulated" in path.read_text(encoding="utf-8")]


def check_attention(args):
    out = emulated("decoupled_attention")(*args)
    exact = decoupled_attention_reference(*(a.double() for a in args))
    assert out.dtype == args[0].dtype
    assert out.is_contiguous(memory_format=preferred_layout(args[0]))
    assert_no_worse(out, decoupled_attention_reference(*args), exact)
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("taps", [3, 5, 7])
def test_attention(taps, dtype, layout):
    for shape in attention_cases.SHAPES:
        check_attention(attention_cases.arguments(shape, taps, dtype, layout=layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_attention_in_every_order(layout):
    args = attention_cases.arguments((1, 8, 40, 70), layout=layout)
    results = []
    for seed in SEEDS:
        with seeded(seed):
            results.append(check_attention(args))
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("view", VIEWS)
def test_attention_of_views(view, layout):
    attn, value, _, _ = attention_cases.arguments((3, 16, 12, 14), layout=layout)
    attn, value = view(attn), view(value)
    _, _, row, col = attention_cases.arguments((1, attn.shape[1], 1, 1))
    check_attention((attn, value, row, col))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_attention_with_float32_weights(dtype):
    check_attention(attention_cases.arguments((2, 8, 20, 20), 5, dtype, weight_dtype=torch.float32))


@pytest.mark.parametrize("shape", [(0, 8, 4, 4), (2, 0, 4, 4), (2, 8, 0, 4), (2, 8, 4, 0)], ids=str)
def test_attention_of_nothing(shape):
    assert emulated("decoupled_attention")(*attention_cases.arguments(shape)).shape == shape


def test_attention_refuses_what_has_no_kernel():
    with pytest.raises(RuntimeError, match="attn must be float32, bfloat16 or float16 on CUDA"):
        emulated("decoupled_attention")(*attention_cases.arguments((1, 2, 3, 3), dtype=torch.float64))


@pytest.mark.parametrize("seed", SEEDS)
def test_integer_operators_equal_the_cpu(seed):
    with seeded(seed):
        for name, arguments in integer_cases.cases():
            arguments = filled(name, arguments)
            expected = getattr(torch.ops.aicr_ext, name)(*arguments)
            assert torch.equal(emulated(name)(*arguments), expected), name


@pytest.mark.parametrize("rows, inputs, outputs, residual", [(32641, 72, 8, True), (3, 200, 16384, False)])
def test_large_tiles_of_integer_linear(rows, inputs, outputs, residual):
    arguments = filled("integer_linear", integer_cases.linear_case(9, (rows,), inputs, outputs, residual))
    assert torch.equal(emulated("integer_linear")(*arguments), torch.ops.aicr_ext.integer_linear(*arguments))


@pytest.mark.parametrize("shift", [1, 2, 4])
@pytest.mark.parametrize("place", [0, 1, 2, 5])
def test_integer_linear_of_views(place, shift):
    """Each matrix by itself may begin where no vector does."""
    arguments = list(integer_cases.linear_case(11, (70,), 64, 72, True))
    moved = torch.cat([arguments[place].flatten()[:shift], arguments[place].flatten()])
    arguments[place] = moved[shift:].view(arguments[place].shape)
    assert torch.equal(emulated("integer_linear")(*arguments), torch.ops.aicr_ext.integer_linear(*arguments))


def test_integer_linear_of_an_odd_view():
    """Where numbers are read in pairs, a view that begins between two of them is copied; a sanitizer sees if not."""
    x, weight, *rest = integer_cases.linear_case(3, (7,), 30, 70, False)
    x, weight = (torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape) for t in (x, weight))
    arguments = filled("integer_linear", (x, weight, *rest))
    assert torch.equal(emulated("integer_linear")(*arguments), torch.ops.aicr_ext.integer_linear(*arguments))


@pytest.mark.parametrize("seed", SEEDS)
def test_coding_steps_equal_the_cpu(seed):
    with seeded(seed):
        for name, arguments in latent_cases.cases():
            check_coding_step(name, arguments)


@pytest.mark.parametrize("places", [1, 2, 4])
def test_coding_steps_of_views(places):
    """Each argument by itself may begin where no vector does."""
    given = latent_cases.drawn(*latent_cases.SHAPES[1])
    for name in given:
        for call, arguments in latent_cases.calls_of(latent_cases.moved(given, name, places)):
            check_coding_step(call, arguments)


def check_coding_step(name, arguments):
    ours, expected = emulated(name)(*arguments), getattr(torch.ops.aicr_ext, name)(*arguments)
    if isinstance(ours, torch.Tensor):
        ours, expected = [ours], [expected]
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == other.dtype, name
        assert torch.equal(one, other), name
