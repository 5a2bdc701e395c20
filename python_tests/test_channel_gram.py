"""The operator channel_gram against its plain-torch definition."""

from __future__ import annotations

import pytest
import torch
from op_cases import (
    LAYOUTS,
    VIEWS,
    assert_no_worse,
    assert_same_bits,
    requires_ops,
    with_threads,
    without_avx512_for_torch,
)
from torch.utils.flop_counter import FlopCounterMode

from aicr_ext import _native
from aicr_ext.ops import Norm, channel_gram, transposed_attention
from aicr_ext.ops.kernels import plain_torch
from aicr_ext.ops.reference import channel_gram_reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
# (B, groups, channels of a group, H, W): every tile and what is left of it, groups that share a chunk and one that
# does not, an odd pixel, one block of pixels and less, several pieces.
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 3, 7, 5, 9),
    (1, 4, 8, 8, 8),
    (2, 9, 8, 3, 23),
    (1, 2, 9, 11, 13),
    (1, 4, 16, 6, 11),
    (1, 3, 20, 5, 13),
    (2, 2, 32, 9, 7),
    (1, 2, 48, 33, 34),
    (1, 1, 64, 7, 9),
    (1, 2, 65, 3, 21),
    (1, 1, 96, 4, 33),
    (1, 1, 130, 5, 5),
]


def arguments(shape, dtype=torch.float32, layout="nchw"):
    """Queries and keys as halves of one map, and the number of groups."""
    batch, groups, depth, height, width = shape
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(batch, 2 * groups * depth, height, width, generator=generator)
    maps = maps.to(dtype).to(memory_format=LAYOUTS[layout])
    return maps[:, : groups * depth], maps[:, groups * depth :], groups


def check(q, k, groups):
    out = channel_gram(q, k, groups=groups)
    for results in zip(out, channel_gram_reference(q, k, groups), exact(q, k, groups), strict=True):
        # float64 is its own oracle, whose sums have another order
        assert_no_worse(*results, rounding=1e-14 if q.dtype == torch.float64 else 0)
    return out


def exact(q, k, groups):
    return channel_gram_reference(q.double(), k.double(), groups)


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_the_reference(shape, dtype, layout):
    out = check(*arguments(shape, dtype, layout))
    batch, groups, depth = shape[:3]
    assert [t.shape for t in out] == [(batch, groups, depth, depth), (batch, groups, depth), (batch, groups, depth)]
    assert {t.dtype for t in out} == {torch.float64 if dtype == torch.float64 else torch.float32}


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_no_sum_is_rounded_to_a_lower_dtype(dtype, layout):
    """Unlike the products of the definition: the error is that of float32."""
    args = arguments((1, 2, 32, 40, 50), dtype, layout)
    for out, true in zip(channel_gram(*args[:2], groups=2), exact(*args), strict=True):
        assert (out - true).abs().max() <= 1e-6 * true.abs().max()


@requires_ops
def test_bfloat16_by_products_of_float32():
    """What runs where the processor has no products of its own, in a process that may not use them."""
    without_avx512_for_torch("import test_channel_gram as tests; tests.check_bfloat16()")


def check_bfloat16():
    for shape in SHAPES:
        check(*arguments(shape, torch.bfloat16, "channels_last"))


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(0, 2, 4, 4, 4), (2, 1, 0, 4, 4), (2, 2, 4, 0, 4), (2, 2, 4, 4, 0)], ids=str)
def test_empty(shape, layout):
    q, k, groups = arguments(shape, layout=layout)
    batch, _, depth = shape[:3]
    scores, q_norm, k_norm = channel_gram(q, k, groups=groups)
    assert torch.equal(scores, torch.zeros(batch, groups, depth, depth))
    assert torch.equal(q_norm, torch.zeros(batch, groups, depth))
    assert torch.equal(k_norm, q_norm)


@requires_ops
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("view", VIEWS)
def test_views(view, layout, dtype):
    q, k, _ = arguments((3, 1, 16, 12, 14), dtype, layout)
    q, k = view(q), view(k)
    check(q, k, 2)
    check(q, k.contiguous(), 2)
    check(q.contiguous(memory_format=torch.channels_last), k, 2)


@requires_ops
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_single_rows_and_columns(layout, dtype):
    """Whose strides say little."""
    for size in ((2, 24, 1, 70), (2, 24, 70, 1), (2, 1, 7, 10), (2, 24, 1, 1)):
        q = torch.randn(size).to(dtype).to(memory_format=LAYOUTS[layout])
        wide = torch.randn(2, size[1], size[2] + 3, size[3] + 3).to(dtype).to(memory_format=LAYOUTS[layout])
        check(q, wide[:, :, 2 : 2 + size[2], 1 : 1 + size[3]], 1)
        check(wide[:, :, 2 : 2 + size[2], 1 : 1 + size[3]], q, 1)


@requires_ops
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_beside_the_maps_is_not_read(layout, dtype):
    """Neither channels of the other half nor rows of other strips, and no group sees another."""
    maps = torch.full((1, 60, 9, 11), torch.nan, dtype=dtype).to(memory_format=LAYOUTS[layout])
    maps[:, 20:40, 2:7] = 1
    part = maps[:, 20:40, 2:7]
    scores, q_norm, k_norm = channel_gram(part, part, groups=4)
    assert (scores == 55).all()
    assert (q_norm == 55).all()
    assert (k_norm == 55).all()
    part[:, :5] = torch.nan
    scores, q_norm, _ = channel_gram(part, part, groups=4)
    assert scores[:, 0].isnan().all()
    assert q_norm[:, 0].isnan().all()
    assert (scores[:, 1:] == 55).all()
    assert (q_norm[:, 1:] == 55).all()


@requires_ops
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_runs_and_any_number_of_threads_give_the_same_bits(layout, dtype):
    args = arguments((2, 3, 24, 70, 50), dtype, layout)
    assert_same_bits(with_threads(lambda: check(*args)))


# Derivatives, compilation, registration


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients(layout):
    q, k, groups = arguments((2, 2, 3, 2, 3), torch.float64, layout)
    inputs = [t.clone().requires_grad_() for t in (q, k)]
    assert torch.autograd.gradcheck(torch.ops.aicr_ext.channel_gram, [*inputs, groups])
    assert torch.autograd.gradgradcheck(torch.ops.aicr_ext.channel_gram, [*inputs, groups])


@requires_ops
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("depth", [12, 24])  # one product of all groups, and one of each
def test_derivatives_agree_with_those_of_the_definition(depth, layout, dtype):
    q, k, groups = arguments((2, 3, depth, 9, 10), dtype, layout)

    def gradients(op, dtype):
        own = [t.detach().to(dtype).requires_grad_() for t in (q, k)]
        out = op(*own, groups)
        generator = torch.Generator().manual_seed(1)
        return torch.autograd.grad(out, own, [torch.randn(t.shape, generator=generator).to(t) for t in out])

    ours = gradients(torch.ops.aicr_ext.channel_gram, dtype)
    eager, true = (gradients(channel_gram_reference, kind) for kind in (dtype, torch.float64))
    for results in zip(ours, eager, true, strict=True):
        assert results[0].dtype == dtype
        assert_no_worse(*results)


@requires_ops
def test_autocast_changes_neither_results_nor_gradients():
    q, k, groups = arguments((1, 2, 5, 4, 6))

    def results(low):
        inputs = [t.clone().requires_grad_() for t in (q, k)]
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            out = channel_gram(*inputs, groups=groups)
            return [*out, *torch.autograd.grad([t.square().sum() for t in out], inputs)]

    assert all(map(torch.equal, results(True), results(False)))
    expected = channel_gram_reference(q, k, groups)
    with plain_torch(), torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, channel_gram(q, k, groups=groups), expected))


@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout):
    q, k, groups = arguments((2, 2, 3, 5, 7), layout=layout)
    op = torch.ops.aicr_ext.channel_gram.default
    torch.library.opcheck(op, (q[:, :, 1:3], k[:, :, 1:3], groups), test_utils="test_faketensor")
    torch.library.opcheck(op, (q.requires_grad_(), k.requires_grad_(), groups))


@requires_ops
def test_compile():
    q, k, groups = arguments((1, 2, 3, 5, 7), layout="channels_last")

    def step(q, k):
        return sum(t.square().sum() for t in channel_gram(q * 2, k, groups=groups))

    ours, eager = ([t.clone().requires_grad_() for t in (q, k)] for _ in range(2))
    torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)(*ours).backward()
    step(*eager).backward()
    for a, b in zip(ours, eager, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@requires_ops
def test_flops_are_those_of_the_definition():
    counts = []
    for op in (torch.ops.aicr_ext.channel_gram, channel_gram_reference):
        with FlopCounterMode(display=False) as count:
            op(*arguments((2, 3, 4, 5, 6)))
        counts.append(count.get_total_flops())
    assert counts[0] == counts[1] == 2 * 2 * 30 * 12 * 4


@requires_ops
@pytest.mark.parametrize(
    "q, k, groups, message",
    [
        (torch.zeros(4, 6, 7), torch.zeros(4, 6, 7), 1, r"q must be \(B, C, H, W\), got 3"),
        (torch.zeros(1, 4, 6, 7), torch.zeros(1, 4, 6, 7), 3, "groups must divide 4 channels, got 3"),
        (torch.zeros(1, 4, 6, 7), torch.zeros(1, 4, 6, 7), 0, "groups must divide 4 channels, got 0"),
        (torch.zeros(1, 4, 6, 7), torch.zeros(1, 4, 6, 8), 2, "k must have the shape of q"),
        (torch.zeros(1, 4, 6, 7), torch.zeros(1, 4, 6, 7).half(), 2, "k must be of the dtype of q, Float, got Half"),
        (torch.zeros(1, 4, 6, 7).int(), torch.zeros(1, 4, 6, 7).int(), 2, "channel_gram"),
    ],
)
def test_bad_arguments(q, k, groups, message):
    with pytest.raises(RuntimeError, match=message):
        channel_gram(q, k, groups=groups)


def test_without_native_operators_the_reference_runs(monkeypatch):
    args = arguments((1, 2, 4, 8, 8))
    expected = channel_gram_reference(*args)
    with plain_torch():
        assert all(map(torch.equal, channel_gram(*args[:2], groups=2), expected))
    monkeypatch.setattr(_native, "HAS_OPS", False)
    assert all(map(torch.equal, channel_gram(*args[:2], groups=2), expected))


# Its use


@requires_ops
@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_transposed_attention_calls_it_for_every_strip(dtype, other, monkeypatch):
    """With and without another map that keys come from; the results are those of the definition."""
    from aicr_ext.ops import blocks, strips

    monkeypatch.setattr(strips, "STRIP_VALUES", 4000)
    c, generator = 12, torch.Generator().manual_seed(0)

    def draw(*size):
        return torch.randn(size, generator=generator).to(dtype)

    x, context = (draw(2, c, 30, 9).contiguous(memory_format=torch.channels_last) for _ in range(2))
    weights = [(draw(3 * c, c, 1, 1), None), (draw(3 * c, 1, 3, 3), None), draw(3), (draw(c, c, 1, 1), None)]
    options = {"groups": 3, "norm": Norm(draw(c)), "context": context if other else None}
    called = []

    def counted(q, k, *, groups):
        called.append(q.shape)
        return channel_gram(q, k, groups=groups)

    monkeypatch.setattr(blocks, "channel_gram", counted)
    with torch.no_grad():
        out = transposed_attention(x, *weights, **options)
        assert len(called) > 1
        assert sum(shape[2] for shape in called) == 30
        with plain_torch():
            expected = transposed_attention(x, *weights, **options)
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())
