"""Haze, rain and snow: their formulas, depth, particles and veils."""

from __future__ import annotations

import math

import pytest
import torch
from degradation_cases import CPU, flat, generator, picture

from aicr_ext.degradations import Degradation, Haze, Rain, Snow, random_depth, scatter
from aicr_ext.degradations.convolve import splat
from aicr_ext.degradations.rain import streak_kernels
from aicr_ext.degradations.snow import flake_kernels


def test_scattering_follows_its_formula() -> None:
    image, depth, air = picture()[None], torch.rand(1, 1, 24, 32, generator=generator()), (0.9, 0.8, 0.7)
    t = torch.exp(-1.3 * depth)
    expected = image * t + torch.tensor(air)[:, None, None] * (1 - t)
    assert torch.allclose(scatter(image, depth, 1.3, air), expected, atol=1e-6)
    assert torch.equal(scatter(image, depth, 0.0, air), image)


def test_haze_hides_the_picture_behind_air_by_depth() -> None:
    haze = Haze(beta=1.5, airlight=(0.8, 0.85, 0.9), near=0.3)
    depth = 0.3 + 0.7 * random_depth((1, 24, 32), generator(3), CPU)
    hazy = haze(picture(), generator(3))
    assert torch.allclose(hazy, scatter(picture()[None], depth, 1.5, haze.airlight)[0], atol=1e-6)
    thick = Haze(beta=100.0, airlight=(0.8, 0.85, 0.9), near=0.5)(picture(), generator())
    assert torch.allclose(thick, torch.tensor([0.8, 0.85, 0.9])[:, None, None].expand_as(thick), atol=1e-6)


def test_depth_is_smooth_within_limits_and_farther_at_the_top() -> None:
    depth = random_depth((40, 64, 48), generator(), CPU)
    assert depth.shape == (40, 1, 64, 48)
    assert depth.min() >= 0
    assert depth.max() <= 1
    assert depth.diff(dim=2).abs().max() < 0.05
    assert depth.diff(dim=3).abs().max() < 0.05
    assert depth[:, :, :16].mean() > depth[:, :, -16:].mean() + 0.2
    assert depth.flatten(1).std(1).min() > 0.05


@pytest.mark.parametrize("cls", [Rain, Snow])
def test_particles_cover_and_brighten_with_their_amount(cls: type[Degradation]) -> None:
    dark = flat(0.1, 128)
    covered = []
    for amount in (0.02, 0.1, 0.4):
        result = cls(amount=amount)(dark, generator())
        assert (result >= dark - 1e-6).all()
        assert torch.allclose(result[0], result[1])  # no colour of their own
        covered.append((result[0] > 0.15).float().mean().item())
        assert 0.4 * amount < covered[-1] < 2 * amount
    assert covered == sorted(covered)


@pytest.mark.parametrize("cls", [Rain, Snow])
def test_particles_end_at_their_light_and_opacity(cls: type[Degradation]) -> None:
    thick = cls(amount=1.0, light=0.7, opacity=0.5)(flat(0.2, 64), generator())
    assert thick.max() <= 0.2 + 0.5 * (0.7 - 0.2) + 1e-6
    assert thick.max() > 0.4
    assert torch.allclose(cls(opacity=0.0)(picture(), generator()), picture(), atol=1e-6)
    assert torch.allclose(cls(amount=0.0)(picture(), generator()), picture(), atol=1e-5)


@pytest.mark.parametrize("cls", [Rain, Snow])
def test_a_veil_hides_no_more_than_it_says(cls: type[Degradation]) -> None:
    black, veil = flat(0.0, 64), 0.6
    veiled = cls(amount=0.0, light=1.0, veil=veil)(black, generator())
    assert veiled.max() <= veil + 1e-5
    assert veiled.max() > 0.3
    assert veiled.std() > 0.01  # it follows the depth


def test_additive_streaks_add_their_light() -> None:
    params = {"amount": 0.3, "light": 0.8, "opacity": 0.5}
    dark, grey = (Rain(**params, additive=True)(flat(value, 64), generator()) for value in (0.0, 0.3))
    assert torch.allclose(dark + 0.3, grey, atol=1e-6)
    assert 0.3 < dark.max() <= 0.8 * 0.5
    assert Rain(**params, additive=True)(flat(0.9, 64), generator()).max() == 1


@pytest.mark.parametrize("angle", [-30.0, 0.0, 30.0])
def test_streaks_run_along_their_angle(angle: float) -> None:
    kernel = streak_kernels([40.0], [1.5], [angle], CPU)[0]
    side = (kernel.shape[0] - 1) // 2
    y, x = torch.meshgrid(*(torch.arange(-side, side + 1.0),) * 2, indexing="ij")
    xx, yy, xy = ((kernel * a * b).sum() for a, b in ((x, x), (y, y), (x, y)))
    # The main axis of inertia; a positive angle leans to the lower left.
    main = math.degrees(0.5 * math.atan2(2 * float(xy), float(yy - xx)))
    assert main == pytest.approx(-angle, abs=1)
    assert kernel.max() <= 1
    assert kernel.max() > 0.95
    assert kernel[:, [0, -1]].max() < 1e-3
    assert kernel[[0, -1]].max() < 1e-3


def test_streaks_that_are_too_thin_become_fainter() -> None:
    wide, thin = streak_kernels([20.0, 20.0], [1.1, 0.55], [0.0, 0.0], CPU)
    assert torch.allclose(thin, wide / 2, atol=1e-6)


def test_flakes_end_before_the_border_of_their_kernel() -> None:
    sizes = [1.2, 1.5, 2.0, 4.0, 4.0, 8.0, 8.0, 16.0]
    kernels = flake_kernels(sizes, [s / 2 for s in sizes], [20.0] * 8, generator(), CPU)
    assert kernels.min() >= 0
    assert kernels.max() <= 1
    assert kernels.flatten(1).amax(1).min() > 0.2
    for border in (kernels[:, 0], kernels[:, -1], kernels[:, :, 0], kernels[:, :, -1]):
        assert border.max() == 0


def test_splat_is_a_convolution_of_the_expected_number_of_points() -> None:
    dot = torch.zeros(1, 5, 5)
    dot[0, 2, 2] = 1
    points = splat((1, 200, 200), dot, [0.02], generator(), CPU)
    assert (points > 1e-4).float().mean().item() == pytest.approx(0.02, rel=0.1)
    assert points[points > 1e-4].mean().item() == pytest.approx(0.5, abs=0.03)
    kernel = torch.rand(1, 5, 5, generator=generator(1))
    spread = splat((1, 196, 196), kernel, [0.02], generator(), CPU)
    # The same draws, for a picture with the kernel's reach around it: nothing wraps around from the other side.
    around = (1 - torch.rand(1, 1, 200, 200, generator=generator()) / 0.02).clamp_min(0)
    direct = torch.nn.functional.conv2d(around, kernel.flip(1, 2)[None])
    assert torch.allclose(spread, direct, atol=1e-4)
    # The border is as full as the middle: particles outside reach in.
    assert spread[..., 0, :].mean().item() == pytest.approx(spread.mean().item(), rel=0.3)
