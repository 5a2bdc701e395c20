"""Rate-distortion curves and what lies between two of them."""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .extras import load
from .metrics import decibel

__all__ = ["Comparison", "Curve", "compare", "front", "published_points", "read_anchors"]

# Share of two curves' common range below which a comparison says so.
_LITTLE = 0.2


class Curve(NamedTuple):
    """Points of one codec: rates in bits per pixel, ascending, and the values reached there."""

    bpp: tuple[float, ...]
    value: tuple[float, ...]

    @classmethod
    def of(cls, points: Sequence[tuple[float | None, float | None]]) -> Curve:
        """From (rate, value) pairs in any order; pairs that are not two finite numbers, or of rate 0, are dropped.

        Of several points with one rate the best counts.
        """
        best: dict[float, float] = {}
        for bpp, value in points:
            if bpp is not None and value is not None and bpp > 0 and math.isfinite(bpp) and math.isfinite(value):
                best[bpp] = max(value, best.get(bpp, value))
        return cls(tuple(sorted(best)), tuple(best[bpp] for bpp in sorted(best)))


class Comparison(NamedTuple):
    """One curve against another.

    Attributes:
        rate: Bjøntegaard difference in percent of the rate at equal value; negative is better. None: there is none.
        value: the difference of values (dB) at equal rate; positive is better. None: no common rates.
        note: why something is missing or covers little; empty if there is nothing to say.
    """

    rate: float | None
    value: float | None
    note: str


def front(curve: Curve) -> Curve:
    """The points above every cheaper point.

    Where more bits make a picture worse, as they do when a codec begins to keep noise, rate is no function of quality;
    on these points it is one.
    """
    kept, best = [], -math.inf
    for bpp, value in zip(*curve, strict=True):
        if value > best:
            kept.append((bpp, value))
            best = value
    return Curve.of(kept)


def compare(test: Curve, anchor: Curve) -> Comparison:
    """BD-rate over the common values (dB) and BD-PSNR over the common rates, by Akima interpolation.

    BD-rate is of the :func:`front` of both curves, BD-PSNR of all points. Two points per curve are the least.
    """
    bjontegaard = load("bjontegaard")
    options = {"method": "akima", "require_matching_points": False, "min_overlap": 0}
    notes = []
    rising = front(test), front(anchor)
    falling = [len(whole.bpp) - len(part.bpp) for whole, part in zip((test, anchor), rising, strict=True)]
    if any(falling):
        notes.append(f"{falling[0]} and {falling[1]} falling points left out of BD-rate")
    rate = value = None
    if min(len(curve.bpp) for curve in rising) < 2:
        notes.append("no BD-rate: fewer than two rising points")
    elif share := _overlap(rising[0].value, rising[1].value):
        rate = float(bjontegaard.bd_rate(*map(np.array, (*rising[1], *rising[0])), **options))
        if share < _LITTLE:
            notes.append(f"BD-rate over {100 * share:.0f} % of the qualities")
    else:
        above = rising[0].value[0] >= rising[1].value[-1]
        notes.append("no BD-rate: its worst is above the other's best" if above else "no BD-rate: all of it is below")
    if min(len(test.bpp), len(anchor.bpp)) < 2:
        notes.append("no BD-PSNR: fewer than two points")
    elif share := _overlap(*(np.log(curve.bpp) for curve in (test, anchor))):
        value = float(bjontegaard.bd_psnr(*map(np.array, (*anchor, *test)), **options))
        if share < _LITTLE:
            notes.append(f"BD-PSNR over {100 * share:.0f} % of the rates")
    else:
        notes.append("no BD-PSNR: no common rates")
    return Comparison(rate, value, "; ".join(notes))


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Length of what two ascending lists both span, as a share of what they span together."""
    both = min(a[-1], b[-1]) - max(a[0], b[0])
    return max(0.0, both) / (max(a[-1], b[-1]) - min(a[0], b[0])) if both > 0 else 0.0


def read_anchors(file: str | Path, names: Sequence[str] = ()) -> dict[str, dict[str, list[float]]]:
    """Published curves of a JSON file ``{name: {"bpp": [...], "psnr": [...], "ms_ssim": [...]}}``.

    ``psnr`` or ``ms_ssim`` may be absent. ``names`` selects some, ``*`` stands for any letters; in the order of the
    file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or a name that selects nothing.
    """
    file = Path(file)
    try:
        curves = json.loads(file.read_text())
        for curve in curves.values():
            for metric in {"psnr", "ms_ssim"} & curve.keys():
                if len(curve[metric]) != len(curve["bpp"]):
                    raise ValueError(f"{metric} and bpp differ in length")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: not published curves, {{name: {{bpp: [], psnr: []}}}} ({error})") from error
    for name in names:
        if not fnmatch.filter(curves, name):
            raise ValueError(f"{file}: no curve {name!r}; there are {', '.join(curves)}")
    return {name: c for name, c in curves.items() if not names or any(fnmatch.fnmatch(name, n) for n in names)}


def published_points(curve: Mapping[str, Sequence[float]], metric: str) -> list[tuple[float, float]]:
    """(rate, value) of one of the curves of :func:`read_anchors`, in its order; none where it lacks the metric.

    ``metric`` is ``psnr`` or ``ms_ssim_db``, both in dB.
    """
    values = curve.get("psnr", ()) if metric == "psnr" else [decibel(value) for value in curve.get("ms_ssim", ())]
    return list(zip(curve["bpp"], values, strict=False))
