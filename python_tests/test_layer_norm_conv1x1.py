"""The operator layer_norm_conv1x1: tilings of its kernel, derivatives, registration, and its use in the blocks."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
import torch
from cuda_cases import DTYPES, PLACES, draw, named, projected_arguments, run, wide
from emulation import SEEDS, requires_emulation, seeded
from op_cases import LAYOUTS, assert_no_worse, requires_ops
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from aicr_ext import _native
from aicr_ext.ops import (
    Norm,
    block_paths,
    blocks,
    layer_norm2d,
    layer_norm_conv1x1,
    layer_norm_conv1x1_pair,
    pointwise_convolution,
)
from aicr_ext.ops.kernels import plain_torch
from aicr_ext.ops.layer_norm_conv1x1 import MOST_CHANNELS
from aicr_ext.ops.layout import preferred_layout
from aicr_ext.ops.reference import layer_norm_conv1x1_reference

OPERATOR = "layer_norm_conv1x1"
everywhere = pytest.mark.parametrize("place", PLACES)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
both = pytest.mark.parametrize("second", [0, 5], ids=["one", "two"])


def arguments(shape=(2, 12, 5, 6), outputs=7, second=0, biases=True, dtype=torch.float32, layout="nchw", place="cpu"):
    x, *rest = projected_arguments(shape, outputs, second, biases)
    device = "cuda" if place == "cuda" else "cpu"
    rest = [a.to(device, dtype) if isinstance(a, torch.Tensor) else a for a in rest]
    return (x.to(device, dtype).contiguous(memory_format=LAYOUTS[layout]), *rest)


def check(args, place):
    out = run(OPERATOR, args, place)
    eager, exact = layer_norm_conv1x1_reference(*args), layer_norm_conv1x1_reference(*wide(args))
    for ours, theirs, true in zip(out, eager, exact, strict=True):
        assert_no_worse(ours, theirs, true)
    return out


# The kernel


@everywhere
@every_layout
@pytest.mark.parametrize("dtype", DTYPES, ids=named)
@pytest.mark.parametrize("pixels", [(64, 513), (64, 520)], ids=["odd", "even"])
def test_large_tiles(pixels, dtype, layout, place):
    """From 65536 pixels on, of float32 32768, a block has more of them; 520 columns are whole vectors."""
    rows = pixels[0] if dtype == torch.float32 else 2 * pixels[0]
    check(arguments((1, 8, rows, pixels[1]), 16, 0, True, dtype, layout, place), place)


@everywhere
@every_layout
@pytest.mark.parametrize("dtype", DTYPES, ids=named)
@pytest.mark.parametrize("channels", [200, 264, 384])
def test_many_channels(channels, dtype, layout, place):
    """Several pieces of weights for each tile of outputs."""
    check(arguments((1, channels, 9, 8), 136, 64, True, dtype, layout, place), place)


@everywhere
@every_layout
@pytest.mark.parametrize("dtype", DTYPES, ids=named)
def test_weights_that_are_not_aligned(dtype, layout, place):
    x, norm, norm_bias, weight, bias, *rest = arguments((1, 16, 8, 9), 24, 8, True, dtype, layout, place)
    memory = torch.empty(weight.numel() + 1, dtype=dtype, device=weight.device)
    weight = memory[1:].as_strided(weight.shape, weight.stride(), 1).copy_(weight)
    check((x, norm, norm_bias, weight, bias, *rest), place)


@everywhere
@every_layout
@pytest.mark.parametrize("dtype", DTYPES, ids=named)
def test_the_two_results_are_those_of_calls_of_their_own(dtype, layout, place):
    args = arguments((2, 24, 7, 9), 72, 40, True, dtype, layout, place)
    first, second = run(OPERATOR, args, place)
    assert torch.equal(first, run(OPERATOR, (*args[:5], None, None, *args[7:]), place)[0])
    assert torch.equal(second, run(OPERATOR, (*args[:3], *args[5:7], None, None, *args[7:]), place)[0])


@everywhere
@every_layout
@pytest.mark.parametrize("dtype", DTYPES, ids=named)
def test_normalised_values_are_those_of_the_norm(dtype, layout, place):
    """Rounded as they are: multiplied by one, they come out. Its sums have another order, so a few differ."""
    x, norm, norm_bias, *_ = arguments((2, 40, 9, 11), 1, 0, True, dtype, layout, place)
    one = torch.eye(40, dtype=dtype, device=x.device)[:, :, None, None]
    out, _ = run(OPERATOR, (x, norm, norm_bias, one, None, None, None, True, 1e-5), place)
    (expected,) = run("layer_norm2d", (x, norm, norm_bias, True, 1e-5), place)
    torch.testing.assert_close(out, expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    assert dtype == torch.float32 or (out != expected).float().mean() < 0.01


@requires_emulation
@every_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=named)
def test_in_any_order_of_threads(dtype, layout):
    """Where outputs are shared by blocks, and weights come in pieces."""
    args = arguments((1, 136, 5, 9), 200, 64, True, dtype, layout)
    results = []
    for seed in (*SEEDS, SEEDS[0]):
        with seeded(seed):
            results.append(run(OPERATOR, args, "emulated"))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@everywhere
def test_without_outputs(place):
    x, norm, norm_bias, weight, *_, subtract_mean, eps = arguments(place=place)
    out, second = run(OPERATOR, (x, norm, norm_bias, weight[:0], None, None, None, subtract_mean, eps), place)
    assert out.shape == (2, 0, 5, 6)
    assert second.shape == (0,)


@everywhere
def test_too_many_channels_are_refused(place):
    args = arguments((1, MOST_CHANNELS + 1, 2, 2), place=place)
    with pytest.raises(RuntimeError, match="layer_norm_conv1x1: x may have 384 channels on CUDA, got 385"):
        run(OPERATOR, args, place)


# The operator


def call(x, norm, norm_bias, weight, bias, second_weight, second_bias, subtract_mean, eps):
    """By the public functions."""
    options = {"norm_bias": norm_bias, "subtract_mean": subtract_mean, "eps": eps}
    if second_weight is None:
        return (layer_norm_conv1x1(x, norm, weight, bias, **options),)
    return layer_norm_conv1x1_pair(x, norm, (weight, bias), (second_weight, second_bias), **options)


def requiring_gradients(args):
    return [a.requires_grad_() if isinstance(a, torch.Tensor) else a for a in args]


@requires_ops
@every_layout
@both
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=named)
def test_matches_the_definition_on_the_cpu(dtype, second, layout):
    args = arguments((2, 24, 7, 9), 40, second, True, dtype, layout)
    out = call(*args)
    eager, exact = layer_norm_conv1x1_reference(*args), layer_norm_conv1x1_reference(*wide(args))
    for ours, theirs, true in zip(out, eager, exact, strict=False):
        assert ours.dtype == dtype
        assert ours.is_contiguous(memory_format=preferred_layout(args[0]))
        assert_no_worse(ours, theirs, true)


@requires_ops
@every_layout
def test_the_bits_on_the_cpu_are_those_of_norm_and_convolution(layout):
    x, norm, norm_bias, weight, bias, *_ = arguments((2, 24, 7, 9), 40, layout=layout)
    normed = layer_norm2d(x, norm, bias=norm_bias, subtract_mean=True)
    assert torch.equal(
        layer_norm_conv1x1(x, norm, weight, bias, norm_bias=norm_bias, subtract_mean=True),
        pointwise_convolution(normed, weight, bias),
    )


@requires_ops
@every_layout
@both
@pytest.mark.parametrize("biases", [True, False])
def test_gradients(biases, second, layout):
    args = requiring_gradients(arguments((2, 3, 2, 3), 4, second, biases, torch.float64, layout))
    inputs = [a for a in args if isinstance(a, torch.Tensor)]

    def function(*tensors):
        given = iter(tensors)
        return call(*(next(given) if isinstance(a, torch.Tensor) else a for a in args))

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@requires_ops
def test_gradients_have_the_dtypes_of_their_tensors():
    x, *rest = arguments(second=5)
    args = requiring_gradients((x.bfloat16(), *rest))
    sum(out.float().sum() for out in call(*args)).backward()
    assert all(a.grad.dtype == a.dtype for a in args if isinstance(a, torch.Tensor))


@requires_ops
@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=named)
def test_derivatives_agree_with_those_of_the_definition(dtype, second):
    args = arguments((2, 24, 9, 10), 40, second, True, dtype)

    def gradients(function, dtype):
        own = [a.detach().to(dtype).requires_grad_() if isinstance(a, torch.Tensor) else a for a in args]
        out = [t for t in function(*own) if t.numel()]
        grads = [draw(*t.shape).to(t.dtype) for t in out]
        return torch.autograd.grad(out, [a for a in own if isinstance(a, torch.Tensor)], grads)

    ours, eager = gradients(call, dtype), gradients(layer_norm_conv1x1_reference, dtype)
    for triple in zip(ours, eager, gradients(layer_norm_conv1x1_reference, torch.float64), strict=True):
        assert_no_worse(*triple)


@requires_ops
def test_only_the_arguments_are_kept():
    args = requiring_gradients(arguments(second=5))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        call(*args)
    assert {t.data_ptr() for t in kept} == {a.data_ptr() for a in args if isinstance(a, torch.Tensor)}


@requires_ops
def test_autocast_changes_neither_results_nor_gradients():
    """Where gradients are formed under it, too."""
    args = arguments(second=5)

    def results(low):
        own = requiring_gradients([a.clone() if isinstance(a, torch.Tensor) else a for a in args])
        inputs = [a for a in own if isinstance(a, torch.Tensor)]
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            out = call(*own)
            first = torch.autograd.grad(sum(t.square().sum() for t in out), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        return [*out, *first, *second]

    low, expected = results(True), results(False)
    assert all(t.dtype == torch.float32 for t in low)
    assert all(map(torch.equal, low, expected))


def test_autocast_does_not_change_the_definition():
    args = arguments(second=5)
    with plain_torch(), torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, call(*args), layer_norm_conv1x1_reference(*args)))


@requires_ops
@both
@pytest.mark.parametrize("layout, biases", [("nchw", True), ("channels_last", False)])
def test_opcheck(layout, biases, second):
    args = arguments(second=second, biases=biases, layout=layout)
    op = torch.ops.aicr_ext.layer_norm_conv1x1.default
    torch.library.opcheck(op, (args[0][:, :, 1:3], *args[1:]), test_utils="test_faketensor")
    torch.library.opcheck(op, tuple(requiring_gradients(args)))


@requires_ops
def test_compile():
    x, *rest = arguments(second=5, layout="channels_last")

    def step(x):
        return sum(t.square().sum() for t in call(x * 2, *rest))

    ours, eager = (x.clone().requires_grad_() for _ in range(2))
    torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)(ours).backward()
    step(eager).backward()
    torch.testing.assert_close(ours.grad, eager.grad)


@requires_ops
@both
def test_flops(second):
    with FlopCounterMode(display=False) as count:
        call(*arguments(second=second))
    assert count.get_total_flops() == 2 * 2 * 5 * 6 * 12 * (7 + second)


def test_without_native_operators_the_definition_runs(monkeypatch):
    args = arguments(second=5)
    expected = layer_norm_conv1x1_reference(*args)
    with plain_torch():
        assert all(map(torch.equal, call(*args), expected))
    monkeypatch.setattr(_native, "HAS_OPS", False)
    assert all(map(torch.equal, call(*args), expected))


@requires_ops
def test_more_channels_go_back_to_norm_and_convolution(monkeypatch):
    """On CUDA, whose tensors here have no values."""
    monkeypatch.setattr(_native, "HAS_CUDA_OPS", True)
    module = sys.modules["aicr_ext.ops.layer_norm_conv1x1"]
    monkeypatch.setattr(module, "_one_after_the_other", lambda x, *_: ("one after the other",))

    def result(channels):
        x = torch.empty(1, channels, 4, 4, device="cuda")
        return layer_norm_conv1x1(x, x.new_empty(channels), x.new_empty(8, channels, 1, 1))

    with FakeTensorMode():
        assert result(MOST_CHANNELS).shape == (1, 8, 4, 4)
        assert result(MOST_CHANNELS + 1) == "one after the other"


# Its use


@pytest.fixture
def as_on_cuda(monkeypatch):
    """The branch that a GPU takes, its kernels run on the host; returns how often each operator was called."""
    calls = Counter()

    def emulate(name, arrange):
        def call(*args, **options):
            calls[name] += 1
            return arrange(args, options)

        monkeypatch.setattr(block_paths if name.startswith("layer_norm") else blocks, name, call)

    def normed(x, norm, *projections, norm_bias, subtract_mean, eps):
        empty = (None, None) if len(projections) == 2 else ()
        return run(OPERATOR, (x, norm, norm_bias, *projections, *empty, subtract_mean, eps), "emulated")

    monkeypatch.setattr(block_paths, "has_channel_kernels", lambda x: True)
    emulate("layer_norm_conv1x1", lambda a, o: normed(*a, **o)[0])
    emulate("layer_norm_conv1x1_pair", lambda a, o: normed(*a[:2], *a[2], *a[3], **o))
    emulate("depthwise_gram", lambda a, o: run("depthwise_gram", (*a, o["groups"]), "emulated"))
    emulate("fold_channel_attention", lambda a, _: run("fold_channel_attention", a, "emulated")[0])
    return calls


def block_calls(c, bias, layout, dtype):
    """Each block with a norm, and how often it calls the operator, for one convolution and for two."""

    def drawn(*size):
        return draw(*size).to(dtype) * size[1] ** -0.5 if len(size) == 4 else draw(*size).to(dtype)

    def projection(*size):
        return drawn(*size), drawn(size[0]) if bias else None

    x = draw(2, c, 9, 11).to(dtype).contiguous(memory_format=LAYOUTS[layout])
    norm = Norm(drawn(c), drawn(c) if bias else None, subtract_mean=bias)
    qkv, square = (projection(3 * c, c, 1, 1), projection(3 * c, 1, 3, 3)), projection(c, c, 1, 1)
    yield (
        lambda: blocks.transposed_attention(x, *qkv, drawn(3).abs(), square, groups=3, norm=norm, residual=True),
        (0, 1),
    )
    taps = (drawn(c, 1, 1, 5), drawn(c, 1, 5, 1))
    yield lambda: blocks.spatial_attention(x, norm.weight, square, *taps, square, square), (0, 1)
    gate = (projection(4 * c, c, 1, 1), projection(4 * c, 1, 3, 3), projection(c, 2 * c, 1, 1))
    yield lambda: blocks.gated_convolutions(x, *gate, norm=norm, residual=True), (1, 0)


@requires_emulation
@requires_ops
@every_layout
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=named)
def test_blocks_on_cuda(dtype, bias, layout, as_on_cuda, monkeypatch):
    with torch.no_grad():
        found = [(block(), dict(as_on_cuda), as_on_cuda.clear()) for block, _ in block_calls(24, bias, layout, dtype)]
        monkeypatch.undo()
        for (ours, calls, _), (block, expected) in zip(found, block_calls(24, bias, layout, dtype), strict=True):
            assert (calls.get("layer_norm_conv1x1", 0), calls.get("layer_norm_conv1x1_pair", 0)) == expected
            tolerance = 1e-4 if dtype == torch.float32 else 0.05
            torch.testing.assert_close(ours, block(), rtol=tolerance, atol=tolerance)


@requires_ops
def test_where_blocks_use_it(monkeypatch):
    x = torch.zeros(1, 32, 2, 2)
    low, half = x.bfloat16(), x.half()
    with torch.no_grad():
        assert not block_paths.fuses_norm(x, torch.float32)  # the CPU has strips
        monkeypatch.setattr(block_paths, "has_channel_kernels", lambda x: True)
        assert block_paths.fuses_norm(x, torch.float32)
        assert block_paths.fuses_norm(half, torch.float16)
        assert not block_paths.fuses_norm(x, torch.bfloat16)  # under autocast, a map that is still float32
        assert not block_paths.fuses_norm(x.double(), torch.float64)
        assert not block_paths.fuses_norm(x.repeat(1, 2, 1, 1), torch.float32)
        assert block_paths.fuses_norm(low.repeat(1, 8, 1, 1), torch.bfloat16)
        assert not block_paths.fuses_norm(low.repeat(1, 9, 1, 1), torch.bfloat16)
    assert not block_paths.fuses_norm(low, torch.bfloat16)  # training
