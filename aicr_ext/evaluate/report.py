"""Rows to tables: means, comparisons, sizes; as CSV, JSON and Markdown."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import torch

import aicr_ext
from aicr_ext.doctor import examine_cpu
from aicr_ext.files import atomic_write

from .cascade import Cascade
from .codecs import ModelCodec
from .curves import Curve, compare, published_points
from .datasets import DataSet
from .run import FILE, INPUT, PAPER
from .store import FIELDS, Row, csv_text

__all__ = ["Report", "curve_of"]

#: Published curves by data set's label and name: ``{"kodak": {"vtm": {"bpp": [...], "psnr": [...]}}}``.
Anchors = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]

_GROUP = ("dataset", "degradation", "codec", "quality", "convention")
_METRICS = ("psnr", "ms_ssim_db")  # that curves are compared in
_VALUES = ("bpp", "psnr", "ms_ssim", "ms_ssim_db", "lpips", "estimated_bpp")
_LIBRARIES = ("torch", "numpy", "pillow", "pytorch_msssim", "bjontegaard", "scikit-image", "lpips")


class Report:
    """The tables of a run.

    Attributes:
        rows: one per data set, picture, codec, quality and convention.
        means: averages over the pictures, one row per data set, codec, quality and convention.
        comparisons: our codecs against all others and published curves: BD-rate and BD-PSNR, for both metrics.
        sizes: our codecs against each other: bytes at the same quality index.
    """

    def __init__(
        self, sets: Sequence[DataSet], codecs: Sequence[Cascade], rows: list[Row], anchors: Anchors | None = None
    ) -> None:
        self.sets = list(sets)
        self.codecs = list(codecs)
        self.rows = rows
        self.anchors = {label: dict(curves) for label, curves in (anchors or {}).items()}
        self.means = _means(rows)
        ours = [codec.name for codec in codecs if codec.model] or [codec.name for codec in codecs[:1]]
        self.comparisons = [row for data in sets for row in self._compare(data, ours)]
        self.sizes = [row for data in sets for row in self._sizes(data)]

    def of(self, data: DataSet, convention: str = FILE) -> list[Row]:
        """The means of a data set, the input's left out."""
        return [
            row
            for row in self.means
            if (row["dataset"], row["degradation"]) == (data.name, data.degradation)
            and row["convention"] == convention
            and row["codec"] != INPUT
        ]

    def input_of(self, data: DataSet) -> Row | None:
        """Means of the damaged input itself against the target; None where it is not damaged."""
        place = (data.name, data.degradation, INPUT)
        found = (row for row in self.means if (row["dataset"], row["degradation"], row["codec"]) == place)
        return next(found, None)

    def write(self, folder: Path, settings: Mapping[str, object]) -> list[Path]:
        """Writes means.csv, bd.csv, sizes.csv, results.json and report.md; returns their paths."""
        files = {
            "means.csv": csv_text(self.means, [*_GROUP, "pictures", *_VALUES]),
            "bd.csv": csv_text(self.comparisons, _COMPARISON),
            "sizes.csv": csv_text(self.sizes, _SIZE),
            "results.json": _json(self._everything(settings)),
            "report.md": self.text(),
        }
        for name, text in files.items():
            atomic_write(folder / name, text.encode())
        return [folder / name for name in files]

    def text(self) -> str:
        """The tables as Markdown, one section per data set."""
        return "\n".join(line for data in self.sets for line in self._section(data)) + "\n"

    def _section(self, data: DataSet) -> list[str]:
        lines = [f"## {data.label}", "", f"{len(data)} pictures, {data.kind}.", ""]
        means = self.of(data)
        if given := self.input_of(data):
            lines += [f"The input itself: {given['psnr']:.2f} dB{_similarity(given)}.", ""]
        if means and data.kind != "no target" and all(row["ms_ssim"] is None for row in means):
            lines += ["MS-SSIM is empty: it needs pictures of at least 161 pixels a side.", ""]
        lines += [*markdown(means, _columns(means)), ""]
        if paper := self.of(data, PAPER):
            lines += ["Estimated bits, input and result neither rounded nor clipped, as papers report:", ""]
            lines += [*markdown(paper, _columns(paper)), ""]
        place = (data.name, data.degradation)
        for table, columns in ((self.comparisons, _COMPARISON), (self.sizes, _SIZE)):
            here = [row for row in table if (row["dataset"], row["degradation"]) == place]
            lines += [*markdown(here, columns[2:]), ""] if here else []
        return lines

    def _compare(self, data: DataSet, ours: Sequence[str]) -> list[Row]:
        means = self.of(data)
        names = dict.fromkeys(row["codec"] for row in means)
        found = []
        for name in names if data.kind != "no target" else ():
            if name not in ours:
                continue
            for other in names:
                if other != name:
                    found.append(self._comparison(data, name, other, *_curves(means, other)))
            for other, published in self.anchors.get(data.label, {}).items():
                curves = [Curve.of(published_points(published, metric)) for metric in _METRICS]
                found.append(self._comparison(data, name, f"{other} (published)", *curves))
        return found

    def _comparison(self, data: DataSet, name: str, other: str, by_psnr: Curve, by_similarity: Curve) -> Row:
        tests = _curves(self.of(data), name)
        row: Row = dict.fromkeys(_COMPARISON)
        row |= {"dataset": data.name, "degradation": data.degradation, "codec": name, "against": other}
        notes = []
        names = (("bd_rate", "bd_psnr"), ("bd_rate_ms_ssim", "bd_ms_ssim_db"))
        for (rate, value), test, anchor in zip(names, tests, (by_psnr, by_similarity), strict=True):
            if anchor.bpp and test.bpp:
                row[rate], row[value], note = compare(test, anchor)
                notes += [f"{'MS-SSIM: ' * (value == 'bd_ms_ssim_db')}{note}"] * bool(note)
        row["note"] = "; ".join(notes)
        return row

    def _sizes(self, data: DataSet) -> list[Row]:
        """Ours against the others that hold one of our models, where quality means the same."""
        inner = {c.name: c for c in self.codecs if isinstance(c.codec, ModelCodec)}
        bpp: dict[str, dict[float, float]] = {}
        for row in self.of(data):
            bpp.setdefault(row["codec"], {})[row["quality"]] = row["bpp"]
        found = []
        for name in (n for n, c in inner.items() if c.model and n in bpp):
            for other in (n for n in inner if n != name and n in bpp):
                ratios = [bpp[name][q] / bpp[other][q] - 1 for q in sorted(bpp[name].keys() & bpp[other].keys())]
                if ratios:
                    row = {"dataset": data.name, "degradation": data.degradation, "codec": name, "against": other}
                    values = (100 * fmean(ratios), 100 * min(ratios), 100 * max(ratios), len(ratios))
                    found.append(row | dict(zip(_SIZE[4:], values, strict=True)))
        return found

    def _everything(self, settings: Mapping[str, object]) -> dict[str, object]:
        return {
            "aicr_ext": aicr_ext.__version__,
            "libraries": {name: _version(name) for name in _LIBRARIES},
            "host": _host(),
            "settings": dict(settings),
            "datasets": [
                {"name": d.name, "degradation": d.degradation, "kind": d.kind, "pictures": list(d.names)}
                for d in self.sets
            ],
            "codecs": [
                {"name": c.name, "identity": c.identity, "qualities": list(c.qualities)}
                | (_of_model(c.codec) if isinstance(c.codec, ModelCodec) else {})
                for c in self.codecs
            ],
            "means": self.means,
            "comparisons": self.comparisons,
            "sizes": self.sizes,
            "rows": [{k: row[k] for k in FIELDS if k not in ("pixels", "identity")} for row in self.rows],
        }


_COMPARISON = [
    *("dataset", "degradation", "codec", "against"),
    *("bd_rate", "bd_psnr", "bd_rate_ms_ssim", "bd_ms_ssim_db", "note"),
]
_SIZE = ["dataset", "degradation", "codec", "against", "bytes_mean", "bytes_least", "bytes_most", "qualities"]

#: Heading and format of the columns in Markdown.
_HEADINGS = {
    "bpp": ("bpp", ".4f"),
    "estimated_bpp": ("estimated bpp", ".4f"),
    "psnr": ("PSNR dB", ".3f"),
    "ms_ssim": ("MS-SSIM", ".5f"),
    "ms_ssim_db": ("MS-SSIM dB", ".3f"),
    "lpips": ("LPIPS", ".4f"),
    "quality": ("quality", "g"),
    "bd_rate": ("BD-rate %", "+.2f"),
    "bd_psnr": ("BD-PSNR dB", "+.3f"),
    "bd_rate_ms_ssim": ("BD-rate % (MS-SSIM)", "+.2f"),
    "bd_ms_ssim_db": ("BD-MS-SSIM dB", "+.3f"),
    "bytes_mean": ("bytes at equal quality index, mean %", "+.2f"),
    "bytes_least": ("least %", "+.2f"),
    "bytes_most": ("most %", "+.2f"),
    "qualities": ("qualities", "d"),
}


def markdown(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """Lines of a Markdown table; numbers to the right, None an empty cell."""
    heads = [_HEADINGS.get(name, (name, ""))[0] for name in columns]
    formats = [_HEADINGS.get(name, ("", ""))[1] for name in columns]
    cells = [
        ["" if row[n] is None else format(row[n], f) for n, f in zip(columns, formats, strict=True)] for row in rows
    ]
    widths = [max(len(head), 3, *(len(line[i]) for line in cells)) for i, head in enumerate(heads)]

    def line(texts: Sequence[str]) -> str:
        padded = (t.rjust(w) if f else t.ljust(w) for t, w, f in zip(texts, widths, formats, strict=True))
        return "| " + " | ".join(padded) + " |"

    rule = "|".join("-" * (w + 1) + (":" if f else "-") for w, f in zip(widths, formats, strict=True))
    return [line(heads), f"|{rule}|", *map(line, cells)]


def curve_of(means: Sequence[Row], codec: str, metric: str) -> Curve:
    """The curve of one codec in the means of one data set; ``metric`` is ``psnr`` or ``ms_ssim_db``."""
    return Curve.of([(row["bpp"], row[metric]) for row in means if row["codec"] == codec])


def _curves(means: Sequence[Row], codec: str) -> list[Curve]:
    return [curve_of(means, codec, metric) for metric in _METRICS]


def _means(rows: list[Row]) -> list[Row]:
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in _GROUP), []).append(row)
    return [
        dict(zip(_GROUP, key, strict=True))
        | {"pictures": len(group)}
        | {name: _mean([row[name] for row in group]) for name in _VALUES}
        for key, group in groups.items()
    ]


def _mean(values: list[float | None]) -> float | None:
    """None unless every picture has a value: a mean over some of them would be of another set."""
    return None if None in values else fmean(values)


def _columns(means: Sequence[Row]) -> list[str]:
    return ["codec", "quality", *(name for name in _VALUES if any(row[name] is not None for row in means))]


def _similarity(row: Row) -> str:
    return "" if row["ms_ssim"] is None else f", MS-SSIM {row['ms_ssim']:.4f}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _host() -> dict[str, object]:
    cpu = examine_cpu()
    return {name: cpu[name] for name in ("model", "cores", "threads")}


def _of_model(codec: ModelCodec) -> dict[str, str]:
    device = codec.codec.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"weight_hash": codec.weight_hash, "device": name}


def _json(fields: Mapping[str, object]) -> str:
    """One line for each field, and for each item of a list: thousands of rows, yet readable and easy to compare."""
    parts = []
    for key, value in _finite(dict(fields)).items():
        items = ",\n  ".join(map(json.dumps, value)) if isinstance(value, list) else None
        parts.append(f" {json.dumps(key)}: " + (json.dumps(value) if items is None else f"[\n  {items}\n ]"))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _finite(value: object) -> object:
    """With null for infinity and NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
