"""Pixel shuffles: torch's, but for the layout that they leave."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from op_cases import LAYOUTS

from aicr_ext.ops import pixel_shuffle, pixel_unshuffle

PAIRS = [(pixel_shuffle, F.pixel_shuffle, (2, 36, 5, 7)), (pixel_unshuffle, F.pixel_unshuffle, (2, 4, 15, 21))]
both = pytest.mark.parametrize("ours, theirs, shape", PAIRS, ids=["shuffle", "unshuffle"])


@both
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("as_elsewhere", [False, True])
def test_values_are_those_of_torch(ours, theirs, shape, layout, as_elsewhere, monkeypatch):
    """Also by the operations that other devices than a CPU take."""
    if as_elsewhere:
        monkeypatch.setattr(sys.modules["aicr_ext.ops.pixel_shuffle"], "_is_torchs", lambda x, layout: False)
    x = torch.randn(shape).to(memory_format=LAYOUTS[layout])
    assert torch.equal(ours(x, 3), theirs(x, 3))


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.uint8])
@pytest.mark.parametrize("cut", [slice(None), slice(1, 33)])
def test_large_maps(factor, dtype, cut):
    """Whose copies torch does not make; also channels of a wider map."""
    x = torch.randint(0, 99, (2, 36, 36, 48)).to(dtype).contiguous(memory_format=torch.channels_last)[:, cut]
    out, expected = pixel_unshuffle(x, factor), F.pixel_unshuffle(x, factor)
    assert torch.equal(out, expected)
    assert out.stride() == expected.contiguous(memory_format=torch.channels_last).stride()


def test_gradients_of_large_maps_are_torchs():
    x = torch.randn(1, 16, 64, 64).contiguous(memory_format=torch.channels_last).requires_grad_()
    assert pixel_unshuffle(x, 2).grad_fn.name() == F.pixel_unshuffle(x, 2).grad_fn.name()
    with torch.no_grad():
        assert pixel_unshuffle(x, 2).grad_fn is None


def test_sides_that_the_factor_does_not_divide():
    with pytest.raises(RuntimeError, match="divisible"):
        pixel_unshuffle(torch.randn(1, 16, 64, 63).contiguous(memory_format=torch.channels_last), 2)


@both
@pytest.mark.parametrize("device", ["cpu", "meta", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_stays(ours, theirs, shape, layout, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    x = torch.randn(shape, device=device).to(memory_format=LAYOUTS[layout])
    out = ours(x, 3)
    assert out.shape == theirs(torch.randn(shape), 3).shape
    assert out.is_contiguous(memory_format=LAYOUTS[layout])


@both
@pytest.mark.parametrize("wanted", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_layout(ours, theirs, shape, layout, wanted):
    x = torch.randn(shape).to(memory_format=LAYOUTS[layout])
    out = ours(x, 3, LAYOUTS[wanted])
    assert torch.equal(out, theirs(x, 3))
    assert out.is_contiguous(memory_format=LAYOUTS[wanted])


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.bool], ids=str)
def test_several_values_are_moved_as_one(factor, dtype):
    """Where they lie side by side; also rows of a picture and those of a wider one, and where no run begins evenly."""
    wide = torch.randint(0, 99, (2, 3, 8 * factor, 6 * factor + 1)).to(dtype)
    for x in (wide[..., :-1].contiguous(), wide[..., :-1], wide[..., 1:], wide[:, :, factor:-factor, :-1].contiguous()):
        expected = F.pixel_unshuffle(x, factor)
        with torch.no_grad():
            for out in (
                pixel_unshuffle(x, factor, torch.channels_last),
                pixel_unshuffle(x[:0], factor, torch.channels_last),
            ):
                assert torch.equal(out, expected[: len(out)])
                back = pixel_shuffle(out, factor, torch.contiguous_format)
                assert torch.equal(back, x[: len(out)])
                assert back.is_contiguous()


@both
def test_a_graph_for_a_cpu_has_torchs(ours, theirs, shape):
    x = torch.randn(shape)
    graph = torch.export.export(Wrapped(ours), (x,)).graph_module
    names = {str(node.target) for node in graph.graph.nodes}
    assert f"aten.{theirs.__name__}.default" in names
    torch.testing.assert_close(torch.compile(Wrapped(ours), backend="eager")(x), theirs(x, 3))


class Wrapped(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x, 3, torch.channels_last)


@both
def test_gradients(ours, theirs, shape, monkeypatch):
    monkeypatch.setattr(sys.modules["aicr_ext.ops.pixel_shuffle"], "_is_torchs", lambda x, layout: False)
    x = torch.randn(shape, requires_grad=True)
    grad = torch.randn_like(ours(x, 3))
    expected = torch.autograd.grad(theirs(x, 3), x, grad)
    assert torch.equal(torch.autograd.grad(ours(x, 3), x, grad)[0], expected[0])


@both
def test_it_is_one_copy(ours, theirs, shape):
    x = torch.empty(shape, device="meta").to(memory_format=torch.channels_last)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        ours(x, 3)
    assert [event.name for event in seen.events() if event.name == "aten::clone"] == ["aten::clone"]
