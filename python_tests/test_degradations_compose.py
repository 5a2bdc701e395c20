"""Several degradations on one picture: their order, how often they happen, records; and the sheet that shows them."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from degradation_cases import flat, generator, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import smooth
from PIL import Image

from aicr_ext.degradations import KINDS, PROBABILITIES, STAGES, Compose, random_degradation, replay, sheet


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
