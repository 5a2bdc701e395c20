"""The CPU kernel of 1x1 convolutions, with a norm and without, in bfloat16 and float32, and where it is in use."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from op_cases import (
    assert_no_worse,
    assert_same_bits,
    cut_into_strips,
    poisoned_memory,
    requires_ops,
    with_threads,
    without_avx512_for_torch,
)
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from aicr_ext import _native, ops
from aicr_ext.ops import block_paths, layer_norm2d, layer_norm_conv1x1, pointwise_convolution, pointwise_tiles
from aicr_ext.ops.reference import layer_norm_conv1x1_reference


def has_tiles(dtype):
    return _native.HAS_OPS and torch.ops.aicr_ext.has_pointwise_tiles(dtype == torch.bfloat16)


DTYPES = [torch.bfloat16, torch.float32]
requires_tiles = pytest.mark.skipif(not has_tiles(DTYPES[0]), reason="this processor has no products of bfloat16")
each_dtype = pytest.mark.parametrize(
    "dtype",
    [pytest.param(d, marks=pytest.mark.skipif(not has_tiles(d), reason=f"no kernel for {d} here")) for d in DTYPES],
    ids=str,
)
#: Of channels and outputs: odd ones, all widths of columns, several columns, those of AICR.
SIZES = [(1, 1), (7, 17), (32, 15), (32, 170), (33, 48), (64, 65), (85, 32), (170, 64), (96, 112), (340, 128), (5, 200)]


def drawn(*size, seed=0, dtype=torch.bfloat16):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def channels_last(*size, seed=0, dtype=torch.bfloat16):
    return drawn(*size, seed=seed, dtype=dtype).contiguous(memory_format=torch.channels_last)


def projection(channels, outputs, seed=1, dtype=torch.bfloat16):
    weight = drawn(outputs, channels, 1, 1, seed=seed, dtype=dtype) * channels**-0.5
    return weight, drawn(outputs, seed=seed + 1, dtype=dtype)


def tiles(x, norm, norm_bias, weight, bias, second=(None, None), subtract_mean=False, eps=1e-5):
    return torch.ops.aicr_ext.pointwise_tiles(x, norm, norm_bias, weight, bias, *second, subtract_mean, eps)


def walk(channels):
    """The rounding of a sum of so many products one after the other; eager PyTorch may add several such sums."""
    return torch.finfo(torch.float32).eps * channels**0.5


def product(x, weight, bias=None):
    return tiles(x, None, None, weight, bias)[0]


def check_product(x, weight, bias=None, compute=product):
    exact = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double())
    out = compute(x, weight, bias)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert_no_worse(out, F.conv2d(x, weight, bias), exact, walk(x.shape[1]))


@each_dtype
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products(size, biased, dtype):
    """With as many pixels as leave a rest in every tile, and as are fewer than one."""
    weight, bias = projection(*size, dtype=dtype)
    for map_size in ((2, size[0], 9, 13), (1, size[0], 1, 1), (3, size[0], 5, 1)):
        with poisoned_memory():
            check_product(channels_last(*map_size, dtype=dtype), weight, bias if biased else None)


@each_dtype
@pytest.mark.parametrize(
    "view",
    [lambda t: t[:, :, 2:9], lambda t: t[..., 1::2], lambda t: t[:, 3:36], lambda t: t[:1].expand(3, -1, -1, -1)],
    ids=["rows", "columns", "channels", "expanded"],
)
def test_views(view, dtype):
    x = view(channels_last(2, 40, 11, 12, dtype=dtype))
    norm, (weight, bias) = torch.rand(x.shape[1]), projection(x.shape[1], 50, dtype=dtype)
    check_product(x, weight, bias)
    check_product(x.contiguous(), weight, bias)
    dense = x.contiguous(memory_format=torch.channels_last)
    assert_same_bits([tiles(t, norm, None, weight, bias)[0] for t in (dense, x)])


@each_dtype
@pytest.mark.parametrize("subtract_mean", [True, False])
@pytest.mark.parametrize("size", [(32, 170), (33, 40), (64, 64), (128, 96), (200, 72), (256, 33), (300, 16)], ids=str)
def test_a_norm_in_front_has_the_bits_of_the_norm(size, subtract_mean, dtype):
    """As layer_norm2d rounds its values; of two projections each has the bits of a call of its own."""
    channels, outputs = size
    x, norm = channels_last(2, channels, 7, 31, dtype=dtype), torch.rand(channels) + 0.5
    norm_bias = drawn(channels, seed=5, dtype=dtype)
    first, second = projection(*size, dtype=dtype), projection(channels, 2 * outputs, seed=3, dtype=dtype)
    normed = layer_norm2d(x, norm, bias=norm_bias, subtract_mean=subtract_mean)
    with poisoned_memory():
        both = tiles(x, norm, norm_bias, *first, second, subtract_mean)
        assert_same_bits([tuple(product(normed, *each) for each in (first, second)), both])
        assert_same_bits([both[0], tiles(x, norm, norm_bias, *first, subtract_mean=subtract_mean)[0]])
    rest = (norm.to(dtype), norm_bias, *first, *second, subtract_mean, 1e-5)
    exact = layer_norm_conv1x1_reference(*(t.double() if isinstance(t, torch.Tensor) else t for t in (x, *rest)))
    for triple in zip(
        tiles(x, *rest[:4], second, subtract_mean), layer_norm_conv1x1_reference(x, *rest), exact, strict=True
    ):
        assert_no_worse(*triple, walk(channels))


@requires_tiles
def test_weights_may_be_float32_and_without_memory_of_their_own():
    x, (weight, bias) = channels_last(1, 32, 5, 7), projection(32, 24)
    expected = product(x, weight, bias)
    spread = torch.zeros(24, 64, 1, 1, dtype=torch.bfloat16)[:, ::2].copy_(weight)
    assert_same_bits([expected, product(x, weight.float(), bias.float()), product(x, spread, bias)])


@each_dtype
def test_bits_do_not_depend_on_threads(dtype):
    x, norm = channels_last(2, 64, 37, 29, dtype=dtype), torch.rand(64)
    both = projection(64, 85, dtype=dtype), projection(64, 24, dtype=dtype)
    assert_same_bits(with_threads(lambda: tiles(x, norm, None, *both[0], both[1])))
    assert_same_bits(with_threads(lambda: product(x, *both[0])))


@each_dtype
def test_bits_do_not_depend_on_where_a_map_is_cut(dtype):
    x, norm = channels_last(1, 64, 23, 31, dtype=dtype), torch.rand(64)
    weight, bias = projection(64, 85, dtype=dtype)
    for call in (lambda t: tiles(t, norm, None, weight, bias)[0], lambda t: product(t, weight, bias)):
        assert_same_bits([call(x), torch.cat([call(x[:, :, :5]), call(x[:, :, 5:18]), call(x[:, :, 18:])], 2)])


@each_dtype
@pytest.mark.parametrize("channels", [32, 33])
def test_what_is_not_finite_stays_in_its_pixel(channels, dtype):
    """Also where an odd channel has no partner, and the value behind it is of the next pixel: torch's convolution reads
    that, too, and makes it not-a-number."""
    x, (weight, bias) = channels_last(1, channels, 5, 7, dtype=dtype), projection(channels, 40, dtype=dtype)
    x[0, 0, 2, 3], x[0, 0, 4, 1] = torch.nan, torch.inf
    out, exact = product(x, weight, bias), F.conv2d(x.double(), weight.double(), bias.double())
    assert torch.equal(out.isnan(), exact.isnan())
    assert torch.equal(out.isinf(), exact.isinf())
    normed = tiles(x, torch.rand(channels), None, weight, bias)[0]
    bad = normed.isnan().any(1)[0].nonzero().tolist()
    assert bad == [[2, 3], [4, 1]]


@each_dtype
@pytest.mark.parametrize("size", [(0, 32, 4, 5), (1, 32, 0, 5), (1, 0, 4, 5)], ids=str)
def test_empty(size, dtype):
    weight, bias = drawn(8, size[1], 1, 1, dtype=dtype), drawn(8, dtype=dtype)
    out = product(channels_last(*size, dtype=dtype), weight, bias)
    assert torch.equal(out, bias[:, None, None].expand(size[0], 8, *size[2:]))
    x = channels_last(2, 3, 4, 5, dtype=dtype)
    assert product(x, drawn(0, 3, 1, 1, dtype=dtype)).shape == (2, 0, 4, 5)
    assert product(channels_last(1, 3, 40, 50, dtype=dtype), drawn(0, 3, 1, 1, dtype=dtype)).shape == (1, 0, 40, 50)


@each_dtype
def test_opcheck_and_flops(dtype):
    x, norm = channels_last(2, 32, 5, 7, dtype=dtype), torch.rand(32)
    first, second = projection(32, 8, dtype=dtype), projection(32, 5, dtype=dtype)
    for args in ((x, None, None, *first, None, None, False, 0.0), (x, norm, norm, *first, *second, True, 1e-5)):
        op = torch.ops.aicr_ext.pointwise_tiles.default
        torch.library.opcheck(op, args, test_utils=("test_schema", "test_faketensor"))
        with FlopCounterMode(display=False) as count:
            op(*args)
        assert count.get_total_flops() == 2 * 2 * 5 * 7 * 32 * (8 if args[5] is None else 13)


@requires_tiles
@pytest.mark.parametrize(
    "index, value, message",
    [
        (0, torch.zeros(1, 32, 2, 2).half(), "x must be bfloat16 or float32, got"),
        (0, drawn(32, 2, 2), r"x must be \(B, C, H, W\), got 3 dim"),
        (1, torch.zeros(5), r"norm_weight must have the shape \(32,\)"),
        (1, None, "norm_bias is given without norm_weight"),
        (3, drawn(8, 31, 1, 1), r"weight must have the shape \(D, 32, 1, 1\)"),
        (4, drawn(7), r"bias must have the shape \(8,\)"),
        (6, drawn(8), "second_bias is given without second_weight"),
        (8, -1.0, "eps must be finite and at least 0, got -1"),
    ],
)
def test_bad_arguments(index, value, message):
    args = [channels_last(1, 32, 2, 2), torch.ones(32), torch.ones(32), *projection(32, 8), None, None, True, 1e-5]
    args[index] = value
    with pytest.raises(RuntimeError, match=f"pointwise_tiles: {message}"):
        torch.ops.aicr_ext.pointwise_tiles(*args)


@requires_tiles
def test_a_norm_of_few_channels_is_refused():
    with pytest.raises(RuntimeError, match="x must have 32 channels where there is a norm, got 31"):
        tiles(channels_last(1, 31, 2, 2), torch.ones(31), None, *projection(31, 8))


# Into rows of a map, and what is added to them


NO_NORM, NO_SECOND = (None, None), (None, None, False, 0.0)


def into(x, weight, bias, added, out):
    torch.ops.aicr_ext.pointwise_tiles_into(x, *NO_NORM, weight, bias, *NO_SECOND, added, out, None)
    return out


@each_dtype
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sums_with_a_map(size, dtype):
    """Rounded once; also in the place of the map, of rows of it, and of nothing added the bits of the convolution."""
    weight, bias = projection(*size, dtype=dtype)
    for height, width in ((9, 13), (1, 1), (5, 1)):
        x = channels_last(2, size[0], height, width, dtype=dtype)
        added = channels_last(2, size[1], height, width, seed=9, dtype=dtype)
        exact = F.conv2d(x.double(), weight.double(), bias.double()) + added.double()
        eager = F.conv2d(x, weight, bias) + added
        empty = partial(torch.empty_like, added, memory_format=torch.channels_last)
        with poisoned_memory():
            out = into(x, weight, bias, added, empty())
            assert_no_worse(out, eager, exact, walk(size[0]))
            assert_same_bits([out, into(x, weight, bias, in_place := added.clone(), in_place)])
            assert_same_bits([product(x, weight, bias), into(x, weight, bias, None, empty())])


@each_dtype
@torch.no_grad()
def test_rows_of_maps(dtype):
    """What lies before and behind the rows stays."""
    weight, bias = projection(24, 40, dtype=dtype)
    whole = channels_last(2, 40, 12, 7, seed=9, dtype=dtype)
    x = channels_last(2, 30, 12, 7, dtype=dtype)[:, 3:27]
    expected, rows = whole.clone(), slice(4, 9)
    expected[:, :, rows] = into(
        x[:, :, rows].contiguous(memory_format=torch.channels_last),
        weight,
        bias,
        whole[:, :, rows].contiguous(memory_format=torch.channels_last),
        torch.empty(2, 40, 5, 7, dtype=dtype).contiguous(memory_format=torch.channels_last),
    )
    out = whole.clone()
    into(x[:, :, rows], weight, bias, whole[:, :, rows], out[:, :, rows])
    assert_same_bits([expected, out])
    one = whole[:1, :, rows]
    twice = into(x[:, :, rows], weight, bias, one.expand(2, -1, -1, -1), torch.empty_like(out)[:, :, rows])
    assert_same_bits([twice[0], out[0, :, rows]])


@each_dtype
def test_bits_of_sums_do_not_depend_on_threads(dtype):
    weight, bias = projection(64, 85, dtype=dtype)
    x, added = channels_last(2, 64, 37, 29, dtype=dtype), channels_last(2, 85, 37, 29, seed=4, dtype=dtype)
    assert_same_bits(with_threads(lambda: into(x, weight, bias, added, torch.empty_like(added))))


@each_dtype
@pytest.mark.parametrize("size", [(0, 32, 4, 5), (1, 32, 0, 5), (1, 0, 4, 5)], ids=str)
def test_empty_sums(size, dtype):
    weight, bias = drawn(8, size[1], 1, 1, dtype=dtype), drawn(8, dtype=dtype)
    added = channels_last(size[0], 8, *size[2:], dtype=dtype)
    out = into(channels_last(*size, dtype=dtype), weight, bias, added, torch.empty_like(added))
    assert torch.equal(out, (added.float() + bias.float()[:, None, None]).to(dtype))


@each_dtype
def test_opcheck_and_flops_of_sums(dtype):
    x, (weight, bias) = channels_last(2, 32, 5, 7, dtype=dtype), projection(32, 8, dtype=dtype)
    added = channels_last(2, 8, 5, 7, dtype=dtype)
    op, out, second_out = torch.ops.aicr_ext.pointwise_tiles_into.default, torch.empty_like(added), added.clone()
    norm = (torch.ones(32), None)
    for args, outputs in (
        ((x, *NO_NORM, weight, bias, *NO_SECOND, added, out, None), 8),
        ((x, *NO_NORM, weight, None, *NO_SECOND, None, out, None), 8),
        ((x, *norm, weight, None, weight, bias, True, 1e-5, None, out, second_out), 16),
    ):
        torch.library.opcheck(op, args, test_utils=("test_schema", "test_faketensor"))
        with FlopCounterMode(display=False) as count:
            op(*args)
        assert count.get_total_flops() == 2 * 2 * 5 * 7 * 32 * outputs


@requires_tiles
@pytest.mark.parametrize(
    "name, value, message",
    [
        ("x", torch.zeros(1, 32, 2, 2).half(), "x must be bfloat16 or float32, got"),
        ("weight", drawn(8, 31, 1, 1), r"weight must have the shape \(D, 32, 1, 1\)"),
        ("bias", drawn(7), r"bias must have the shape \(8,\)"),
        (
            "added",
            channels_last(1, 8, 2, 3),
            r"added must have the shape \(1, 8, 2, 2\), got 4 dimension\(s\) of other",
        ),
        ("added", channels_last(1, 8, 2, 2).float(), "added must be of the dtype of x, "),
        ("added", drawn(1, 8, 2, 2), "added must be a channels-last map, or rows of one"),
        ("out", channels_last(1, 9, 2, 2), r"out must have the shape \(1, 8, 2, 2\)"),
        ("out", channels_last(1, 8, 2, 4)[..., ::2], "out must be a channels-last map, or rows of one"),
        ("out", channels_last(1, 10, 2, 2)[:, :8], "out must be a channels-last map, or rows of one"),
        ("norm_weight", torch.ones(32), "added is for one convolution without a norm"),
        ("second_out", channels_last(1, 8, 2, 2), "second_weight and second_out go together"),
    ],
)
def test_bad_arguments_of_sums(name, value, message):
    weight, bias = projection(32, 8)
    args = {
        "x": channels_last(1, 32, 2, 2),
        **dict.fromkeys(("norm_weight", "norm_bias", "second_weight", "second_bias", "second_out")),
        "weight": weight,
        "bias": bias,
        "subtract_mean": False,
        "eps": 0.0,
        "added": channels_last(1, 8, 2, 2),
        "out": channels_last(1, 8, 2, 2),
    }
    with pytest.raises(RuntimeError, match=f"pointwise_tiles_into: {message}"):
        torch.ops.aicr_ext.pointwise_tiles_into(**args | {name: value})


@each_dtype
@pytest.mark.parametrize("subtract_mean", [True, False])
@pytest.mark.parametrize("channels", [32, 33, 64, 200])
def test_two_convolutions_of_a_norm_into_rows(channels, subtract_mean, dtype):
    """With the bits that they have in maps of their own; what lies around the rows stays."""
    x, norm = channels_last(1, channels, 9, 13, dtype=dtype), torch.rand(channels)
    first, second = projection(channels, 40, dtype=dtype), projection(channels, 17, seed=3, dtype=dtype)
    norm_bias = drawn(channels, seed=5, dtype=dtype)
    expected = tiles(x, norm, norm_bias, *first, second, subtract_mean)
    maps = [channels_last(1, outputs, 12, 13, seed=7, dtype=dtype) for outputs in (40, 17)]
    before, rows = [t.clone() for t in maps], slice(2, 11)
    out = [t[:, :, rows] for t in maps]
    given = (x, norm, norm_bias, *first, *second, subtract_mean, 1e-5, None)
    torch.ops.aicr_ext.pointwise_tiles_into(*given, *out)
    for t, was, found in zip(maps, before, expected, strict=True):
        was[:, :, rows] = found
        assert torch.equal(t, was)


# Where it is in use


def calls(function, *args):
    """How often the operator is called, which other operators may do."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        function(*args)
    return sum(event.name == "aicr_ext::pointwise_tiles" for event in seen.events())


@requires_tiles
def test_convolutions_without_gradients_use_it():
    x, (weight, bias) = channels_last(2, 24, 5, 7), projection(24, 40)
    args = (pointwise_convolution, x, weight, bias)
    assert calls(*args) == 1
    assert_same_bits([pointwise_convolution(x, weight, bias), product(x, weight, bias)])
    with torch.autocast("cpu", torch.bfloat16):
        assert calls(*args) == 1
    with torch.autocast("cpu", torch.float16):
        assert calls(*args) == 0
        assert pointwise_convolution(x, weight, bias).dtype == torch.float16
    with ops.kernels.plain_torch():
        assert calls(*args) == 0
    weight.requires_grad_()
    assert calls(*args) == 0
    pointwise_convolution(x, weight, bias).sum().backward()
    assert weight.grad.shape == weight.shape
    with torch.no_grad():
        assert calls(*args) == 1
        with pytest.raises(RuntimeError):
            pointwise_convolution(x, weight.float())


@requires_tiles
def test_a_norm_and_its_convolution_use_it():
    x, norm, (weight, bias) = channels_last(1, 32, 5, 7), torch.rand(32), projection(32, 40)
    assert calls(layer_norm_conv1x1, x, norm, weight, bias) == 1
    assert calls(layer_norm_conv1x1, x.contiguous(), norm, weight, bias) == 1  # by norm and convolution
    assert calls(layer_norm_conv1x1, x.float(), norm, weight.float(), bias.float()) == 1
    assert calls(layer_norm_conv1x1, x.half(), norm, weight.half(), bias.half()) == 0


@requires_tiles
def test_where_blocks_use_it():
    x = channels_last(1, 32, 5, 7)
    with torch.no_grad():
        assert block_paths.fuses_norm(x, torch.bfloat16)
        assert not block_paths.fuses_norm(x.contiguous(), torch.bfloat16)
        assert not block_paths.fuses_norm(x[:, :31], torch.bfloat16)
        assert not block_paths.fuses_norm(x.float(), torch.bfloat16)
        assert block_paths.fuses_norm(x.float(), torch.float32)
        assert not block_paths.fuses_norm(x.half(), torch.float16)
        with ops.kernels.plain_torch():
            assert not block_paths.fuses_norm(x, torch.bfloat16)
    assert not block_paths.fuses_norm(x, torch.bfloat16)  # gradients may be wanted


@each_dtype
@torch.no_grad()
def test_blocks_are_as_accurate_as_without_it(dtype, monkeypatch):
    """The same bits as norms, and products of the kernel without one."""
    c, hidden = 32, 85
    x, norm = channels_last(2, c, 40, 21, dtype=dtype), torch.rand(c)
    sizes = ((2 * hidden, c, 1, 1), (2 * hidden, 1, 3, 3), (c, hidden, 1, 1))
    arguments = [drawn(*size, dtype=dtype) * factor for size, factor in zip(sizes, (0.2, 0.3, 0.1), strict=True)]

    def block(x, *rest):
        return ops.gated_feed_forward(x, *rest)

    exact = block(x.double(), norm.double(), *(t.double() for t in arguments))
    ours = block(x, norm, *arguments)
    monkeypatch.setattr(pointwise_tiles, "_here", lambda dtype: False)
    assert_no_worse(ours, block(x, norm, *arguments), exact)
    monkeypatch.undo()
    cut_into_strips(monkeypatch)
    assert_same_bits([ours, block(x, norm, *arguments)])


@requires_ops
def test_processors_that_may_not_use_it():
    """What keeps torch off AVX-512 turns the kernel off, too, and its callers go on without."""
    without_avx512_for_torch(
        "import torch; from aicr_ext.ops import pointwise_convolution, pointwise_tiles; "
        "x, w = torch.ones(1, 8, 2, 2).bfloat16(), torch.ones(4, 8, 1, 1).bfloat16(); "
        "assert not any(map(torch.ops.aicr_ext.has_pointwise_tiles, (False, True))); "
        "assert not pointwise_tiles.multiplies(x); "
        "assert torch.equal(pointwise_convolution(x, w), torch.full((1, 4, 2, 2), 8.0).bfloat16())"
    )
