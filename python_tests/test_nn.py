"""The modules: parameters, names, and results of the networks whose parts they are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import aicr_ext
from aicr_ext.nn import (
    ChannelAttention,
    GatedConvolutions,
    GatedFeedForward,
    LayerNorm2d,
    SpatialAttention,
    TransposedAttention,
)
from aicr_ext.ops import reference
from benchmarks.restormer import Attention, FeedForward, LayerNorm

PAIRS = {
    "attention": (lambda: TransposedAttention(24, 3), lambda: Attention(24, 3)),
    "attention with biases": (lambda: TransposedAttention(24, 3, bias=True), lambda: Attention(24, 3, bias=True)),
    "feed-forward": (lambda: GatedConvolutions(24, 63), lambda: FeedForward(24, 2.66)),
    "feed-forward with biases": (
        lambda: GatedConvolutions(24, 63, bias=True),
        lambda: FeedForward(24, 2.66, bias=True),
    ),
    "norm": (lambda: LayerNorm2d(24, bias=True), lambda: LayerNorm(24)),
}


def moved(module: nn.Module) -> nn.Module:
    """With parameters that hide nothing."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module


def drawn(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 24, 9, 11, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", PAIRS)
def test_restormers_weights_give_restormers_results(kind):
    make, original = PAIRS[kind]
    ours, theirs = make(), moved(original())
    ours.load_state_dict(theirs.state_dict())
    if kind != "norm":
        assert list(ours.state_dict()) == list(theirs.state_dict())
    torch.testing.assert_close(ours(drawn()), theirs(drawn()), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(ours(drawn()), theirs(drawn()), rtol=1e-4, atol=1e-5)


def test_norms():
    x = drawn()
    plain, biased = moved(LayerNorm2d(24)), moved(LayerNorm2d(24, bias=True))
    assert list(plain.state_dict()) == ["weight"]
    assert list(biased.state_dict()) == ["weight", "bias"]
    torch.testing.assert_close(plain(x), reference.layer_norm2d_reference(x, plain.weight))
    expected = F.layer_norm(x.permute(0, 2, 3, 1), (24,), biased.weight, biased.bias).permute(0, 3, 1, 2)
    torch.testing.assert_close(biased(x), expected)
    assert repr(biased) == "LayerNorm2d(24, eps=1e-05, bias=True, subtract_mean)"
    centred = LayerNorm2d(24, subtract_mean=True)
    torch.testing.assert_close(centred(x), F.layer_norm(x.permute(0, 2, 3, 1), (24,)).permute(0, 3, 1, 2))
    with pytest.raises(RuntimeError, match=r"Missing key.*weight"):
        plain.load_state_dict({})


def test_a_context_gives_keys_and_values():
    module = moved(TransposedAttention(24, 4))
    x, context = drawn(), drawn(1)
    found = module(x, context)
    assert not torch.allclose(found, module(x))
    parts = (module.qkv.weight, None, module.qkv_dwconv.weight, None, module.temperature, module.project_out.weight)
    expected = reference.transposed_attention_reference(
        x, context, None, None, *parts, None, 4, None, False, 1e-5, False
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_options_leave_out_parameters():
    module = TransposedAttention(24, 4, depthwise=False, temperature=False, scale=0.2)
    assert sorted(module.state_dict()) == ["project_out.weight", "qkv.weight"]
    parts = (module.qkv.weight, None, None, None, None, module.project_out.weight, None)
    expected = reference.transposed_attention_reference(drawn(), None, None, None, *parts, 4, 0.2, False, 1e-5, False)
    torch.testing.assert_close(module(drawn()), expected, rtol=1e-4, atol=1e-5)
    gate = GatedConvolutions(24, 30, activation=None)
    a, b = gate.dwconv(gate.project_in(drawn())).chunk(2, 1)
    torch.testing.assert_close(gate(drawn()), gate.project_out(a * b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: ChannelAttention(24, 4, **options),
        lambda **options: SpatialAttention(24, 5, **options),
        lambda **options: GatedFeedForward(24, 2.0, **options),
        lambda **options: TransposedAttention(24, 4, **options),
        lambda **options: GatedConvolutions(24, 30, **options),
    ],
)
def test_recomputing_gives_the_same_gradients(make):
    module, twin = moved(make()), make(recompute=True)
    twin.load_state_dict(module.state_dict())
    for one in (module, twin):
        one(drawn()).square().sum().backward()
    for expected, found in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-3)


def test_shipped_weights_have_these_names():
    block = aicr_ext.load_model("aicr-t").analysis.stages[0][0]
    assert [name for name, _ in block.named_parameters()] == [
        *(
            f"channel_attention.{name}"
            for name in ("temperature", "norm.weight", "qkv.weight", "qkv_dwconv.weight", "project_out.weight")
        ),
        "spatial_attention.norm.weight",
        "spatial_attention.project_attn.weight",
        "spatial_attention.project_attn.bias",
        "spatial_attention.dwconv_row.weight",
        "spatial_attention.dwconv_col.weight",
        "spatial_attention.project_value.weight",
        "spatial_attention.project_value.bias",
        "spatial_attention.project_out.weight",
        "spatial_attention.project_out.bias",
        *(f"feed_forward.{name}.weight" for name in ("norm", "project_in", "dwconv", "project_out")),
    ]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: TransposedAttention(24, 5), "groups must divide the 24 channels, got 5"),
        (lambda: ChannelAttention(24, 0), "groups must divide the 24 channels, got 0"),
        (lambda: SpatialAttention(24, 4), "kernel must be 3, 5 or 7, got 4"),
        (lambda: GatedConvolutions(24, 8, activation="relu"), "activation must be 'gelu' or None, got 'relu'"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_accelerate_leaves_them_alone():
    report = aicr_ext.accelerate(nn.Sequential(TransposedAttention(24, 4), ChannelAttention(24, 4), LayerNorm2d(24)))
    assert (report.replaced, report.left) == ({}, {})
