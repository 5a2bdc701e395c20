"""Degradations: their statistics, formulas and limits, the same result from the same seed, records, errors."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import smooth
from PIL import Image
from torch import Tensor

from aicr_ext.degradations import (
    KINDS,
    PROBABILITIES,
    RAW_NOISE_GAINS,
    SIGMAS,
    STAGES,
    Compose,
    Defocus,
    Degradation,
    GaussianNoise,
    Haze,
    Jpeg,
    LowLight,
    MotionBlur,
    Rain,
    RawNoise,
    Snow,
    degrade,
    random_degradation,
    random_depth,
    replay,
    scatter,
    sheet,
    to_linear,
    to_srgb,
)
from aicr_ext.degradations.blur import disc_kernel, shake_kernel
from aicr_ext.degradations.convolve import blur, splat
from aicr_ext.degradations.rain import streak_kernels
from aicr_ext.degradations.snow import flake_kernels

CPU = torch.device("cpu")

each_kind = pytest.mark.parametrize("kind", KINDS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(height: int = 24, width: int = 32) -> Tensor:
    """Smooth and coloured, as photographs are."""
    return torch.from_numpy(np.array(smooth(width, height))).permute(2, 0, 1).float().div(255)


def flat(value: float, side: int = 160) -> Tensor:
    return torch.full((3, side, side), value)


# What holds for all kinds


@each_kind
def test_same_seed_same_result(kind: str) -> None:
    first, again, other = (degrade(picture(), kind, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@each_kind
def test_global_random_state_plays_no_part(kind: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = degrade(picture(), kind, generator(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    torch.manual_seed(2)
    assert torch.equal(degrade(picture(), kind, generator(3)), first)


@each_kind
def test_the_picture_is_not_touched_and_the_result_shares_no_memory(kind: str) -> None:
    image = picture()
    copy = image.clone()
    result = degrade(image, kind, generator(4))
    result.fill_(0.5)
    assert torch.equal(image, copy)


@each_kind
@settings(max_examples=12, deadline=None)
@given(st.integers(1, 33), st.integers(1, 33), st.integers(0, 2**32 - 1), st.sampled_from([None, 1, 2]))
def test_any_size_stays_a_picture(kind: str, height: int, width: int, seed: int, batch: int | None) -> None:
    image = torch.rand(*([batch] if batch else []), 3, height, width, generator=generator(seed))
    result = degrade(image, kind, generator(seed))
    assert (result.shape, result.dtype, result.device) == (image.shape, image.dtype, image.device)
    assert result.min() >= 0
    assert result.max() <= 1  # fails for NaN too


@each_kind
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_stay_in_range(kind: str, value: float) -> None:
    for seed in range(5):
        result = degrade(flat(value, 17), kind, generator(seed))
        assert result.min() >= 0
        assert result.max() <= 1


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"jpeg", "defocus"}))
def test_pictures_of_a_batch_have_draws_of_their_own(kind: str) -> None:
    batch = KINDS[kind].sample(generator(5))(picture().expand(2, -1, -1, -1), generator(5))
    assert not torch.equal(batch[0], batch[1])


@each_kind
def test_a_batch_of_one_is_the_picture(kind: str) -> None:
    degradation = KINDS[kind].sample(generator(6))
    alone = degradation(picture(), generator(7))
    assert torch.equal(degradation(picture()[None], generator(7))[0], alone)


@each_kind
def test_memory_format_does_not_matter(kind: str) -> None:
    image = picture()[None]
    moved = image.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(degrade(moved, kind, generator(8)), degrade(image, kind, generator(8)), atol=1e-6)


@each_kind
def test_parameters_are_frozen_random_and_survive_json(kind: str) -> None:
    cls = KINDS[kind]
    assert cls.kind == kind
    samples = [cls.sample(generator(seed)) for seed in range(8)]
    assert len(set(samples)) > 1
    for sample in samples:
        assert cls(**json.loads(json.dumps(sample.parameters))) == sample
    name = dataclasses.fields(cls)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(samples[0], name, 0)


@each_kind
def test_sampled_degradations_leave_a_recognisable_picture(kind: str) -> None:
    image = picture(48, 64)
    changed = 0
    for seed in range(12):
        result = degrade(image, kind, generator(seed))
        changed += not torch.equal(result, image)
        together = torch.corrcoef(torch.stack([image.mean(0).flatten(), result.mean(0).flatten()]))[0, 1]
        assert together > 0.25, f"seed {seed}"
    assert changed == 12


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@each_kind
def test_a_cpu_generator_makes_the_same_picture_on_a_gpu(kind: str) -> None:
    on_cpu = degrade(picture(), kind, generator(9))
    on_gpu = degrade(picture().cuda(), kind, generator(9))
    assert on_gpu.is_cuda
    # One step of 8 bits where rounding goes the other way; JPEG starts from such samples.
    assert torch.allclose(on_gpu.cpu(), on_cpu, atol=1.01 / 255)
    assert degrade(picture().cuda(), kind, torch.Generator("cuda").manual_seed(9)).is_cuda


# Noise


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


# Haze, rain, snow


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


# Combinations


def test_order_is_physical_whatever_order_is_asked_for() -> None:
    assert [kind for stage in STAGES for kind in stage] == list(KINDS)
    certain = ["jpeg", "gaussian_noise", "low_light", "defocus", "snow", "haze"]
    _, record = random_degradation(picture(), generator(), dict.fromkeys(certain, 1.0))
    assert [step["kind"] for step in record] == certain[::-1]


def test_kinds_happen_as_often_as_they_should_and_one_of_a_stage() -> None:
    count, seen = 400, dict.fromkeys(KINDS, 0)
    source, dot = generator(), flat(0.5, 1)
    for _ in range(count):
        _, record = random_degradation(dot, source)
        kinds = [step["kind"] for step in record]
        assert kinds == sorted(kinds, key=list(KINDS).index)
        assert all(len(set(stage) & set(kinds)) <= 1 for stage in STAGES)
        for kind in kinds:
            seen[kind] += 1
    for kind, times in seen.items():
        p = PROBABILITIES[kind]
        assert abs(times - count * p) < 4 * math.sqrt(count * p * (1 - p)), kind


def test_only_the_kinds_asked_for_and_those_as_often_as_usual() -> None:
    source, dot = generator(), flat(0.5, 1)
    records = [random_degradation(dot, source, ["haze", "jpeg"])[1] for _ in range(400)]
    kinds = [step["kind"] for record in records for step in record]
    assert set(kinds) == {"haze", "jpeg"}
    assert abs(kinds.count("haze") - 400 * PROBABILITIES["haze"]) < 32  # four standard deviations


def test_no_kind_is_a_clean_copy() -> None:
    image = picture()
    result, record = random_degradation(image, generator(), {"rain": 0.0})
    assert record == []
    assert torch.equal(result, image)
    assert result.data_ptr() != image.data_ptr()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 20), st.sampled_from([None, 1, 2]))
def test_a_record_from_a_log_makes_the_same_picture(seed: int, height: int, width: int, batch: int | None) -> None:
    image = torch.rand(*([batch] if batch else []), 3, height, width, generator=generator(seed))
    result, record = random_degradation(image, generator(seed))
    again, same_record = random_degradation(image, generator(seed))
    assert torch.equal(result, again)
    assert record == same_record
    assert result.shape == image.shape
    assert result.min() >= 0
    assert result.max() <= 1
    assert torch.equal(replay(image, json.loads(json.dumps(record))), result)


def test_a_record_says_what_was_done() -> None:
    image = picture()
    result, record = random_degradation(image, generator(2), {"haze": 1, "rain": 1, "raw_noise": 1, "jpeg": 1})
    assert len(record) == 4
    for step in record:
        image = KINDS[step["kind"]](**step["parameters"])(image, generator(step["seed"]))
    assert torch.equal(result, image)
    assert len({step["seed"] for step in record}) == 4


def test_compose_can_be_sent_to_workers_and_keeps_its_own_probabilities() -> None:
    mine = {"snow": 1.0}
    compose = Compose(mine)
    mine["snow"] = 0.0
    result, record = pickle.loads(pickle.dumps(compose))(picture(), generator())
    assert [step["kind"] for step in record] == ["snow"]
    assert torch.equal(compose(picture(), generator())[0], result)


def test_bad_combinations_are_named() -> None:
    with pytest.raises(ValueError, match=r"kind: expected one of haze, .*, got 'fog'"):
        random_degradation(picture(), generator(), ["rain", "fog"])
    with pytest.raises(ValueError, match=r"kind: expected one of haze, .*, got 'fog'"):
        Compose({"fog": 0.1})
    with pytest.raises(ValueError, match="probability of rain: expected 0 to 1, got 2"):
        Compose({"rain": 2})
    with pytest.raises(ValueError, match=r"rain and snow exclude each other.*at most 1, got 1\.5"):
        random_degradation(picture(), generator(), {"rain": 0.75, "snow": 0.75})
    with pytest.raises(TypeError, match=r"kinds: .* got the text 'rain'; use \['rain'\]"):
        random_degradation(picture(), generator(), "rain")
    with pytest.raises(TypeError, match="generator: expected"):
        random_degradation(picture(), None)
    with pytest.raises(ValueError, match="got NaN"):
        random_degradation(torch.full((3, 2, 2), math.nan), generator())
    with pytest.raises(ValueError, match="record: expected steps with kind, seed and parameters, got "):
        replay(picture(), [{"kind": "rain"}])


# The picture of the documentation


def test_contact_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "sheet.jpg"
    smooth(64, 16).save(photo)
    assert sheet.main([str(photo), str(out)]) == 0
    with Image.open(out) as written:
        assert written.format == "JPEG"
        assert written.size == sheet.contact_sheet(smooth(64, 16)).size
    shown = {step.kind for _, steps in sheet.PANELS for step in steps}
    assert shown == set(KINDS)
    assert sheet.main([str(tmp_path / "none.png"), str(out)]) == 1
    assert "none.png" in capsys.readouterr().err


# Errors


@each_kind
def test_bad_pictures_are_named(kind: str) -> None:
    nan = picture()
    nan[1, 2, 3] = math.nan
    for error, message, image in (
        (TypeError, "image: expected a torch tensor, got ndarray", np.zeros((3, 4, 4))),
        (TypeError, "expected float32.*got torch.uint8", torch.zeros(3, 4, 4, dtype=torch.uint8)),
        (TypeError, "expected float32.*got torch.float64", torch.zeros(3, 4, 4, dtype=torch.float64)),
        (ValueError, r"expected shape .*got \(4, 4, 3\)", torch.zeros(4, 4, 3)),
        (ValueError, r"expected shape .*got \(4, 4\)", torch.zeros(4, 4)),
        (ValueError, r"expected shape .*got \(3, 0, 4\)", torch.zeros(3, 0, 4)),
        (ValueError, r"expected shape .*got \(0, 3, 4, 4\)", torch.zeros(0, 3, 4, 4)),
        (ValueError, r"expected values in \[0, 1\], got NaN", nan),
        (ValueError, r"expected values in \[0, 1\], got 0 to 255", 255 * torch.eye(4).expand(3, 4, 4)),
        (ValueError, r"expected values in \[0, 1\], got -inf to 0", torch.tensor([0.0, -math.inf]).expand(3, 1, 2)),
    ):
        with pytest.raises(error, match=message):
            degrade(image, kind, generator())
        with pytest.raises(error, match=message):
            KINDS[kind]()(image, generator())


@pytest.mark.parametrize("given", [None, 0, np.random.default_rng(0)])
def test_the_generator_must_be_given(given: object) -> None:
    with pytest.raises(TypeError, match=r"generator: expected a torch\.Generator, got"):
        degrade(picture(), "rain", given)
    with pytest.raises(TypeError, match=r"generator: expected a torch\.Generator, got"):
        Rain()(picture(), given)


@pytest.mark.parametrize("kind", ["fog", "", None, ["rain"]])
def test_unknown_kinds_are_answered_with_the_known_ones(kind: object) -> None:
    with pytest.raises(ValueError, match=r"expected one of haze, rain, snow, .*jpeg, got") as caught:
        degrade(picture(), kind, generator())
    assert repr(kind) in str(caught.value)


@pytest.mark.parametrize(
    "cls,parameters,message",
    [
        (GaussianNoise, {"sigma": -0.1}, "sigma: expected at least 0, got -0.1"),
        (GaussianNoise, {"sigma": math.nan}, "sigma: expected at least 0, got nan"),
        (RawNoise, {"read": math.inf}, "read: expected at least 0, got inf"),
        (RawNoise, {"shot": -1}, "shot: expected at least 0, got -1"),
        (LowLight, {"exposure": 2}, "exposure: expected 0 to 1, got 2"),
        (LowLight, {"gamma": 0}, "gamma: expected 0.1 to 10, got 0"),
        (Haze, {"beta": -1}, "beta: expected at least 0, got -1"),
        (Haze, {"airlight": (1, 1)}, "airlight: expected 3 numbers, got 2"),
        (Haze, {"airlight": (1, 1, 2)}, "airlight: expected 0 to 1, got 2"),
        (Rain, {"length": 0}, "length: expected 1 to 200, got 0"),
        (Rain, {"veil": 1}, "veil: expected 0 to 0.95, got 1"),
        (Snow, {"size": 0.5}, "size: expected 1 to 100, got 0.5"),
        (Snow, {"opacity": 1.5}, "opacity: expected 0 to 1, got 1.5"),
        (MotionBlur, {"length": -1}, "length: expected 0 to 201, got -1"),
        (Defocus, {"radius": 101}, "radius: expected 0 to 100.5, got 101"),
        (Jpeg, {"quality": 0}, "quality: expected 1 to 100, got 0"),
        (Jpeg, {"subsampling": "4:1:1"}, "subsampling: expected one of 4:2:0, 4:2:2, 4:4:4, got '4:1:1'"),
    ],
)
def test_bad_parameters_are_named(cls: type[Degradation], parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**parameters)


def test_parameters_must_be_numbers() -> None:
    with pytest.raises(TypeError, match="sigma: expected a number, got str"):
        GaussianNoise("25")
    with pytest.raises(TypeError, match="quality: expected a whole number, got 50"):
        Jpeg(50.0)
    with pytest.raises(TypeError, match="veil: expected a number, got bool"):
        Rain(veil=True)
