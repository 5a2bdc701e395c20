"""What the evaluation measures: codecs, restorers and cascades of them, also as plug-ins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluate_cases import grey, picture

from aicr_ext.evaluate import (
    Cascade,
    ModelCodec,
    PillowCodec,
    Restorer,
    Synthetic,
    build_codecs,
    non_local_means,
    psnr,
)
from aicr_ext.evaluate.restorers import noise_level
from aicr_ext.evaluate.specs import uses_models


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


def test_a_codec_with_a_search(ours: ModelCodec) -> None:
    models = {"one": ours, "two": ours}
    codecs = build_codecs(["aicr", "aicr:effort=2", "nlm+two:effort=3"], models, {"two:effort=2": [20]})
    assert [c.name for c in codecs] == ["one", "two", "one:effort=2", "two:effort=2", "nlm+two:effort=3"]
    assert [c.codec.effort for c in codecs] == [0, 0, 2, 2, 3]
    assert codecs[3].qualities == (20,)
    assert codecs[2].identity == f"{codecs[0].identity}, effort 2"
    assert [c.relaxed is ours for c in codecs] == [True, True, False, False, False]
    assert [c.model is not None for c in codecs] == [True, True, True, True, False]
    image = picture()
    assert codecs[2].encode(image, 30) == ours.codec.compress(image, quality=30, effort=2)
    assert ours.with_effort(0).identity == ours.identity
    for text, message in (("aicr:effort=-1", "effort must be 0 to"), ("one:speed=1", "unknown option speed; accepted")):
        with pytest.raises(ValueError, match=message):
            build_codecs([text], models)
    with pytest.raises(ValueError, match="no model is given"):
        build_codecs(["aicr:effort=2"])
    assert uses_models(["jpeg", "nlm+clean:effort=2"], ["clean"])
    assert not uses_models(["jpeg:optimize=true", "clean:thing"], ["clean"])


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
