"""The parts of the evaluation: metrics, data sets, synthetic degradation, codecs, cascades, curves."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pictures import smooth

from aicr_ext.degradations import RawNoise
from aicr_ext.errors import MissingPackageError
from aicr_ext.evaluate import (
    Cascade,
    Curve,
    DataSet,
    ModelCodec,
    PillowCodec,
    Restorer,
    Synthetic,
    build_codecs,
    compare,
    decibel,
    metrics,
    ms_ssim,
    non_local_means,
    open_folder,
    psnr,
    read_anchors,
)
from aicr_ext.evaluate.curves import front
from aicr_ext.evaluate.extras import load
from aicr_ext.evaluate.restorers import noise_level
from aicr_ext.evaluate.text import parse_call


def picture(width: int = 64, height: int = 48) -> np.ndarray:
    return np.array(smooth(width, height))


def grey(value: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


# metrics


def test_psnr_by_hand() -> None:
    assert psnr(grey(100), grey(110)) == pytest.approx(20 * math.log10(25.5))
    half = grey(100)
    half[:24] = 110  # half the pixels: half the mean squared error
    assert psnr(half, grey(100)) == pytest.approx(20 * math.log10(25.5) + 10 * math.log10(2))
    assert psnr(grey(7), grey(7)) == math.inf
    assert psnr(grey(0), grey(255)) == 0  # no wrap of unsigned samples
    assert psnr(np.full((4, 4, 3), 1.5), np.full((4, 4, 3), 1.0), peak=1) == pytest.approx(10 * math.log10(4))


def test_ms_ssim_of_constant_pictures_by_hand() -> None:
    """Without structure only the luminance of the coarsest scale is left, to the power of its weight."""
    a, b, c = 100, 140, (0.01 * 255) ** 2
    luminance = (2 * a * b + c) / (a * a + b * b + c)
    assert ms_ssim(grey(a, 176, 192), grey(b, 176, 192)) == pytest.approx(luminance**0.1333, abs=1e-4)
    assert ms_ssim(grey(a, 176, 161), grey(b, 176, 161)) is not None
    assert ms_ssim(grey(a, 176, 160), grey(b, 176, 160)) is None


def test_decibel() -> None:
    assert decibel(0.99) == pytest.approx(20)
    assert decibel(1.0) == math.inf
    assert decibel(None) is None


def test_lpips_sees_pictures_in_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            assert a.shape == b.shape == (1, 3, 48, 64)
            return (a - b).abs().mean().view(1, 1, 1, 1)

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=lambda net, verbose: Network()))
    metrics._alexnet.cache_clear()
    assert metrics.lpips(grey(0), grey(255)) == pytest.approx(2)
    metrics._alexnet.cache_clear()


def test_missing_package_says_how_to_get_it() -> None:
    with pytest.raises(MissingPackageError, match=r"package no_such_package.*pip install 'aicr_ext\[perceptual\]'"):
        load("no_such_package", "perceptual")


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


# codecs, restorers, cascades


@pytest.fixture(scope="module")
def ours() -> ModelCodec:
    return ModelCodec()


def test_our_codec() -> None:
    ours, image = ModelCodec("aicr-t-clean"), picture()
    data = ours.encode(image, 63)
    decoded = ours.decode(data)
    assert decoded.dtype == np.uint8
    assert psnr(decoded, image) > 35
    assert ours.qualities == (0, 9, 18, 27, 36, 45, 54, 63)
    assert ours.weight_hash.startswith(ours.identity.partition("weights ")[2][:16])


def test_estimate_and_unclamped_picture(ours: ModelCodec) -> None:
    image = picture(50, 40)
    bits, relaxed = ours.relaxed(image.astype(np.float32) / 255, 63)
    assert bits == pytest.approx(ours.codec.estimate_bits(image, quality=63), rel=1e-4)
    assert relaxed.shape == image.shape
    rounded = np.clip(np.round(relaxed * 255), 0, 255).astype(np.uint8)
    assert psnr(rounded, ours.decode(ours.encode(image, 63))) > 45
    outside, _ = ours.relaxed(image.astype(np.float32) / 255 * 3 - 1, 63)  # which the codec itself refuses
    assert outside > 0


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_codecs_of_pillow(name: str) -> None:
    codec = PillowCodec(name)
    low, high = codec.encode(picture(), 20), codec.encode(picture(), 80)
    assert len(low) < len(high)
    assert psnr(codec.decode(high), picture()) > 33
    assert "Pillow" in codec.identity
    with pytest.raises(ValueError, match="unknown option colour; accepted"):
        PillowCodec(name, colour=1)


def test_settings_of_pillow_are_in_the_identity() -> None:
    finer = PillowCodec("jpeg", subsampling="4:4:4")
    assert finer.identity != PillowCodec("jpeg").identity
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    assert len(finer.encode(noise, 80)) > len(PillowCodec("jpeg").encode(noise, 80))


def test_noise_level_and_non_local_means() -> None:
    clean = picture(96, 96)
    damaged, _ = Synthetic("gaussian_noise:sigma=20")(clean, "")
    assert noise_level(damaged) == pytest.approx(20, rel=0.1)
    assert noise_level(clean) < 2
    restored = non_local_means(damaged)
    assert psnr(restored, clean) > psnr(damaged, clean) + 5
    assert np.array_equal(non_local_means(damaged, sigma=0), damaged)
    assert noise_level(picture(1, 1)) == 0


def darker(image: np.ndarray) -> np.ndarray:
    return image // 2


class Raw:
    """A lossless codec that keeps its calls."""

    qualities = (1, 2)

    def __init__(self) -> None:
        self.calls: list[float] = []

    def encode(self, image: np.ndarray, quality: float) -> bytes:
        self.calls.append(quality)
        return b"%d %d " % image.shape[:2] + image.tobytes()

    def decode(self, data: bytes) -> np.ndarray:
        height, width, samples = data.split(b" ", 2)
        return np.frombuffer(samples, np.uint8).reshape(int(height), int(width), 3)


def test_cascade_order() -> None:
    """Halving is inside the file if it stands before, and outside if it stands after."""
    half = Restorer("half", darker, "half 1")
    plus = Restorer("plus", lambda image: image + 10, "plus 1")
    cascade = Cascade(Raw(), name="raw", identity="raw 1", before=[half, plus], after=[half])
    data = cascade.encode(grey(100), 1)
    assert np.array_equal(Raw().decode(data), grey(60))
    assert np.array_equal(cascade.decode(data), grey(30))
    assert cascade.name == "half+plus+raw+half"
    assert cascade.identity == "half 1 + plus 1 + raw 1 + half 1"


def test_restorer_runs_once_per_picture_and_is_checked() -> None:
    calls = []
    restorer = Restorer("r", lambda image: calls.append(1) or image, "r")
    for _ in range(3):
        restorer(grey(1))
    assert len(calls) == 1
    restorer(grey(2))
    assert len(calls) == 2
    with pytest.raises(TypeError, match=r"restorer r: expected a uint8 array \(48, 64, 3\) back, got float64"):
        Restorer("r", lambda image: image / 2, "r")(grey(1))
    with pytest.raises(TypeError, match="got NoneType"):
        Restorer("r", lambda image: None, "r")(grey(1))


def test_texts_become_codecs(ours: ModelCodec) -> None:
    models = {"clean": ours, "new": ours}
    codecs = build_codecs(["aicr", "nlm:sigma=20+avif", "nlm+clean", "jpeg:subsampling=4:4:4"], models, {"avif": [30]})
    assert [c.name for c in codecs] == ["clean", "new", "nlm:sigma=20+avif", "nlm+clean", "jpeg:subsampling=4:4:4"]
    assert [c.model is ours for c in codecs] == [True, True, False, False, False]
    assert codecs[2].qualities == (30,)
    assert codecs[2].identity.startswith("non-local means, scikit-image ")
    assert "sigma=20" in codecs[2].identity
    shared = build_codecs(["nlm+jpeg", "nlm+webp"])
    assert shared[0].before[0] is shared[1].before[0]


def test_plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_plugins.py").write_text(
        "import numpy as np\n"
        "def scale(image, by=1.0):\n    return (image * by).astype(np.uint8)\n"
        "class Raw:\n"
        "    qualities = (1,)\n"
        "    def __init__(self, junk=0): self.junk = junk\n"
        "    def encode(self, image, quality): return b'x' * self.junk + image.tobytes()\n"
        "    def decode(self, data): return np.frombuffer(data[self.junk:], np.uint8).reshape(48, 64, 3)\n"
        "NUMBER = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "my_plugins.py"
    (one,) = build_codecs([f"my_plugins:scale:by=0.5+{file}:Raw:junk=7+my_plugins:scale:by=2"])
    assert one.name == "my_plugins:scale:by=0.5+my_plugins.py:Raw:junk=7+my_plugins:scale:by=2"
    data = one.encode(grey(100), 1)
    assert len(data) == 7 + grey(0).nbytes
    assert np.array_equal(one.decode(data), grey(100))
    assert str(tmp_path) not in one.identity
    file.write_text(file.read_text() + "# changed\n")
    (changed,) = build_codecs([f"{file}:Raw:junk=7"])
    (plain,) = build_codecs([f"{file}:Raw"])
    assert len({one.identity.split(" + ")[1], changed.identity, plain.identity}) == 3
    with pytest.raises(ValueError, match="NUMBER is neither a codec"):
        build_codecs([f"{file}:NUMBER"])
    with pytest.raises(ValueError, match=r"cannot load my_plugin: ModuleNotFoundError"):
        build_codecs(["jpeg+my_plugin:scale"])
    with pytest.raises(ValueError, match=r"codec 'my_plugins:sharpen': my_plugins has no sharpen"):
        build_codecs(["jpeg+my_plugins:sharpen"])


@pytest.mark.parametrize(
    "texts, qualities, message",
    [
        (["nlm"], {}, "expected one codec, with restorers before or after it, got 0"),
        (["jpeg+avif"], {}, "got 2 codecs"),
        (["jpg"], {}, "expected aicr, jpeg, webp, avif, nlm, MODULE:OBJECT"),
        (["aicr"], {}, "no model is given"),
        (["jpeg", "jpeg"], {}, "asked for twice"),
        (["nlm:strengh=1+jpeg"], {}, "unknown option strengh; accepted: sigma, strength"),
        (["jpeg"], {"avif": [1]}, "qualities for avif, which is not measured; codecs: jpeg"),
    ],
)
def test_bad_codecs_are_named(texts: list[str], qualities: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_codecs(texts, {}, qualities)


def test_label_of_a_model_may_not_hide_a_codec(ours: ModelCodec) -> None:
    with pytest.raises(ValueError, match="'jpeg' is the name of a codec"):
        build_codecs(["aicr"], {"jpeg": ours})


# curves

RATES = (0.1, 0.2, 0.4, 0.8, 1.6)
VALUES = (28.0, 30.0, 32.5, 35.0, 38.0)
BASE = Curve(RATES, VALUES)


def test_bjontegaard_of_known_curves() -> None:
    cheaper = Curve(tuple(0.9 * r for r in RATES), VALUES)
    assert compare(cheaper, BASE).rate == pytest.approx(-10)
    better = Curve(RATES, tuple(v + 1 for v in VALUES))
    found = compare(better, BASE)
    assert found.value == pytest.approx(1)
    assert found.rate < 0
    assert found.note == ""
    two = compare(Curve((0.1, 1.6), (29.0, 39.0)), Curve((0.1, 1.6), (28.0, 38.0)))
    assert two.value == pytest.approx(1)


def test_comparisons_that_do_not_exist_say_so() -> None:
    above = compare(Curve(RATES, tuple(v + 20 for v in VALUES)), BASE)
    assert (above.rate, above.note) == (None, "no BD-rate: its worst is above the other's best")
    assert above.value == pytest.approx(20)
    below = compare(Curve(RATES, tuple(v - 20 for v in VALUES)), BASE)
    assert (below.rate, below.note) == (None, "no BD-rate: all of it is below")
    dearer = compare(Curve(tuple(100 * r for r in RATES), VALUES), BASE)
    assert dearer.rate == pytest.approx(9900)
    assert (dearer.value, dearer.note) == (None, "no BD-PSNR: no common rates")
    single = compare(Curve((0.5,), (30.0,)), BASE)
    assert (single.rate, single.value) == (None, None)
    assert "fewer than two rising points; no BD-PSNR: fewer than two points" in single.note
    little = compare(Curve((0.1, 1.4), (37.5, 50.0)), BASE)
    assert "BD-rate over 2 % of the qualities" in little.note


def test_falling_points_are_left_out_of_bd_rate_only() -> None:
    """JPEG of a noisy picture: beyond some rate it keeps the noise."""
    peaked = Curve((*RATES, 3.2), (*VALUES, 20.0))
    assert front(peaked) == BASE
    found = compare(BASE, peaked)
    assert found.rate == pytest.approx(0, abs=1e-9)
    assert found.note == "0 and 1 falling points left out of BD-rate"


def test_curve_takes_points_in_any_order_and_drops_what_is_none() -> None:
    points = [(0.4, 30.0), (0.1, 28.0), (0.4, 31.0), (0.2, None), (None, 1.0), (0.3, math.inf)]
    assert Curve.of(points) == Curve((0.1, 0.4), (28.0, 31.0))


def test_anchors(tmp_path: Path) -> None:
    file = tmp_path / "anchors.json"
    curves = {"evc-S": {"bpp": [1, 2], "psnr": [30, 31]}, "evc-L": {"bpp": [1], "ms_ssim": [0.9]}, "vtm": {"bpp": []}}
    file.write_text(json.dumps(curves))
    assert list(read_anchors(file)) == ["evc-S", "evc-L", "vtm"]
    assert list(read_anchors(file, ["vtm", "evc-*"])) == ["evc-S", "evc-L", "vtm"]
    assert read_anchors(file, ["evc-L"]) == {"evc-L": curves["evc-L"]}
    with pytest.raises(ValueError, match="no curve 'hm'; there are evc-S, evc-L, vtm"):
        read_anchors(file, ["hm"])
    for text in ("[]", "no json", '{"a": {"psnr": [1]}}', '{"a": {"bpp": [1], "psnr": [1, 2]}}'):
        file.write_text(text)
        with pytest.raises(ValueError, match="not published curves"):
            read_anchors(file)
