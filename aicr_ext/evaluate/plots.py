"""Rate-distortion curves of one data set as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from aicr_ext.files import atomic_write

from .codecs import ModelCodec
from .curves import published_points
from .datasets import DataSet
from .extras import load
from .report import Report, curve_of

__all__ = ["plot"]

_AXES = (("psnr", "PSNR, dB"), ("ms_ssim_db", "MS-SSIM, dB"))
# About what a published curve's name takes, of the heights and the rates that are shown.
_LINE, _NAME = 0.03, 0.25


def plot(report: Report, data: DataSet, path: Path) -> None:
    """PSNR and MS-SSIM (dB) over bits per pixel; the suffix of ``path`` chooses the format.

    Our codecs are thick, others dashed, published curves thin and grey with their names at the end. A dotted line is
    the damaged input itself. The rates shown are those that ours cover, and a little more.
    """
    load("matplotlib").use("Agg")
    pyplot = load("matplotlib.pyplot")
    means, given = report.of(data), report.input_of(data)
    if not any(row["psnr"] is not None for row in means):
        raise ValueError(f"{data.label}: nothing to plot, because there are no targets")
    shown = [axis for axis in _AXES if any(row[axis[0]] is not None for row in means)]
    figure, axes = pyplot.subplots(1, len(shown), figsize=(5.5 * len(shown), 4.5), layout="constrained", squeeze=False)
    for axis, (metric, label) in zip(axes[0], shown, strict=True):
        ours = [c.name for c in report.codecs if isinstance(c.codec, ModelCodec) and c.model]
        measured = {c.name: curve_of(means, c.name, metric) for c in report.codecs}
        right = 1.25 * max(c.bpp[-1] for name, c in measured.items() if c.bpp and (name in ours or not ours))
        lowest = []
        for name, curve in measured.items():
            style = {"linewidth": 2.2} if name in ours else {"linestyle": "--", "linewidth": 1.2}
            axis.plot(*curve, marker="o", markersize=3, label=name, **style)
            lowest += [value for bpp, value in zip(*curve, strict=True) if bpp <= right]
        _published(axis, report.anchors.get(data.label, {}), metric, right)
        if given and given[metric] is not None:
            axis.axhline(given[metric], color="black", linestyle=":", linewidth=1, label="input itself")
            lowest.append(given[metric])
        axis.set(xlabel="bits per pixel, whole file", ylabel=label, xlim=(0, right), ylim=(min(lowest) - 1, None))
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize="small")
    figure.suptitle(f"{data.label}, {len(data)} pictures")
    file = io.BytesIO()
    figure.savefig(file, format=path.suffix[1:] or "png", dpi=110)
    pyplot.close(figure)
    atomic_write(path, file.getvalue())


def _published(axis: object, anchors: Mapping[str, Mapping[str, Sequence[float]]], metric: str, right: float) -> None:
    """Grey curves with their names at the end, moved up where they would lie on one another."""
    ends, values = [], []
    for name, curve in anchors.items():
        points = [(bpp, value) for bpp, value in published_points(curve, metric) if bpp <= right]
        if points:
            axis.plot(*zip(*points, strict=True), color="grey", linewidth=0.7)
            ends.append((points[-1][1], points[-1][0], name))
            values += [value for _, value in points]
    placed: list[tuple[float, float]] = []
    line = _LINE * (max(values) - min(values)) if values else 0
    for value, bpp, name in sorted(ends):
        while any(abs(value - y) < line and abs(bpp - x) < _NAME * right for x, y in placed):
            value += line / 4
        placed.append((bpp, value))
        axis.annotate(name, (bpp, value), color="grey", fontsize=6, ha="right", va="bottom")
