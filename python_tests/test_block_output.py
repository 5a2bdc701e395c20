"""The last convolution of a block and its residual: in one kernel where there is one, otherwise one after the other."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from op_cases import LAYOUTS, assert_no_worse, cut_into_strips
from torch.profiler import ProfilerActivity, profile

from aicr_ext import _native, ops
from aicr_ext.ops.block_output import OutputProjection, has_rows_side_by_side
from aicr_ext.ops.block_paths import StripProjection
from aicr_ext.ops.strips import shared_rows, strips

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
HAS_TILES = _native.HAS_OPS and torch.ops.aicr_ext.has_pointwise_tiles(False)


def channels_last(*size, seed=0, dtype=torch.float32):
    drawn = torch.randn(*size, generator=torch.Generator().manual_seed(seed))
    return drawn.to(dtype, memory_format=torch.channels_last)


def projection(outputs=12, channels=10, pictures=0, bias=True, dtype=torch.float32):
    size = (pictures, outputs, channels) if pictures else (outputs, channels, 1, 1)
    return OutputProjection(torch.randn(size).to(dtype), torch.randn(outputs).to(dtype) if bias else None)


def exactly(output, t, added=None):
    matrices = output.weight.flatten(1)[None] if output.weight.dim() == 4 else output.weight
    matrices = matrices.expand(len(t), -1, -1).double()
    exact = torch.einsum("bdk,bkhw->bdhw", matrices, t.double())
    exact = exact if output.bias is None else exact + output.bias.double()[:, None, None]
    return exact if added is None else exact + added.double()


def sums(function, *args):
    """How often the kernel of both is called."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        function(*args)
    return sum(event.name == "aicr_ext::pointwise_tiles_into" for event in seen.events())


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("pictures", [0, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sums(dtype, pictures, bias, layout, gradients):
    """Everywhere the same; results go where they are asked to go, which may be where the map is that is added."""
    output, t = projection(12, 10, pictures, bias, dtype), channels_last(2, 10, 5, 7, dtype=dtype)
    added = channels_last(2, 12, 5, 7, seed=1, dtype=dtype).contiguous(memory_format=LAYOUTS[layout])
    assert output.channels == 12
    with torch.set_grad_enabled(gradients):
        eager = exactly(output, t).to(dtype)
        assert_no_worse(output(t), eager, exactly(output, t))
        eager, exact = eager + added, exactly(output, t, added)
        assert_no_worse(output(t, added), eager, exact)
        for out in (torch.empty_like(added), added):
            assert output(t, added, out) is out
            assert_no_worse(out, eager, exact)


def test_a_sum_with_a_wider_map_is_wide():
    output, t = projection(dtype=torch.bfloat16), channels_last(1, 10, 5, 7, dtype=torch.bfloat16)
    added = channels_last(1, 12, 5, 7, seed=1)
    with torch.no_grad():
        assert not output.writes(t, added)
        assert output(t, added).dtype == torch.float32
        assert torch.equal(output(t, added, added.clone()), output(t, added))


def test_rows_side_by_side():
    x = channels_last(2, 12, 5, 7)
    for t in (x, x[:, :, 1:4], x[1:], x[:, :, 2:3], x[..., :1].clone(memory_format=torch.channels_last)):
        assert has_rows_side_by_side(t)
    for t in (x.contiguous(), x[:, :5], x[..., 1:4], x[:, :, ::2], x[..., ::2], x[:0], x[:, :1]):
        assert not has_rows_side_by_side(t)


@pytest.mark.skipif(not HAS_TILES, reason="this processor has no kernel")
def test_where_the_kernel_is_in_use():
    output, t, added = projection(), channels_last(2, 10, 5, 7), channels_last(2, 12, 5, 7)
    each = projection(pictures=2)
    with torch.no_grad():
        assert sums(output, t, added, added) == 1
        assert sums(each, t, added, added) == 2
        assert sums(output, t, added) == 0
        assert sums(output, t, added.contiguous(), added.contiguous()) == 0
        assert sums(output, t, added, added.contiguous()) == 0
        with ops.kernels.plain_torch():
            assert sums(output, t, added, added) == 0
    assert not output.writes(t, added)  # gradients may be wanted


@pytest.mark.skipif(not HAS_TILES, reason="this processor has no kernel")
@pytest.mark.parametrize("values", [1, 1 << 20], ids=["strips", "whole"])
@torch.no_grad()
def test_where_blocks_use_it(values, monkeypatch):
    """For both ends of a branch, once a strip; of maps in the other layout, which they copy, where nothing is added."""
    cut_into_strips(monkeypatch, values)
    x, count = channels_last(1, 8, 37, 9), 5 if values == 1 else 1
    weights = [torch.randn(*size) for size in ((16, 8, 1, 1), (16, 1, 3, 3), (8, 8, 1, 1))]
    for residual, overwrite in ((False, False), (True, False), (True, True)):

        def block(x, residual=residual, overwrite=overwrite):
            arguments = [(weight, None) for weight in weights]
            return ops.gated_convolutions(x, *arguments, residual=residual, overwrite=overwrite)

        assert sums(block, x.clone()) == 2 * count
        assert sums(block, x.contiguous().clone()) == (0 if residual else count)


@pytest.mark.skipif(not HAS_TILES, reason="this processor has no kernel")
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("reach", [1, 2, 5])
@pytest.mark.parametrize("height", [8, 9, 13, 16, 17, 31, 40])
@torch.no_grad()
def test_rows_that_strips_share_are_projected_once(height, reach, norm, monkeypatch):
    """And have the values of the whole."""
    cut_into_strips(monkeypatch)
    x, weight = channels_last(1, 32, height, 6), torch.rand(32) if norm else None
    first, second = (torch.randn(7, 32, 1, 1), torch.randn(7)), (torch.randn(3, 32, 1, 1), None)
    arguments, seen = (weight, None, False, 1e-5, torch.float32, first, second), []
    whole = [t.clone() for t in StripProjection(*arguments)(x, slice(0, height))]
    projected = StripProjection(*arguments)
    into = torch.ops.aicr_ext.pointwise_tiles_into
    fake = SimpleNamespace(pointwise_tiles_into=lambda *args: seen.append(args[0].shape[2]) or into(*args))
    monkeypatch.setattr(torch.ops, "aicr_ext", fake, raising=False)
    for block, keep, place in strips(x, 32, reach):
        for t, exact in zip(projected(block, keep), whole, strict=True):
            assert torch.equal(t[:, :, keep], exact[:, :, place])
            first_row = place.start - keep.start
            assert torch.equal(t, exact[:, :, first_row : first_row + block.shape[2]])
    assert sum(seen) == height


def test_shared_rows():
    """Of margins cut off by both ends, and of maps that are one strip."""
    x = channels_last(1, 3, 40, 5)
    assert shared_rows(x, slice(None)) == 0
    before = 0
    for first, start, stop, last in ((0, 0, 8, 10), (6, 8, 16, 17), (14, 16, 17, 17)):
        assert shared_rows(x[:, :, first:last], slice(start - first, stop - first)) == max(0, before - first)
        before = last
