"""The entropy networks in integers: one result everywhere, near that of the float networks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from op_cases import assert_same_bits, with_threads
from pictures import smooth
from prior_cases import all_steps, latents
from torch import Tensor, nn

import aicr_ext
from aicr_ext.codec import priors as module
from aicr_ext.codec.calibrate import calibrate
from aicr_ext.codec.checkpoint import export_weights, load_model, untrained
from aicr_ext.codec.fixed_point import Linear, exponent_for, linear, power_of_two
from aicr_ext.codec.priors import IntegerPriors
from aicr_ext.images import read_image
from aicr_ext.model import entropy
from aicr_ext.model.aicr import AICR, checkerboard
from aicr_ext.ops.kernels import plain_torch
from aicr_ext.ops.latent_reference import LOG_EXPONENT
from aicr_ext.weights import load_weights, save_weights


def pictures(count: int = 2) -> list[Tensor]:
    arrays = [np.array(smooth(128, 128 + 64 * i)) for i in range(count)]
    return [torch.from_numpy(a).permute(2, 0, 1)[None].float() / 255 for a in arrays]


@pytest.fixture(scope="module", params=["aicr-t", "aicr-s", "untrained aicr-t"])
def model(request) -> AICR:
    if request.param == "aicr-t":
        return load_model("aicr-t")
    made = untrained(request.param.split()[-1])
    calibrate(made, pictures())
    return made


def test_close_to_the_float_networks(model):
    z, values = latents(model)
    found = all_steps(IntegerPriors(model), z, values)
    unit = power_of_two(-model.mean_exponents)
    units_of = [unit, unit]
    with torch.no_grad():
        y = (values * unit).float().permute(0, 3, 1, 2)
        plainly = [model.first_parameters(z, *values.shape[1:3])]
        plainly.append(model.second_parameters(y, plainly[0]))
        if model.config.detail:
            n, (_, log_scale, _) = model.config.latent, model.config.split(plainly[0])
            of_first = checkerboard(n, *values.shape[1:3])
            plainly.append(model.detail_parameters(torch.where(of_first, log_scale, plainly[1][:, :n])))
            units_of.append(unit[:0])  # no means
    for ours, plain, unit in zip(found, plainly, units_of, strict=True):
        plain = plain[0].permute(1, 2, 0).double()
        logs = plain.shape[2] - len(unit)
        units = torch.cat([torch.full((logs,), 2.0**-LOG_EXPONENT, dtype=torch.float64), unit])
        error = (ours[0] * units - plain).abs()
        assert error.max() < 0.03 * (1 + plain.abs().max())
        assert error.mean() < 0.01 * (1 + plain.abs().mean())


def test_kernels_and_definitions_give_the_same_bits(model):
    z, values = latents(model, 5, 7)
    native = all_steps(IntegerPriors(model), z, values)
    with plain_torch():
        plain = all_steps(IntegerPriors(model), z, values)
    assert all(torch.equal(a, b) for a, b in zip(native, plain, strict=True))


def test_any_number_of_threads_gives_the_same_bits(model):
    z, values = latents(model, 20, 33)
    priors = IntegerPriors(model)
    assert_same_bits(with_threads(lambda: all_steps(priors, z, values)))


def test_strips_give_the_same_bits(model, monkeypatch):
    z, values = latents(model, 29, 7)
    priors = IntegerPriors(model)
    whole = all_steps(priors, z, values)
    monkeypatch.setattr(module, "_STRIP_VALUES", 1)
    assert all(torch.equal(a, b) for a, b in zip(all_steps(priors, z, values), whole, strict=True))


@pytest.mark.parametrize("isa", ["scalar", "avx2"])
def test_other_instruction_sets_read_the_same_file(isa, tmp_path):
    """In a process whose own kernels and matrix library are limited."""
    picture = smooth(90, 70)
    picture.save(tmp_path / "x.png")
    data = aicr_ext.compress(read_image(tmp_path / "x.png"), quality=45)
    (tmp_path / "x.aicr").write_bytes(data)
    code = "import sys, pathlib, aicr_ext; aicr_ext.decompress(pathlib.Path(sys.argv[1]).read_bytes())"
    limits = {"AICR_ISA": isa, "ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}
    command = [sys.executable, "-c", code, str(tmp_path / "x.aicr")]
    subprocess.run(command, env={**os.environ, **limits}, check=True)


def worst_sum(layer: Linear) -> int:
    """The largest magnitude that a sum can have on its way through the layer, rounding included."""
    half = 1 << (layer.shift.long() - 1)
    return int((layer.weight.long().abs().sum((0, 2)) * 32767 + layer.bias.long().abs() + half).max())


@pytest.mark.parametrize("name", ["aicr-t", "aicr-t-clean"])
def test_no_sum_of_a_shipped_model_can_overflow(name):
    priors = IntegerPriors(load_model(name))
    found = []

    def look(value: object, seen: set[int]) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, Linear):
            found.append(value)
        for cell in getattr(value, "__closure__", None) or ():
            look(cell.cell_contents, seen)

    for step in (*priors._hyper, *priors._fusion, *priors._spatial, *priors._detail):
        look(step, set())
    assert len(found) == (22 if priors.config.detail else 20)
    for layer in found:
        assert worst_sum(layer) < 2**31
        assert layer.shift.min() >= 1
        assert worst_sum(layer) > 2**28  # and none of them wastes the range


def test_weights_too_large_are_refused():
    model = untrained("aicr-t")
    model.spatial_prior[0][0].conv_in.weight[3, 5] = 2.0**20
    with pytest.raises(ValueError, match=r"spatial_prior\.0\.0\.conv_in: weights too large for sums in 32 bits"):
        IntegerPriors(model)


def test_inputs_come_in_pairs():
    with pytest.raises(ValueError, match=r"layer: integer products take inputs in pairs, got 3"):
        linear("layer", torch.ones(2, 3), torch.zeros(2), 9, 9)


def test_extreme_weights_keep_their_sums_in_range():
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-6, 1e-3, 1.0, 30.0):
        weight = scale * torch.randn(7, 64, generator=generator)
        layer = linear("layer", weight, torch.randn(7, generator=generator), 10, 6)
        assert worst_sum(layer) < 2**31


def test_exponents_leave_room():
    assert exponent_for(3.0) == 11  # 12 * 2**11 < 32767 < 12 * 2**12
    assert exponent_for(0.0) == 12
    assert exponent_for(1e9) == 0


def test_calibration_measures_ranges():
    model = untrained("aicr-t")
    before = IntegerPriors(model)
    assert set(model.prior_fusion[0][1].exponents.tolist()) == {entropy.DEFAULT_EXPONENT}
    calibrate(model, pictures())
    after = IntegerPriors(model)
    assert set(model.prior_fusion[0][1].exponents.tolist()) != {entropy.DEFAULT_EXPONENT}
    seen = []
    conv = model.spatial_prior[0][0].conv_in
    handle = conv.register_forward_hook(lambda _, given, result: seen.append(float(result.abs().max())))
    with torch.no_grad():
        model(pictures(1)[0], torch.tensor([63]))
    handle.remove()
    places = int(model.spatial_prior[0][0].exponents[0])
    assert seen[0] * 2.0**places * 4 <= 32767
    assert not any(isinstance(m, nn.Module) and m._forward_hooks for m in model.modules())
    z, values = latents(model, 4, 4)
    assert not torch.equal(all_steps(before, z, values)[0], all_steps(after, z, values)[0])


def test_weights_from_before_there_were_exponents_still_load(tmp_path):
    config, state, _ = load_weights(aicr_ext.weights.FOLDER / "aicr-t.safetensors")
    old = {name: value for name, value in state.items() if not name.endswith("exponents")}
    assert len(old) < len(state)
    save_weights(tmp_path / "old.safetensors", config, old, {})
    model = load_model(tmp_path / "old.safetensors")
    assert set(model.mean_exponents.tolist()) == {6}
    codec = aicr_ext.Codec(model)
    codec.decompress(codec.compress(smooth(40, 40)))


def test_export_proves_that_weights_fit(tmp_path):
    model = untrained("aicr-t")
    model.hyper_decoder[3].conv_out.weight[0, 0] = 2.0**15
    with pytest.raises(ValueError, match=r"hyper_decoder\.3\.conv_out"):
        export_weights(tmp_path / "x.safetensors", model, {})
    assert not list(tmp_path.iterdir())


def test_integers_cost_next_to_nothing():
    codec = aicr_ext.Codec("aicr-t")
    picture = read_image(Path(__file__).parents[1] / "samples" / "kodim23.png")
    for quality in (0, 32, 63):
        bits = 8 * (len(codec.compress(picture, quality=quality)) - 53)  # of header, checksum and states
        assert bits < 1.005 * codec.estimate_bits(picture, quality=quality)
