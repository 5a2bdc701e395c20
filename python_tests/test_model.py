"""The network: sizes, the two coding steps, strips, and what training relies on."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from op_cases import cut_into_strips
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from training import TONED

import aicr_ext
from aicr_ext import _native, ops
from aicr_ext.codec.checkpoint import untrained
from aicr_ext.model.aicr import AICR, asinh, checkerboard
from aicr_ext.model.config import CONFIGS, get_config
from aicr_ext.model.entropy import FactorizedPrior, gaussian_bits
from aicr_ext.model.layers import HybridBlock
from aicr_ext.model.precision import autocast, with_cast_weights
from aicr_ext.model.scale import RateScale
from aicr_ext.model.shortcut import ShortcutGate
from aicr_ext.model.transforms import ToneField
from aicr_ext.nn import ChannelAttention, SpatialAttention
from aicr_ext.ops import blocks, strips
from aicr_ext.ops.kernels import plain_torch


def parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in AICR(name).parameters())


def convolution_macs(name: str, side: int = 256) -> int:
    """Multiply-adds of all convolutions; the attention's output projection counts as the 1x1 it is in the paper,
    though the network folds it into the product with the attention map."""
    projections = 0

    def count(module: ChannelAttention, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal projections
        projections += args[0].numel() * args[0].shape[1]

    with torch.device("meta"):
        model, x = AICR(name).eval(), torch.empty(1, 3, side, side)
        for module in model.modules():
            if isinstance(module, ChannelAttention):
                module.register_forward_hook(count)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(x, torch.tensor([32]))
    flops = {str(kind): n for kind, n in counter.get_flop_counts()["Global"].items()}
    kinds = ("aten.convolution", "aicr_ext.decoupled_attention", "aicr_ext.gated_depthwise_conv3x3")
    return sum(flops.get(kind, 0) for kind in kinds) // 2 + projections


def test_aicr_s_has_the_published_size():
    assert f"{parameters('aicr-s') / 1e6:.2f}" == "38.39"
    assert f"{convolution_macs('aicr-s') / 1e9:.1f}" == "37.3"


def test_aicr_l_and_t_have_their_documented_sizes():
    assert f"{parameters('aicr-l') / 1e6:.1f}" == "66.8"
    assert f"{convolution_macs('aicr-l') / 1e9:.1f}" == "77.7"
    assert f"{parameters('aicr-t') / 1e6:.2f}" == "8.34"
    assert f"{convolution_macs('aicr-t') / 1e9:.1f}" == "5.5"


def test_configuration_survives_its_dictionary():
    for config in CONFIGS.values():
        assert type(config).from_dict(config.to_dict()) == config
    assert len({c.wire_id for c in CONFIGS.values()}) == len(CONFIGS)


def test_unknown_model_is_named():
    with pytest.raises(ValueError, match=r"unknown model 'aicr-x'.*aicr-t"):
        get_config("aicr-x")


def test_tone_field_is_an_affine_map_of_colours():
    torch.manual_seed(0)
    tone, picture = ToneField(), torch.rand(2, 3, 48, 64)
    for value in tone.head.parameters():
        value.detach().zero_()
    assert torch.equal(tone(picture), picture)
    # gain e^0.5, red becomes red + half of green, blue gains 0.1
    tone.head.bias.data[[0, 2, 12]] = torch.tensor([0.5, 0.5, 0.1])
    red, green, blue = picture.unbind(1)
    expected = torch.stack([red + 0.5 * green, green, blue + 0.1], 1) * math.exp(0.5)
    torch.testing.assert_close(tone(picture), expected)


def test_tone_field_varies_slowly():
    torch.manual_seed(0)
    with torch.no_grad():
        gain, affine = ToneField().field(torch.rand(1, 3, 256, 256))
    assert gain.shape == (1, 1, 64, 64)
    assert affine.shape == (1, 12, 64, 64)
    assert gain.std() > 0
    assert gain.diff(dim=3).abs().max() <= (gain.max() - gain.min()) / 16 + 1e-6  # 16 steps of 4 pixels to a node


def test_the_gate_sees_magnitudes_here_around_and_everywhere():
    torch.manual_seed(0)
    gate = ShortcutGate(6, 4)
    features, linear = torch.randn(2, 6, 5, 7), torch.randn(2, 4, 5, 7)

    def factors(linear, features=features):
        with torch.no_grad():
            factor, noise = gate(features, linear)
        assert noise is None
        return factor

    found = factors(linear)
    assert found.shape == linear.shape
    assert found.min() > 0
    assert found.max() < 2
    assert torch.equal(found, factors(-linear))
    assert not torch.allclose(found, factors(linear, features + 1), atol=1e-3)
    louder = linear.clone()
    louder[0, :, 4, 6] *= 100
    change = (factors(louder) - found).abs().amax(1)
    assert change[0, 4, 6] > change[0, 3, 6] > change[0, 0, 0] > 0
    assert change[1].max() == 0
    for value in gate.head.parameters():
        value.detach().zero_()
    assert torch.equal(factors(linear), torch.ones_like(linear))


def test_a_gate_with_noise_tells_its_standard_deviation():
    torch.manual_seed(0)
    plain, gate = ShortcutGate(6, 4), ShortcutGate(6, 4, noise=True)
    gate.load_state_dict(plain.state_dict(), strict=False)
    features, linear = torch.randn(2, 6, 5, 7), torch.randn(2, 4, 5, 7)
    factor, noise = gate(features, linear)
    torch.testing.assert_close(factor, plain(features, linear)[0])
    assert noise.shape == linear.shape
    assert noise.dtype == torch.float32
    assert noise.min() > 0
    with torch.no_grad():
        gate.noise.weight.zero_()
        gate.noise.bias.fill_(math.log(0.05))
    torch.testing.assert_close(gate(features, linear)[1], 0.05 * factor)


def test_the_encoder_filters_by_the_noise_that_the_analysis_tells():
    """Without noise nothing changes; with noise throughout, less is coded, and in the limit the means alone."""
    model = untrained(TONED).eval()
    picture, quality = torch.rand(1, 3, 64, 64), torch.tensor([63])
    gates = [model.analysis.gate, model.analysis.detail.gate]

    def bits(log_noise):
        for gate in gates:
            gate.noise.weight.zero_()
            gate.noise.bias.fill_(log_noise)
        out = model(picture, quality)
        latents = model.analysis(picture, quality)
        noise, detail_noise = model.noise(latents)
        assert latents.shape[1] == 2 * model.config.components
        assert noise.shape == model.y_and_detail(latents)[0].shape
        assert detail_noise.shape == model.y_and_detail(latents)[1].shape
        torch.testing.assert_close(noise, math.exp(log_noise) * model.analysis.scale(quality).expand_as(noise))
        return float(out.y_bpp)

    with torch.no_grad():
        none, some, all_of_it = (bits(value) for value in (-20.0, -3.0, 5.0))
        for gate in gates:
            gate.noise = None
        model.config = replace(model.config, wiener_filter=False)
        assert float(model(picture, quality).y_bpp) == pytest.approx(none)
    assert all_of_it < some < none


def test_a_filter_needs_a_gate():
    with pytest.raises(ValueError, match="wiener_filter: tiny-toned needs a gate"):
        AICR(replace(TONED, shortcut_gate=False, noise_evidence=False))
    with pytest.raises(ValueError, match="wiener_filter: tiny-toned needs a gate, and no quantiser steps"):
        AICR(replace(TONED, quant_step=True))


def test_checkerboard_codes_every_place_once_in_two_steps():
    first = checkerboard(4, 3, 5)
    assert first.shape == (1, 4, 3, 5)
    assert first[0, 0, :2, :2].tolist() == [[True, False], [False, True]]
    assert torch.equal(first[0, 0], ~first[0, 2])


def test_gaussian_bits_sum_to_a_distribution():
    values = torch.arange(-60.0, 61.0)
    for log_scale in (-1.0, 0.0, 1.0, 2.0):
        mass = torch.exp2(-gaussian_bits(values, torch.tensor(log_scale)))
        assert abs(float(mass.sum()) - 1) < 2e-4


def test_factorized_prior_is_a_distribution():
    torch.manual_seed(0)
    prior = FactorizedPrior(3)
    x = torch.linspace(-40, 40, 200).expand(1, 3, -1)
    cdf = prior.cdf(x)
    assert (cdf.diff(dim=2) >= 0).all()
    assert (cdf[..., 0] < 1e-3).all()
    assert (cdf[..., -1] > 1 - 1e-3).all()


@pytest.mark.parametrize("channelwise", [True, False])
def test_rate_scale_is_geometric_between_its_ends(channelwise):
    scale = RateScale(4, (0.5, 8.0), channelwise)
    values = scale(torch.tensor([0, 21, 42, 63]))[:, 0, 0, 0]
    torch.testing.assert_close(values, 0.5 * 16 ** (torch.arange(4.0) / 3))


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_forward_has_finite_gradients_everywhere(name):
    torch.manual_seed(0)
    model = untrained(name).requires_grad_(True).train()
    x = torch.rand(2, 3, 64, 64)
    out = model(x, torch.tensor([0, 63]))
    assert out.picture.shape == x.shape
    assert out.y_bpp.shape == out.z_bpp.shape == (2,)
    (out.y_bpp.sum() + out.z_bpp.sum() + out.picture.square().sum()).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("shape", [(1, 32, 37, 41), (2, 32, 70, 9), (1, 32, 1, 50), (1, 32, 33, 1)])
def test_strips_equal_the_whole_map(shape, monkeypatch):
    """Strips differ from the whole only by the order of float additions."""
    torch.manual_seed(1)
    block = untrained("aicr-s").analysis.stages[0][0].to(memory_format=torch.channels_last)
    for module in block.modules():
        if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
            module.bias.normal_()  # padding must be of the convolution's input, not of the strip
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    whole = block.double()(x.double())
    block.float()
    plain = block(x)
    cut_into_strips(monkeypatch)
    stripped = block(x)
    assert stripped.is_contiguous(memory_format=torch.channels_last)
    error = (plain - whole).abs().max()
    assert (stripped - whole).abs().max() <= 2 * error + 1e-6


def test_strips_are_taken_without_gradients_only(monkeypatch):
    cut_into_strips(monkeypatch)
    x = torch.rand(1, 4, 40, 8)
    assert len(list(strips.strips(x, 8, 1))) == 1
    with torch.no_grad():
        parts = list(strips.strips(x, 8, 1))
    assert len(parts) == 5
    rows = torch.cat([block[:, :, keep] for block, keep, _ in parts], 2)
    assert torch.equal(rows, x)


@pytest.mark.parametrize("reach, rows", [(0, 8), (1, 16), (2, 32)])
def test_at_most_an_eighth_of_a_strip_is_computed_twice(reach, rows):
    x = torch.empty(1).expand(1, 1, 1000, 1 << 18)
    with torch.no_grad():
        _, _, place = next(strips.strips(x, 64, reach))
    assert place.stop - place.start == rows


def test_layer_norm_does_not_subtract_the_mean():
    x = torch.randn(1, 8, 3, 3) + 5
    weight = torch.rand(8)
    expected = x / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt() * weight[:, None, None]
    torch.testing.assert_close(ops.layer_norm2d(x, weight), expected)


def test_channel_attention_matches_the_unfolded_definition():
    """Normalise queries and keys, softmax, A v, project: the equations in their printed order, in double."""
    torch.manual_seed(2)
    b, c, h, w, groups = 2, 8, 5, 6, 2
    x = torch.randn(b, c, h, w, dtype=torch.float64)
    norm, qkv = torch.rand(c).double(), torch.randn(3 * c, c, 1, 1).double()
    depthwise, temperature = torch.randn(3 * c, 1, 3, 3).double(), torch.tensor([0.7, 1.9]).double()
    out = torch.randn(c, c, 1, 1).double()
    t = torch.nn.functional.conv2d(ops.layer_norm2d(x, norm), qkv)
    t = torch.nn.functional.conv2d(t, depthwise, padding=1, groups=3 * c)
    q, k, v = t.reshape(b, 3, groups, c // groups, h * w).unbind(1)
    q, k = torch.nn.functional.normalize(q, dim=-1), torch.nn.functional.normalize(k, dim=-1)
    attention = (q @ k.transpose(-1, -2) * temperature[:, None, None]).softmax(-1)
    expected = x + torch.nn.functional.conv2d((attention @ v).reshape(b, c, h, w), out)
    got = blocks.channel_attention(x, norm, qkv, depthwise, temperature, out, groups=groups)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("plain", [False, True])
def test_the_decoder_can_be_exported(plain):
    """torch.export for every size of picture, with our operators, and with plain torch where a runtime lacks them."""
    model = aicr_ext.load_model("aicr-t").eval()
    synthesis, components = model.synthesis, model.config.components
    sizes = {2: torch.export.Dim("rows", min=2, max=4096), 3: torch.export.Dim("columns", min=2, max=4096)}
    quality = torch.tensor([32])
    with plain_torch() if plain else nullcontext(), torch.no_grad():
        program = torch.export.export(
            synthesis, (torch.randn(1, components, 4, 6), quality), dynamic_shapes=(sizes, None)
        )
    ours = [node for node in program.graph.nodes if "aicr_ext" in str(node.target)]
    assert bool(ours) == (_native.HAS_OPS and not plain)
    latent = torch.randn(1, components, 5, 3)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(latent, quality), synthesis(latent, quality), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_maps_that_hooks_keep_are_not_overwritten():
    model, kept = untrained("aicr-t"), []
    inner = [m for m in model.analysis.modules() if isinstance(m, (HybridBlock, SpatialAttention))]
    for module in inner:
        module.register_forward_hook(lambda module, inputs, out: kept.append((out, out.clone())))
    model.analysis(torch.rand(1, 3, 64, 64), torch.tensor([9]))
    assert len(kept) == len(inner)
    model.synthesis.tail.register_forward_hook(lambda module, inputs, out: kept.append((out, out.clone())))
    model.synthesis(torch.randn(1, model.config.components, 4, 4), torch.tensor([9]))
    assert len(kept) == len(inner) + 1
    assert all(torch.equal(out, copy) for out, copy in kept)


@torch.no_grad()
def test_maps_that_hooks_before_a_module_keep_are_not_overwritten():
    model, kept = untrained("aicr-t"), []
    for module in model.analysis.modules():
        if isinstance(module, HybridBlock):
            module.register_forward_pre_hook(lambda module, inputs: kept.append((inputs[0], inputs[0].clone())))
    model.analysis(torch.rand(1, 3, 64, 64), torch.tensor([9]))
    assert len(kept) == sum(model.config.blocks)
    assert all(torch.equal(x, copy) for x, copy in kept)


def test_the_linear_paths_of_a_tall_picture_are_those_of_all_its_rows():
    """Without gradients they come in strips of rows."""
    synthesis = untrained("aicr-t").synthesis
    latents, quality = torch.randn(2, 320, 71, 2), torch.tensor([9, 50])
    whole = synthesis(latents, quality)
    with torch.no_grad():
        torch.testing.assert_close(synthesis(latents, quality), whole, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["aicr-t", "aicr-s"])
def test_weights_that_were_cast_before_give_the_same_bits(name):
    """And no call casts one again."""

    class Casts(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._to_copy.default and id(args[0]) in weights:
                casts.append(weights[id(args[0])])
            return func(*args, **kwargs or {})

    model, quality = untrained(name), torch.tensor([20])
    for network, x in (
        (model.analysis, torch.rand(1, 3, 64, 64)),
        (model.synthesis, torch.randn(1, model.config.components, 4, 4)),
    ):
        cast, results, counts = with_cast_weights(network, "bfloat16"), [], []
        assert with_cast_weights(network, "float32") is network
        for one in (network, cast):
            weights, casts = {id(p): key for key, p in one.named_parameters()}, []
            with autocast(torch.device("cpu"), "bfloat16"), Casts():
                results.append(one(x, quality))
            counts.append(len(casts))
        assert torch.equal(*results)
        assert all(p.dtype == torch.float32 for p in network.parameters())
        assert counts[0] > 20
        assert casts == []


def test_companding_is_the_inverse_hyperbolic_sine():
    """With gradients torch's own, without them to its last bits; also where squares overflow."""
    ends = torch.logspace(-30, 18, 500)
    y = torch.cat([ends, -ends, torch.tensor([0.0, -0.0, 1e30])])
    with torch.no_grad():
        found = asinh(y)
    torch.testing.assert_close(found[:-1].double(), torch.asinh(y[:-1].double()), rtol=1e-6, atol=0)
    assert found[-2].signbit()
    assert found[-1].isfinite()
    y = torch.zeros(1, requires_grad=True)
    asinh(y).backward()
    assert y.grad.item() == 1
