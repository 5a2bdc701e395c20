"""The demo: its measurements and its pictures, on a small photograph."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import pixels, smooth
from PIL import Image

import aicr_ext
from aicr_ext import demo
from aicr_ext.images import read_image


def test_demo_measures_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "photo.png"
    smooth(96, 64).save(source)
    out = tmp_path / "new" / "out"
    assert demo.main([str(source), str(out), "--quality", "40"]) == 0
    text = capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [
        "photo.aicr",
        "photo_decoded.png",
        "photo_side_by_side.png",
    ]
    data = (out / "photo.aicr").read_bytes()
    assert aicr_ext.read_info(data).quality == 40
    decoded = read_image(out / "photo_decoded.png")
    mse = np.mean((pixels(decoded) - pixels(smooth(96, 64))) ** 2)
    assert f"PSNR {10 * math.log10(255**2 / mse):.2f} dB against the input" in text
    assert f"{len(data):,} bytes, {8 * len(data) / (96 * 64):.3f} bpp (quality 40)" in text
    assert str(out / "photo_side_by_side.png") in text
    sheet = pixels(read_image(out / "photo_side_by_side.png"))
    assert np.array_equal(sheet[-64:, :96], pixels(smooth(96, 64)))
    assert np.array_equal(sheet[-64:, 104:200], pixels(decoded))
    assert (sheet[:-64] != 255).any()  # the labels


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main([str(tmp_path / "none.png"), str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("demo: ")
    assert not (tmp_path / "out").exists()


def test_jpeg_of_size_is_the_best_that_fits() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(-20, 21, (64, 96, 3))
    picture = Image.fromarray((pixels(smooth(96, 64)) + noise).clip(0, 255).astype(np.uint8))
    for near in (5, 30, 80):
        size = len(demo._jpeg(picture, near)) + 1
        quality, data = demo.jpeg_of_size(picture, size)
        assert len(data) <= size
        assert near <= quality < 95
        assert len(demo._jpeg(picture, quality + 1)) > size
    assert demo.jpeg_of_size(picture, 10) == (1, demo._jpeg(picture, 1))


def test_no_package_of_an_extra_is_needed(tmp_path: Path) -> None:
    """Its PSNR is that of the evaluation, most of which needs more than the demo may ask for."""
    smooth(32, 24).save(tmp_path / "photo.png")
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(['pytorch_msssim', 'bjontegaard', 'matplotlib', 'skimage', 'lpips'])\n"
        "from aicr_ext import demo\n"
        "sys.exit(demo.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "photo.png"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert " dB against the input" in done.stdout
