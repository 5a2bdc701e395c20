"""The CUDA kernels of the network's operators against their plain-torch definitions, on the host and on a GPU."""

from __future__ import annotations

import pytest
import torch
from cuda_cases import CASES, DTYPES, OPERATORS, PLACES, as_tuple, example, fold_arguments, named, placed, run, wide
from emulation import SEEDS, launches, requires_emulation, seeded
from op_cases import LAYOUTS, VIEWS, assert_no_worse, poisoned_memory

from aicr_ext import _native
from aicr_ext.ops.layout import preferred_layout

everywhere = pytest.mark.parametrize("place", PLACES)
every_operator = pytest.mark.parametrize("operator", OPERATORS, ids=named)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def check(operator, args, place):
    out = run(operator.name, args, place)
    eager, exact = as_tuple(operator.reference(*args)), as_tuple(operator.reference(*wide(args)))
    # Of q and k, each half the distance of neighbouring numbers of their dtype at most.
    rounding = torch.finfo(args[0].dtype).eps if operator.name == "depthwise_gram" else 0
    for ours, theirs, true in zip(out, eager, exact, strict=True):
        assert ours.dtype == theirs.dtype
        assert_no_worse(ours, theirs, true, rounding)
    return out


@everywhere
@every_layout
@pytest.mark.parametrize("dtype", DTYPES, ids=named)
@pytest.mark.parametrize("operator, shape, variant", CASES, ids=named)
def test_matches_the_definition(operator, shape, variant, dtype, layout, place):
    args = placed(operator, operator.arguments(shape, *variant), dtype, layout, place)
    before = sum(launches().values()) if place == "emulated" else 0
    out = check(operator, args, place)
    assert place != "emulated" or sum(launches().values()) > before
    if operator.name != "depthwise_gram":
        assert out[0].is_contiguous(memory_format=preferred_layout(args[operator.maps - 1]))  # one channel: either


@everywhere
@every_layout
@pytest.mark.parametrize("operator", [o for o in OPERATORS if o.arguments((1, 2, 1, 1), *o.variants[0])[1:]], ids=named)
def test_float32_weights_with_low_precision_maps(operator, layout, place):
    args = example(operator, torch.float32, layout, place)
    low = tuple(a.bfloat16() if i < operator.maps else a for i, a in enumerate(args))
    check(operator, low, place)


@everywhere
@every_layout
@every_operator
def test_vectors_that_are_not_aligned(operator, layout, place):
    """Dense maps that begin two bytes after the places where vectors of more than an element may lie."""
    args = example(operator, torch.float16, layout, place)

    def shifted(t):
        memory = torch.empty(t.numel() + 1, dtype=t.dtype, device=t.device)
        return memory[1:].as_strided(t.shape, t.stride(), 1).copy_(t)

    maps = tuple(shifted(t) for t in args[: operator.maps])
    assert all(t.data_ptr() % 4 == 2 for t in maps)
    check(operator, (*maps, *args[operator.maps :]), place)


@everywhere
@every_layout
@pytest.mark.parametrize("view", VIEWS)
@every_operator
def test_views(operator, view, layout, place):
    """Inputs that are not dense give the right answer, and the layout of the tensor they are a view of."""
    x = view(draw_map(layout, place))
    args = example(operator, torch.float32, layout, place, tuple(x.shape))
    if operator.name == "depthwise_gram":
        args = (*args[:-1], 1)
    ones = torch.ones((), device=x.device).expand(args[0].shape)
    args = (ones, x, *args[2:]) if operator.maps == 2 else (x, *args[1:])
    out = check(operator, args, place)
    if operator.name != "depthwise_gram":
        assert out[0].is_contiguous(memory_format=preferred_layout(x))


def draw_map(layout, place):
    x = torch.randn(3, 16, 12, 14, generator=torch.Generator().manual_seed(0))
    return x.to("cuda" if place == "cuda" else "cpu", memory_format=LAYOUTS[layout])


@everywhere
@every_layout
@pytest.mark.parametrize("shape", [(0, 8, 4, 4), (2, 0, 4, 4), (2, 8, 0, 4), (2, 8, 4, 0)], ids=str)
@every_operator
def test_empty(operator, shape, layout, place):
    args = example(operator, torch.float32, layout, place, shape)
    out = run(operator.name, args, place)
    if operator.name == "depthwise_gram":
        assert [t.shape for t in out] == [(shape[0], 2, shape[1] // 4, shape[1] // 4)] + [
            (shape[0], 2, shape[1] // 4)
        ] * 2
        assert not any(t.any() for t in out)
    elif operator.name == "layer_norm_conv1x1":
        for ours, bias in zip(out, (args[4], args[6]), strict=True):
            assert torch.equal(ours, bias[:, None, None].expand(shape[0], -1, *shape[2:]))
    else:
        halved = operator.name in ("gelu_gate", "gated_depthwise_conv3x3")
        assert out[0].shape == (shape[0], shape[1] // (2 if halved else 1), *shape[2:])
        assert all(sums.shape[0] == shape[1] and not sums.any() for sums in out[1:])


@everywhere
@every_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=named)
@every_operator
def test_two_runs_in_any_order_of_threads_give_the_same_bits(operator, dtype, layout, place):
    args = example(operator, dtype, layout, place, (2, 20, 19, 34))
    results = [run(operator.name, args, place) for _ in range(2)]
    for seed in SEEDS if place == "emulated" else ():
        with seeded(seed):
            results.append(run(operator.name, args, place))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@everywhere
@every_layout
@every_operator
def test_a_picture_does_not_depend_on_its_batch(operator, layout, place):
    args = example(operator, torch.float32, layout, place)
    whole = run(operator.name, args, place)
    maps = zip(*(t.split(1) for t in args[: operator.maps]), strict=True)
    parts = [run(operator.name, (*of_picture, *args[operator.maps :]), place) for of_picture in maps]
    gradients = operator.maps == 2  # those of weights are sums over the batch
    for ours, *of_parts in list(zip(whole, *parts, strict=True))[: 1 if gradients else None]:
        assert torch.equal(ours, torch.cat(of_parts))


@everywhere
@every_layout
@every_operator
def test_every_element_is_written(operator, layout, place):
    args = example(operator, torch.float32, layout, place, (2, 24, 35, 33))
    with poisoned_memory():
        out = run(operator.name, args, place)
    assert all(t.isfinite().all() for t in out)


@everywhere
def test_every_element_of_folded_weights_is_written(place):
    args = fold_arguments(depth=40, outputs=70, place=place)
    with poisoned_memory():
        (out,) = run("fold_channel_attention", args, place)
    assert out.isfinite().all()


@requires_emulation
@every_layout
@pytest.mark.parametrize("operator", [o for o in OPERATORS if o.exact], ids=named)
def test_each_element_is_rounded_once(operator, layout):
    """In bfloat16 nothing but the rounding of the result differs from float32 arithmetic."""
    args = example(operator, torch.bfloat16, layout, "emulated")
    low = run(operator.name, args, "emulated")
    high = run(operator.name, tuple(a.float() if isinstance(a, torch.Tensor) else a for a in args), "emulated")
    assert torch.equal(low[0], high[0].bfloat16())


@everywhere
@every_layout
def test_a_large_mean_does_not_cost_the_variance_its_digits(layout, place):
    x, weight, *_ = example(OPERATORS[0], torch.float32, layout, place)
    x = x + 1000
    (out,) = run("layer_norm2d", (x, weight, None, True, 1e-5), place)
    exact = OPERATORS[0].reference(x.double(), weight.double(), None, True, 1e-5)
    torch.testing.assert_close(out.double(), exact, rtol=1e-3, atol=1e-3)


@everywhere
@every_layout
@pytest.mark.parametrize("operator, reach", [(OPERATORS[0], 0), (OPERATORS[4], 1), (OPERATORS[-1], 0)], ids=named)
def test_not_a_number_stays_near_its_pixel(operator, reach, layout, place):
    x, *rest = example(operator, torch.float32, layout, place)
    x[0, 3, 4, 5] = float("nan")
    out, *_ = run(operator.name, (x, *rest), place)
    expected = torch.zeros_like(out, dtype=torch.bool)
    channels = slice(3, 4) if reach else slice(None)
    expected[0, channels, 4 - reach : 5 + reach, 5 - reach : 6 + reach] = True
    assert torch.equal(out.isnan(), expected)


@everywhere
@every_layout
def test_not_a_number_stays_near_its_pixel_in_gradients(layout, place):
    operator = next(o for o in OPERATORS if o.name == "gated_depthwise_conv3x3_backward")
    grad, x, weight, bias, _ = example(operator, torch.float32, layout, place)
    x[0, 3, 4, 5] = float("nan")
    grad_x, grad_weight, grad_bias = run(operator.name, (grad, x, weight, bias, True), place)
    expected = torch.zeros_like(x, dtype=torch.bool)
    expected[0, 3::8, 2:7, 3:8] = True  # both halves
    assert torch.equal(grad_x.isnan(), expected)
    for sums in (grad_weight.flatten(1), grad_bias[:, None]):
        assert sums.isnan().any(1).nonzero().flatten().tolist() == [3, 11]


@everywhere
@every_layout
@pytest.mark.parametrize("operator", [o for o in OPERATORS if o.name.endswith("conv3x3_backward")], ids=named)
def test_gradients_do_not_depend_on_how_far_a_block_walks(operator, layout, place):
    """So many pictures that a block has all rows of one; alone it would have eight."""
    args = example(operator, torch.float32, layout, place, (1024, 2, 11, 1))
    whole, *_ = check(operator, args, place)
    alone, *_ = run(operator.name, (*(t[:2] for t in args[:2]), *args[2:]), place)
    assert torch.equal(whole[:2], alone)


@everywhere
@every_operator
def test_float64_is_refused(operator, place):
    args = example(operator, torch.float64, "nchw", place)
    name = "qk" if operator.name == "depthwise_gram" else "x"
    message = f"{operator.name}: {name} must be float32, bfloat16 or float16 on CUDA, got Double"
    with pytest.raises(RuntimeError, match=message):
        run(operator.name, args, place)


@everywhere
@pytest.mark.parametrize(
    "operator, place_of, value, message",
    [
        ("layer_norm2d", 1, torch.zeros(5), r"layer_norm2d: weight must have the shape \(16,\)"),
        ("gelu_gate", 0, torch.zeros(1, 5, 6, 7), "gelu_gate: x must have an even number of channels, got 5"),
        ("gelu_gate_backward", 0, torch.zeros(2, 4, 6, 7), "grad must have the shape of x with half its channels"),
        ("gated_depthwise_conv3x3", 1, torch.zeros(16, 1, 3, 5), r"weight must have the shape \(16, 1, 3, 3\)"),
        ("gated_depthwise_conv3x3_backward", 0, torch.zeros(2, 4, 6, 7), "grad must have the shape of the result"),
        ("gated_depthwise_conv3x3_backward", 3, torch.zeros(5), r"bias must have the shape \(16,\), got 1 dimension"),
        ("depthwise_conv3x3_backward", 0, torch.zeros(3, 16, 12, 13), "grad must have the shape of x"),
        ("depthwise_conv3x3_backward", 0, torch.zeros(3, 16, 12, 14).half(), "grad must be of the dtype of x, Float"),
        ("depthwise_conv3x3_backward", 1, torch.zeros(4, 6, 7), r"x must be \(B, C, H, W\), got 3 dimension"),
        ("depthwise_conv3x3_backward", 2, torch.zeros(16, 1, 3, 5), r"weight must have the shape \(16, 1, 3, 3\)"),
        ("depthwise_gram", 0, torch.zeros(4, 6, 7), r"depthwise_gram: qk must be \(B, 2C, H, W\), got 3 dim"),
        ("depthwise_gram", 0, torch.zeros(1, 5, 6, 7), "qk must have an even number of channels, got 5"),
        ("depthwise_gram", 1, torch.zeros(16, 1, 3, 5), r"weight must have the shape \(16, 1, 3, 3\), got 4"),
        ("depthwise_gram", 1, torch.zeros(16, 1, 3, 3).half(), "weight must be float32 or of the dtype of qk"),
        ("depthwise_gram", 2, torch.zeros(5), r"bias must have the shape \(16,\), got 1 dim.* of another size"),
        ("depthwise_gram", 3, 3, "groups must divide 8 channels, got 3"),
        ("depthwise_gram", 3, 0, "groups must divide 8 channels, got 0"),
        ("layer_norm_conv1x1", 0, torch.zeros(4, 6, 7), r"layer_norm_conv1x1: x must be \(B, C, H, W\), got 3 dim"),
        ("layer_norm_conv1x1", 1, torch.zeros(5), r"norm_weight must have the shape \(16,\), got 1 .* of another size"),
        ("layer_norm_conv1x1", 2, torch.zeros(16, 1), r"norm_bias must have the shape \(16,\), got 2 dim"),
        (
            "layer_norm_conv1x1",
            3,
            torch.zeros(9, 5, 1, 1),
            r"weight must have the shape \(D, 16, 1, 1\), got 4 .* sizes",
        ),
        ("layer_norm_conv1x1", 3, torch.zeros(72, 16, 1, 1).half(), "weight must be float32 or of the dtype of x"),
        ("layer_norm_conv1x1", 4, torch.zeros(5), r"bias must have the shape \(72,\), got 1 dim.* of another size"),
        ("layer_norm_conv1x1", 5, None, "second_bias is given without second_weight"),
        ("layer_norm_conv1x1", 8, -1.0, "eps must be finite and at least 0, got -1"),
        ("layer_norm_conv1x1", 0, torch.zeros(1, 385, 2, 2), r"norm_weight must have the shape \(385,\)"),
    ],
)
def test_bad_arguments(operator, place_of, value, message, place):
    operator = next(o for o in OPERATORS if o.name == operator)
    args = list(example(operator, torch.float32, "nchw", place))
    args[place_of] = value.to(args[0].device) if isinstance(value, torch.Tensor) else value
    with pytest.raises(RuntimeError, match=message):
        run(operator.name, tuple(args), place)


GRAPHED = {o.name: lambda o=o: example(o, torch.float32, "channels_last", "cuda", (1, 64, 32, 48)) for o in OPERATORS}
GRAPHED["fold_channel_attention"] = lambda: fold_arguments(depth=40, outputs=70, place="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not (torch.cuda.is_available() and _native.HAS_CUDA_OPS), reason="no CUDA device")
@pytest.mark.parametrize("name", GRAPHED)
def test_cuda_graph(name):
    args = GRAPHED[name]()
    expected = run(name, args, "cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run(name, args, "cuda")
    for _ in range(2):
        for t in out:
            t.fill_(float("nan"))
        graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(out, expected, strict=True))
