"""What the evaluation measures by: metrics of pictures, and what lies between two curves."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluate_cases import grey

from aicr_ext.errors import MissingPackageError
from aicr_ext.evaluate import Curve, compare, decibel, metrics, ms_ssim, psnr, read_anchors
from aicr_ext.evaluate.curves import front
from aicr_ext.evaluate.extras import load

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
