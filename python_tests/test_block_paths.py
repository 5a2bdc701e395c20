"""The ways of blocks on CUDA that a CPU can walk, too; their kernels have tests of their own."""

from __future__ import annotations

import pytest
import torch
from op_cases import requires_ops

from aicr_ext import ops
from aicr_ext.ops import block_paths
from aicr_ext.ops.block_paths import add_projection


@torch.no_grad()
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("shape", [(2, 6, 3, 5), (1, 4, 1, 1), (3, 5, 1, 7), (0, 4, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_product_adds_to_a_map(dtype, shape, each):
    """What the last projection of a block does on CUDA, in the place of the map."""
    b, c, h, w = shape
    x, t = torch.randn(shape), torch.randn(b, 7, h, w)
    matrix = torch.randn(b, c, 7) if each else torch.randn(c, 7)
    expected = x.double() + torch.einsum("bck,bkhw->bchw", matrix.expand(b, c, 7).double(), t.double())
    x = x.to(dtype, memory_format=torch.channels_last)
    found = add_projection(x, t.to(dtype), matrix.to(dtype))
    assert found is x
    torch.testing.assert_close(x.double(), expected, rtol=0, atol=0.15 if dtype == torch.bfloat16 else 1e-12)


@requires_ops
@torch.no_grad()
def test_blocks_add_in_place_where_a_gpu_would(monkeypatch):
    """The branch for CUDA; only where x may be lost, has the dtype of the product and is channels-last."""
    c, hidden = 6, 8
    x = torch.randn(2, c, 5, 7).contiguous(memory_format=torch.channels_last)
    into, depthwise, out = (
        torch.randn(*size) for size in ((2 * hidden, c, 1, 1), (2 * hidden, 1, 3, 3), (c, hidden, 1, 1))
    )
    arguments = ((into, None), (depthwise, None), (out, None))
    expected, added = ops.gated_convolutions(x, *arguments, residual=True), []
    monkeypatch.setattr(block_paths, "has_channel_kernels", lambda x: True)
    monkeypatch.setattr(block_paths, "add_projection", lambda *args: added.append(args) or add_projection(*args))
    torch.testing.assert_close(ops.gated_convolutions(x, *arguments, residual=True), expected)
    ops.gated_convolutions(x.clone().contiguous(), *arguments, residual=True, overwrite=True)
    ops.gated_convolutions(x.clone(), *arguments[:2], (out, torch.zeros(c)), residual=True, overwrite=True)
    with torch.autocast("cpu", torch.bfloat16):
        ops.gated_convolutions(x.clone(), *arguments, residual=True, overwrite=True)
    assert not added
    given = x.clone()
    torch.testing.assert_close(ops.gated_convolutions(given, *arguments, residual=True, overwrite=True), expected)
    torch.testing.assert_close(given, expected)
    assert len(added) == 1
