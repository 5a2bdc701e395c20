"""The encoder's search for latents that are worth their bits more."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import smooth
from training import TONED, UNGATED

import aicr_ext
from aicr_ext.codec import container
from aicr_ext.codec.checkpoint import untrained
from aicr_ext.codec.codec import MAX_EFFORT, Codec
from aicr_ext.codec.latents import decode_latents
from aicr_ext.images import read_image
from aicr_ext.model import search
from aicr_ext.model.aicr import AICR
from aicr_ext.model.config import CONFIGS, ModelConfig, get_config
from aicr_ext.model.entropy import LEAST_CODED, LOG_SCALE_MAX, LOG_SCALE_MIN, gaussian_bits
from aicr_ext.model.scale import lambda_of

QUALITY = 40


@pytest.fixture
def model(toned: str) -> AICR:
    return scaled(get_config(toned))


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec()


@pytest.fixture(scope="module")
def photograph() -> torch.Tensor:
    """A part of a photograph, (3, 120, 136) uint8."""
    return torch.from_numpy(np.asarray(read_image("samples/kodim23.png"))[150:270, 200:336].copy()).permute(2, 0, 1)


def scaled(config: ModelConfig) -> AICR:
    """An untrained network whose priors expect something else of every symbol."""
    model = untrained(config).eval().requires_grad_(False)
    torch.manual_seed(1)
    for prior in (model.prior_fusion, model.spatial_prior, model.detail_prior):
        for module in [] if prior is None else prior.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.add_(0.2 * torch.randn_like(module.weight))
    return model


def found(model: AICR, x: torch.Tensor, steps: int = 4, quality: int = QUALITY) -> tuple[torch.Tensor, torch.Tensor]:
    level = torch.full((len(x),), quality)
    with torch.no_grad():
        latents = model.analysis(x, level, synthesis=model.synthesis)
    return search.search(model, latents, search.restored(model, x, model.synthesis), level, steps, model.synthesis)


def loss_of(codec: Codec, picture: torch.Tensor, target: torch.Tensor, quality: int, effort: int) -> float:
    """bpp + lambda * MSE of a file."""
    file = codec.compress(picture, quality=quality, effort=effort)
    mse = float((codec.decompress(file) - target).square().mean())
    price = float(lambda_of(torch.tensor(quality), codec.model.config.lambdas))
    return 8 * len(file) / picture[0].numel() + 3 * price * mse


@pytest.mark.parametrize("quality", [0, 32, 63])
def test_files_are_worth_their_bits_more(codec: Codec, photograph: torch.Tensor, quality: int) -> None:
    target = photograph.float() / 255
    assert loss_of(codec, photograph, target, quality, 8) < 0.99 * loss_of(codec, photograph, target, quality, 0)


def test_noise_stays_out(codec: Codec, photograph: torch.Tensor) -> None:
    target = photograph.float() / 255
    noisy = (target + 15 / 255 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    for quality in (16, 63):
        assert loss_of(codec, noisy, target, quality, 8) < 0.995 * loss_of(codec, noisy, target, quality, 0)


@pytest.mark.parametrize("temperature", [1.0, 0.3, 1e-3])
def test_a_symbol_moves_to_the_mean_of_its_distribution(temperature: float) -> None:
    torch.manual_seed(0)
    residual, slope = 4 * torch.randn(1, 5, 30, 40), 3 * torch.randn(1, 5, 30, 40)
    residual[0, 0, 0, :3] = torch.tensor([0.0, 0.5, -0.5])
    log_scale = torch.empty_like(residual).uniform_(LOG_SCALE_MIN - 0.1, LOG_SCALE_MAX / 2)
    curvature = torch.empty(1, 5, 1, 1).uniform_(1, 9)
    moved = search._towards(residual, log_scale, slope, curvature, temperature)
    values = torch.stack([torch.round(residual) + i for i in (-1, 0, 1)]).double()
    away = values - residual.double()
    losses = slope * away + curvature * away.square() + gaussian_bits(values.float(), log_scale)
    often = torch.softmax(-losses.double() / temperature, 0)
    expected = torch.where(log_scale < LEAST_CODED, -residual, (often * away).sum(0).float())
    assert 0 < int((log_scale < LEAST_CODED).sum()) < log_scale.numel()
    # where two of the three are as good to within rounding, the one or the other is right at low temperatures
    close = (moved - expected).abs() < 1e-3
    assert close.float().mean() > 0.995
    if temperature > 0.1:
        torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-3)


def test_the_energy_of_a_step(model: AICR) -> None:
    with torch.no_grad():
        model.synthesis.scale.log_ends.uniform_(-1, 1)
        model.synthesis.detail.scale.log_ends.uniform_(-1, 1)
    quality, n = torch.tensor([20, 50]), model.config.latent
    energies = search._energies(model.synthesis, quality)
    assert energies.shape == (2, model.config.components, 1, 1)
    for channel in (0, n - 1, n, n + 3):
        latents = torch.zeros(2, model.config.components, 3, 3)
        latents[:, channel, 1, 1] = 1

        def linear(latents: torch.Tensor) -> torch.Tensor:
            scaled_y = latents[:, :n] * model.synthesis.scale(quality)
            return model.synthesis._linear_picture(scaled_y, latents[:, n:], quality)

        difference = linear(latents) - linear(torch.zeros_like(latents))
        torch.testing.assert_close(difference.square().sum((1, 2, 3)), energies[:, channel, 0, 0])


@pytest.mark.parametrize("quality", [0, 40])
def test_the_distortion_is_nearly_a_sum_over_symbols(codec: Codec, photograph: torch.Tensor, quality: int) -> None:
    """What lets a step know the loss of three values from one derivative."""
    x, level = codec._padded(photograph[None]), torch.tensor([quality])
    with torch.no_grad():
        latents = codec.model.analysis(x, level)
        means = search._Expected(codec.model, latents).means(latents, search._nearest)
    decoder = codec.model.synthesis
    slope = search._slope_of_distortion(decoder, means, level, x)
    energies, generator = search._energies(decoder, level), torch.Generator().manual_seed(0)
    with torch.no_grad():
        before = search._squared_error(decoder(means, level), x)
        for first, last in ((8, 96), (96, codec.model.config.latent), (codec.model.config.latent, means.shape[1])):
            away = torch.zeros_like(means)
            away[:, first:last] = torch.randn(away[:, first:last].shape, generator=generator).sign() / 2
            grown = search._squared_error(decoder(means + away, level), x) - before - (slope * away).sum()
            assert float(grown) == pytest.approx(float((energies * away.square()).sum()), rel=0.35)


def test_the_slope_of_bits_is_that_of_all_but_their_own(model: AICR) -> None:
    torch.manual_seed(0)
    n = model.config.latent
    latents = 3 * torch.randn(1, 2 * model.config.components, 6, 7)
    expected = search._Expected(model, latents)
    at = latents[:, : model.config.components]
    mean, log_scale, slope = expected.slopes(at)
    for whole, part in zip(expected(at[:, :n]), (mean, log_scale), strict=True):
        torch.testing.assert_close(part, whole)
    assert float(slope[:, : n // 2, 0, 1].abs().max()) == 0  # not of the first step
    for channel, row, col in ((0, 0, 0), (1, 2, 4), (n - 1, 3, 2)):
        both = []
        for side in (-1e-2, 1e-2):
            y = at[:, :n].clone()
            y[0, channel, row, col] += side
            moved_mean, moved_scale = expected(y)
            both.append(float(gaussian_bits(at - moved_mean, moved_scale).double().sum()))
        assert float(slope[0, channel, row, col]) == pytest.approx((both[1] - both[0]) / 2e-2, rel=0.05, abs=0.05)


@pytest.mark.parametrize("shape", [(9, 14), (4, 5), (13, 3)])
def test_tiles_cover_everything_once(model: AICR, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    latents = 3 * torch.randn(2, 2 * model.config.components, *shape)
    at, target = latents[:, : model.config.components], torch.rand(2, 3, 16 * shape[0] - 5, 16 * shape[1] - 9)
    quality = torch.tensor([10, 50])

    class Local:
        """No position sees another, so that tiles change nothing."""

        def __call__(self, latents: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
            bent = torch.tanh(latents[:, :3] + latents[:, 3:6]) * quality[:, None, None, None]
            return bent.repeat_interleave(16, 2).repeat_interleave(16, 3)

    expected = search._Expected(model, latents)
    whole = [*expected.slopes(at), search._slope_of_distortion(Local(), at, quality, target)]
    monkeypatch.setattr(search, "_TILE", 4)
    counts = torch.zeros(shape)
    for (rows, cols), seen in search._tiles(at):
        assert rows.stop - rows.start <= 4
        assert cols.stop - cols.start <= 4
        assert all(s.start <= t.start < t.stop <= s.stop for s, t in zip(seen, (rows, cols), strict=True))
        counts[rows, cols] += 1
    assert counts.eq(1).all()
    mean, log_scale, slope, of_picture = *expected.slopes(at), search._slope_of_distortion(Local(), at, quality, target)
    for part, of_whole in zip((mean, log_scale, of_picture), (whole[0], whole[1], whole[3]), strict=True):
        torch.testing.assert_close(part, of_whole, rtol=1e-4, atol=1e-4)
    # what is three places away sees edges that are none
    assert float((slope - whole[2]).norm() / whole[2].norm()) < 0.1


def test_a_search_that_finds_nothing_changes_nothing(model: AICR, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    (rounded, z), (better, _) = found(model, x, 0), found(model, x, 6)
    assert not torch.equal(rounded, better)
    monkeypatch.setattr(search, "_towards", lambda residual, *others: 50 * torch.randn_like(residual))
    kept, kept_z = found(model, x, 6)
    assert torch.equal(kept, rounded)
    assert torch.equal(kept_z, z)


def test_a_search_that_finds_nothing_is_made_once_more(model: AICR, monkeypatch: pytest.MonkeyPatch) -> None:
    """By slower means, of the pictures that need it."""
    x, calls, towards = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)), [], search._towards
    (rounded, _), (first, _) = found(model, x, 0), found(model, x, 20)

    def astray(residual: torch.Tensor, *others: object) -> torch.Tensor:
        calls.append(1)
        moved = towards(residual, *others)
        if len(calls) <= 20:
            moved[1] = 50 * torch.randn_like(moved[1])
        return moved

    monkeypatch.setattr(search, "_towards", astray)
    again, _ = found(model, x, 20)
    assert len(calls) == 40
    assert torch.equal(again[0], first[0])
    assert not torch.equal(again[1], rounded[1])
    assert not torch.equal(again[1], first[1])


def test_what_is_found_is_what_is_coded(model: AICR, monkeypatch: pytest.MonkeyPatch) -> None:
    """The integers of the codec round what is whole beyond their own means to the same numbers."""
    monkeypatch.setattr("aicr_ext.codec.codec.has_bfloat16", lambda device: False)
    codec = Codec(model)
    x = torch.rand(2, 3, 80, 64, generator=torch.Generator().manual_seed(0))
    files = codec.compress(x, quality=QUALITY, effort=4)
    assert files == [codec.compress(one, quality=QUALITY, effort=4) for one in x]
    assert files == codec.compress(x, quality=QUALITY, effort=4)
    for file, one in zip(files, x, strict=True):
        latents, _ = found(model, one[None])
        header, streams = container.unpack(file)
        assert (header.width, header.height) == (64, 80)
        decoded, check = decode_latents(codec._priors, codec._hyper_tables, [streams], 5, 4, torch.device("cpu"))
        check()
        torch.testing.assert_close(decoded, latents[:, : model.config.components], rtol=0, atol=0.4)
        assert torch.equal(latents[:, model.config.components :], torch.zeros_like(decoded))


@pytest.mark.parametrize("changes", [{}, UNGATED, {"feedback": False}, {"tone_field": False}, {"detail": 0}])
def test_every_network_with_a_shortcut_can_search(toned: str, changes: dict) -> None:
    model = scaled(replace(TONED, **changes))
    picture = torch.rand(3, 40, 70, generator=torch.Generator().manual_seed(0))
    for precision in ("float32", "bfloat16"):
        codec = Codec(model, precision=precision)
        file = codec.compress(picture, quality=QUALITY, effort=2)
        assert codec.decompress(file).shape == picture.shape
        assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_weights_get_no_gradient(model: AICR) -> None:
    codec = Codec(model.requires_grad_(True))
    codec.compress(torch.rand(3, 32, 32), effort=2)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_what_a_search_aims_at(codec: Codec, photograph: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of the picture itself where nothing is wrong with it; of a noisy one what decoding shows."""
    clean = (photograph[None, :, :112, :128].float() / 255).contiguous()
    noisy = (clean + 25 / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)

    def aim(*pictures: torch.Tensor) -> torch.Tensor:
        return search.restored(codec.model, torch.cat(pictures), codec._decoder)

    def far(picture: torch.Tensor) -> float:
        return -10 * math.log10(float((picture - clean).square().mean()))

    both = aim(clean, noisy)  # each by itself
    with monkeypatch.context() as patch:
        patch.setattr(search, "_NOISE", 8.0)
        patch.setattr(search, "_PICTURE", 9.0)
        shown, shown_noisy = aim(clean), aim(noisy)
    assert far(both[:1]) > far(shown) + 0.2
    torch.testing.assert_close(both[1:], shown_noisy, rtol=0, atol=0.01)
    assert far(both[1:]) > far(noisy) + 5
    assert aim(torch.full((1, 3, 32, 32), 0.5)).isfinite().all()


def test_weights_that_do_not_restore_aim_at_the_picture() -> None:
    model = scaled(replace(TONED, **UNGATED, tone_field=False))
    x = torch.rand(1, 3, 32, 32)
    assert search.restored(model, x, model.synthesis) is x


def test_bad_effort(tiny: str, toned: str) -> None:
    picture = torch.rand(3, 16, 16)
    with pytest.raises(TypeError, match="effort must be an int, got float"):
        aicr_ext.compress(picture, effort=1.0)
    with pytest.raises(TypeError, match="effort must be an int, got bool"):
        aicr_ext.compress(picture, effort=True)
    for effort in (-1, MAX_EFFORT + 1):
        with pytest.raises(ValueError, match=f"effort must be 0 to {MAX_EFFORT}, got {effort}"):
            aicr_ext.compress(picture, effort=effort)
    without = Codec(untrained(CONFIGS[tiny]).eval())
    with pytest.raises(ValueError, match="effort: expected 0, for tiny has no linear shortcut"):
        without.compress(picture, effort=1)
    assert without.compress(picture, effort=0) == without.compress(picture)
    steps = untrained(replace(TONED, **UNGATED, quant_step=True, fusion=(3,))).eval()
    with pytest.raises(ValueError, match="effort: expected 0, for tiny-toned has quantiser steps of its priors"):
        Codec(steps).compress(picture, effort=1)


def test_small_and_odd_pictures(model: AICR) -> None:
    codec = Codec(model)
    for size in ((1, 1), (17, 5), (64, 16)):
        picture = torch.from_numpy(np.asarray(smooth(size[1], size[0]).convert("RGB")).copy()).permute(2, 0, 1)
        assert codec.decompress(codec.compress(picture, effort=2)).shape == (3, *size)
