"""What holds for every kind of degradation: the same result from the same seed, limits, parameters, errors."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from degradation_cases import flat, generator, picture
from hypothesis import given, settings
from hypothesis import strategies as st

from aicr_ext.degradations import (
    KINDS,
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
)

each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
def test_same_seed_same_result(kind: str) -> None:
    first, again, other = (degrade(picture(), kind, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@each_kind
def test_the_default_dtype_plays_no_part(kind: str) -> None:
    expected = degrade(picture(), kind, generator(1))
    torch.set_default_dtype(torch.float64)
    try:
        found = degrade(picture(), kind, generator(1))
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


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
