"""What a camera does to a picture: noise, little light, blur, JPEG; their statistics and formulas."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from degradation_cases import flat, generator, picture
from pictures import smooth
from PIL import Image

from aicr_ext.degradations import (
    RAW_NOISE_GAINS,
    SIGMAS,
    Defocus,
    Degradation,
    GaussianNoise,
    Jpeg,
    LowLight,
    MotionBlur,
    RawNoise,
    to_linear,
    to_srgb,
)
from aicr_ext.degradations.blur import disc_kernel, shake_kernel
from aicr_ext.degradations.convolve import blur

# Noise, little light


@pytest.mark.parametrize("sigma", SIGMAS)
def test_gaussian_noise_has_its_deviation_and_no_structure(sigma: float) -> None:
    noise = GaussianNoise(sigma, quantise=False)(flat(0.5), generator()) - 0.5
    assert noise.std().item() == pytest.approx(sigma, rel=0.02)
    assert abs(noise.mean().item()) < 0.03 * sigma
    between_channels = torch.corrcoef(noise.flatten(1))
    assert (between_channels - torch.eye(3)).abs().max() < 0.03
    assert abs((noise[:, :, 1:] * noise[:, :, :-1]).mean().item()) < 0.03 * sigma**2


def test_gaussian_noise_is_clipped_and_rounded_only_where_asked() -> None:
    white = flat(1.0, 64)
    free = GaussianNoise(SIGMAS[2], quantise=False)(white, generator())
    kept = GaussianNoise(SIGMAS[2])(white, generator())
    assert free.max() > 1.1
    assert torch.equal(kept, free.clamp(0, 1).mul(255).round().div(255))


def test_the_four_gains_are_those_of_the_paper() -> None:
    assert list(RAW_NOISE_GAINS) == [1, 2, 4, 8]
    assert [RawNoise.for_gain(gain).read for gain in (1, 2, 4, 8)] == [0.0068354, 0.01572141, 0.03615925, 0.08316627]
    shots = [math.sqrt(RawNoise.for_gain(gain).shot) for gain in (1, 2, 4, 8)]
    assert shots == pytest.approx([0.05200081, 0.07886314, 0.11960187, 0.18138522])
    with pytest.raises(ValueError, match="expected one of 1, 2, 4, 8, got 3"):
        RawNoise.for_gain(3)


@pytest.mark.parametrize("light", [0.1, 0.4, 0.7])
def test_raw_noise_has_a_read_and_a_shot_term(light: float) -> None:
    image = to_srgb(torch.full((3, 160, 160), light))
    for read, shot in ((0.02, 0.0), (0.0, 0.002), (0.01, 0.001)):
        noise = to_linear(RawNoise(read, shot)(image, generator())) - light
        assert noise.var().item() == pytest.approx(read**2 + shot * light, rel=0.04)
        assert abs(noise.mean().item()) < 0.001


def test_raw_noise_is_drawn_from_the_training_ranges() -> None:
    samples = [RawNoise.sample(generator(seed)) for seed in range(200)]
    read, shot = [math.log10(s.read) for s in samples], [math.log10(s.shot) for s in samples]
    assert min(read) >= -3
    assert max(read) <= -1.5
    assert np.mean(read) == pytest.approx(-2.25, abs=0.1)
    assert min(shot) >= -4
    assert max(shot) <= -2
    assert np.mean(shot) == pytest.approx(-3, abs=0.15)


def test_srgb_curve() -> None:
    known = torch.tensor([0.0, 0.02, 0.04045, 0.5, 1.0])
    light = torch.tensor([0.0, 0.02 / 12.92, 0.0031308, 0.2140411, 1.0])
    assert torch.allclose(to_linear(known), light, atol=1e-6)
    every = torch.arange(256) / 255
    assert torch.allclose(to_srgb(to_linear(every)), every, atol=1e-6)
    assert torch.allclose(to_srgb(torch.tensor([-0.5, 2.0])), torch.tensor([0.0, 1.0]), atol=1e-6)


def test_low_light_is_the_formula_without_noise_and_noisier_in_proportion_with_it() -> None:
    image = picture()
    dark = LowLight(exposure=0.2, gamma=1.5, read=0, shot=0)(image, generator())
    assert torch.allclose(to_linear(dark), 0.2 * to_linear(image) ** 1.5, atol=1e-5)
    light = to_linear(LowLight(exposure=0.25, gamma=1.0, read=0.005, shot=0.001)(flat(1.0), generator()))
    assert light.mean().item() == pytest.approx(0.25, abs=0.001)
    assert light.var().item() == pytest.approx(0.005**2 + 0.001 * 0.25, rel=0.04)


# Blur


@pytest.mark.parametrize("shape", [(24, 32), (1, 1), (7, 3)])
def test_blur_is_the_direct_convolution(shape: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *shape, generator=generator())
    kernel = torch.rand(7, 7, generator=generator(1))
    padded = torch.nn.functional.pad(image, (3,) * 4, mode="replicate")
    # conv2d correlates: a convolution turns the kernel round.
    direct = torch.nn.functional.conv2d(padded, kernel.flip(0, 1).expand(3, 1, 7, 7), groups=3)
    assert torch.allclose(blur(image, kernel), direct, atol=1e-4)


@pytest.mark.parametrize("degradation", [MotionBlur(15, 30, 60), Defocus(4.5)])
def test_blur_keeps_the_light(degradation: Degradation) -> None:
    assert torch.allclose(degradation(flat(0.37, 32), generator()), flat(0.37, 32), atol=1e-5)
    image = flat(0.2, 64)
    image[:, 24:40, 24:40] = torch.rand(3, 16, 16, generator=generator())
    blurred = degradation(image, generator())
    assert to_linear(blurred).mean().item() == pytest.approx(to_linear(image).mean().item(), rel=1e-4)
    assert blurred.std() < 0.9 * image.std()


def test_kernels_of_blur() -> None:
    assert torch.equal(disc_kernel(0), torch.ones(1, 1))
    disc = disc_kernel(5)
    assert disc.sum().item() == pytest.approx(1)
    assert (disc > 0).sum().item() == pytest.approx(math.pi * 5.5**2, rel=0.1)
    still = shake_kernel(0, 0, 0, generator())
    assert torch.allclose(still, torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]))
    line = shake_kernel(15, 0, 0, generator())
    middle = line.shape[0] // 2
    assert line[middle].sum().item() == pytest.approx(1, abs=1e-5)
    assert (line[middle] > 0.01).sum().item() in (15, 16, 17)
    upright = shake_kernel(15, 90, 0, generator())
    assert torch.allclose(upright, line.T, atol=1e-4)
    rising = shake_kernel(15, 45, 0, generator())  # rows go down, so a rising line is the other diagonal
    assert rising.flip(0).trace() > 3 * rising.trace()
    bent = shake_kernel(15, 0, 90, generator())
    axis = torch.arange(bent.shape[0]) - bent.shape[0] // 2
    assert abs((bent.sum(0) * axis).sum().item()) < 1e-4  # the picture stays where it is
    assert abs((bent.sum(1) * axis).sum().item()) < 1e-4


# JPEG


@pytest.mark.parametrize("quality,subsampling", [(10, "4:2:0"), (60, "4:4:4"), (95, "4:2:2")])
def test_jpeg_is_pillows(quality: int, subsampling: str) -> None:
    file = io.BytesIO()
    smooth(37, 21).save(file, "JPEG", quality=quality, subsampling=subsampling)
    expected = np.asarray(Image.open(file))
    result = Jpeg(quality, subsampling)(picture(21, 37).expand(2, -1, -1, -1), generator())
    for one in result:
        assert np.array_equal(one.mul(255).round().permute(1, 2, 0).numpy(), expected)
