"""The exact entropy networks: equal bits whatever the order of sums, and close to the float networks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from pictures import smooth

import aicr_ext
from aicr_ext.codec import exact
from aicr_ext.codec.checkpoint import untrained
from aicr_ext.codec.exact import ExactPriors
from aicr_ext.model import entropy
from aicr_ext.model.aicr import AICR


def latents(model: AICR, height: int = 9, width: int = 14, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers z (1, Z, h/4, w/4) and first-step values (h, w, N), with the ranges of real ones."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, model.config.hyper, -(-height // 4), -(-width // 4))
    z = torch.round(3 * torch.randn(shape, generator=generator))
    y = 20 * torch.randn((height, width, model.config.latent), generator=generator, dtype=torch.float64)
    return z, y


def both_steps(priors: ExactPriors, z: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    first = priors.first_parameters(z, *y.shape[:2])
    return first, priors.second_parameters(y, first)


@pytest.fixture(scope="module", params=["aicr-t", "aicr-s", "untrained aicr-t"])
def model(request) -> AICR:
    if request.param == "aicr-t":
        return aicr_ext.load_model("aicr-t")
    return untrained(request.param.split()[-1])


def test_close_to_the_float_networks(model):
    z, y = latents(model)
    first, second = both_steps(ExactPriors(model), z, y)
    with torch.no_grad():
        plain_first = model.first_parameters(z, *y.shape[:2])
        plain_second = model.second_parameters(y.float().permute(2, 0, 1)[None], plain_first)
    for ours, plain in ((first, plain_first), (second, plain_second)):
        plain = plain[0].permute(1, 2, 0).double()
        assert (ours - plain).abs().max() < 0.02 * (1 + plain.abs().max())


def test_any_order_of_sums_gives_the_same_bits(model, monkeypatch):
    """Products summed in reverse, in float64 one after the other, equal the matrix product's own order."""
    z, y = latents(model, 4, 5)
    priors = ExactPriors(model)
    expected = both_steps(priors, z, y)

    def reversed_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(*a.shape[:-1], b.shape[-1], dtype=a.dtype)
        for k in reversed(range(a.shape[-1])):
            out += a[..., k, None] * b[k]
        return out

    calls = []
    plain = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: calls.append(1) or reversed_matmul(a, b))
    shuffled = both_steps(priors, z, y)
    monkeypatch.setattr(torch.Tensor, "__matmul__", plain)
    assert len(calls) > 10
    assert torch.equal(expected[0], shuffled[0])
    assert torch.equal(expected[1], shuffled[1])


def test_any_number_of_threads_gives_the_same_bits(model):
    z, y = latents(model, 20, 33)
    priors = ExactPriors(model)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(both_steps(priors, z, y))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for r in results[1:] for a, b in zip(r, results[0], strict=True))


def test_strips_give_the_same_bits(model, monkeypatch):
    z, y = latents(model, 29, 7)
    priors = ExactPriors(model)
    whole = both_steps(priors, z, y)
    monkeypatch.setattr(exact, "_STRIP_VALUES", 1)
    assert all(torch.equal(a, b) for a, b in zip(both_steps(priors, z, y), whole, strict=True))


def test_other_instruction_sets_decode_the_same_file(tmp_path):
    """A file decodes in a process whose matrix library may use no more than SSE or AVX2."""
    data = aicr_ext.compress(smooth(90, 70), quality=45)
    (tmp_path / "x.aicr").write_bytes(data)
    code = "import sys, pathlib, aicr_ext; aicr_ext.decompress(pathlib.Path(sys.argv[1]).read_bytes())"
    for limits in (
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        {"ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ATEN_CPU_CAPABILITY": "default"},
    ):
        command = [sys.executable, "-c", code, str(tmp_path / "x.aicr")]
        subprocess.run(command, env={**os.environ, **limits}, check=True)


def test_weights_too_large_for_exact_sums_are_refused():
    model = untrained("aicr-t")
    model.spatial_prior[0][0].conv_in.weight[3, 5] = 2.0**20
    with pytest.raises(ValueError, match=r"spatial_prior\.0\.0\.conv_in: sums up to"):
        ExactPriors(model)


def test_scale_levels_are_the_nearest_of_128():
    low, high = entropy.LOG_SCALE_MIN, entropy.LOG_SCALE_MAX
    exact_levels = torch.linspace(low, high, 128, dtype=torch.float64)
    assert torch.equal(exact.scale_level(exact_levels), torch.arange(128, dtype=torch.uint8))
    logs = torch.linspace(-3, 5, 1001, dtype=torch.float64)
    nearest = (logs[:, None] - exact_levels).abs().argmin(1)
    assert torch.equal(exact.scale_level(logs).long(), nearest)


def test_asinh_is_accurate():
    x = torch.cat([torch.linspace(-700, 700, 5001, dtype=torch.float64), torch.tensor([0.0, 1e-9, -3e-5, 1e6])])
    torch.testing.assert_close(exact.asinh(x.double()), torch.asinh(x.double()), rtol=1e-13, atol=1e-15)
