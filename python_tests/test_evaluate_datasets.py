"""What the evaluation measures on: synthetic degradation and data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluate_cases import picture
from pictures import smooth

from aicr_ext.degradations import RawNoise
from aicr_ext.evaluate import DataSet, Synthetic, open_folder
from aicr_ext.evaluate.text import parse_call

# synthetic degradation


def test_gaussian_noise_is_numpys_seed_0() -> None:
    clean = picture()
    np.random.seed(0)  # noqa: NPY002 (the convention itself)
    noise = np.random.randn(*clean.shape)  # noqa: NPY002
    damaged, exact = Synthetic("gaussian_noise:sigma=25")(clean, "any name")
    assert np.array_equal(damaged, np.clip(np.round(clean + 25 * noise), 0, 255).astype(np.uint8))
    assert np.allclose(exact * 255, clean + 25 * noise, atol=1e-3)
    assert exact.min() < 0
    assert exact.dtype == np.float32
    other, _ = Synthetic("gaussian_noise:sigma=25,seed=1")(clean, "any name")
    assert not np.array_equal(other, damaged)


@pytest.mark.parametrize("text", ["haze:seed=3", "rain:amount=0.3,length=20", "random", "jpeg:quality=20"])
def test_synthetic_damage_depends_on_seed_and_name_only(text: str) -> None:
    clean = picture()
    damaged, exact = Synthetic(text)(clean, "a.png")
    Synthetic(text)(clean, "b.png")
    again, _ = Synthetic(text)(clean, "a.png")
    assert np.array_equal(damaged, again)
    assert np.array_equal(damaged, np.round(exact * 255))
    assert damaged.shape == clean.shape
    if text.startswith("haze"):
        assert not np.array_equal(damaged, Synthetic(text)(clean, "b.png")[0])
        assert not np.array_equal(damaged, Synthetic("haze:seed=4")(clean, "a.png")[0])


def test_parameters_reach_the_degradation() -> None:
    assert Synthetic("raw_noise:gain=4").fixed == RawNoise.for_gain(4)
    haze = Synthetic("haze:beta=1,airlight=0.8/0.85/0.9").fixed
    assert haze.beta == 1
    assert tuple(haze.airlight) == (0.8, 0.85, 0.9)


@pytest.mark.parametrize(
    "text, message",
    [
        ("fog", "expected one of haze, rain"),
        ("haze:thickness=2", "unknown option thickness; accepted: beta"),
        ("raw_noise:gain=3", "expected one of 1, 2, 4, 8"),
        ("gaussian_noise:sigma=much", "sigma must be a number"),
        ("gaussian_noise:sigma=25,seed=-1", "seed must be a whole number"),
        ("haze:beta", "expected one of"),
        ("haze beta=1", "expected NAME"),
        ("random:gain=1", "unknown option gain"),
    ],
)
def test_bad_degradations_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Synthetic(text)


def test_text_of_calls() -> None:
    assert parse_call("avif:subsampling=4:2:0,speed=4") == ("avif", {"subsampling": "4:2:0", "speed": 4})
    assert parse_call("a.b:c:x=1.5,y=true") == ("a.b:c", {"x": 1.5, "y": True})
    assert parse_call("dir/plug-in.py:c") == ("dir/plug-in.py:c", {})


# data sets


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    for side, value in (("input", 90), ("target", 100)):
        (tmp_path / "set" / side).mkdir(parents=True)
        for name in "ab":
            smooth().point(lambda v, value=value: v * value // 100).save(tmp_path / "set" / side / f"{name}.png")
    return tmp_path / "set"


def read(data: DataSet) -> list:
    assert len(data) == len(list(data))
    return list(data)


def test_folder_of_clean_pictures(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        smooth().save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    data = open_folder(tmp_path)
    assert (data.kind, data.label, data.names) == ("clean", tmp_path.name, ("a.png", "b.png"))
    first = read(data)[0]
    assert np.array_equal(first.input, picture())
    assert np.array_equal(first.target, picture())
    assert not first.damaged
    real = open_folder(tmp_path, name="real", target=False, limit=1)
    assert (real.kind, real.label, len(real)) == ("no target", "real", 1)
    assert read(real)[0].target is None


def test_damaged_pictures_are_the_same_whatever_the_limit(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        smooth().save(tmp_path / name)
    whole = {s.name: s for s in open_folder(tmp_path, name="k", degradation="snow:seed=2")}
    (tmp_path / "a.png").unlink()
    less = open_folder(tmp_path, name="k", degradation="snow:seed=2", limit=1)
    assert less.kind == "synthetic"
    assert less.label == "k+snow:seed=2"
    (sample,) = less
    assert sample.damaged
    assert sample.pixels == whole["b.png"].pixels != whole["c.png"].pixels
    assert np.array_equal(sample.target, picture())


def test_pairs(pairs: Path) -> None:
    (pairs / "target" / "a.png").rename(pairs / "target" / "a.bmp")
    data = open_folder(pairs)
    assert (data.kind, data.names) == ("pairs", ("a", "b"))
    first = read(data)[0]
    assert first.name == "a.png"
    assert first.input.max() < first.target.max()
    assert open_folder(pairs, target=False).kind == "no target"


def test_bad_folders_are_named(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs clean pictures"):
        open_folder(pairs, degradation="haze")
    (pairs / "input" / "c.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 pictures without partner in input/ or target/: c"):
        open_folder(pairs)
    (pairs / "input" / "c.png").unlink()
    smooth(32, 32).save(pairs / "input" / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: input and target differ in size, 32x32 and 64x48"):
        read(open_folder(pairs))
    smooth().save(pairs / "input" / "a.bmp")
    with pytest.raises(ValueError, match="several files named a"):
        open_folder(pairs)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no pictures in it"):
        open_folder(tmp_path)
