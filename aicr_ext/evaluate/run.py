"""Every codec at every quality on every picture of every data set, one row each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from aicr_ext.errors import EvaluationError

from .cascade import Cascade
from .codecs import ModelCodec
from .datasets import CLEAN, DataSet, Sample
from .metrics import decibel, lpips, ms_ssim, psnr
from .store import Row, Store

__all__ = ["FILE", "INPUT", "PAPER", "Options", "measure", "steps"]

#: Conventions of a row: bytes of the real file and 8-bit pictures, or estimated bits and floating-point pictures.
FILE, PAPER = "file", "paper"

#: Name of the rows that compare the damaged input itself with the target.
INPUT = "input"


@dataclass(frozen=True)
class Options:
    """What to measure besides rate, PSNR and MS-SSIM.

    Attributes:
        estimate: the bits that our model expects, beside the real rate; None: on clean pictures only.
        lpips: the perceptual distance, which needs the extra ``perceptual``.
        paper: further rows for our models in the convention of papers: estimated bits; the input and the decoded
            picture neither rounded nor clipped.
    """

    estimate: bool | None = None
    lpips: bool = False
    paper: bool = False


def steps(sets: Sequence[DataSet], codecs: Sequence[Cascade], options: Options) -> int:
    """How many rows :func:`measure` goes through, those of inputs left out."""
    each = sum(len(codec.qualities) * (2 if options.paper and codec.relaxed else 1) for codec in codecs)
    return each * sum(map(len, sets))


def measure(
    sets: Sequence[DataSet],
    codecs: Sequence[Cascade],
    store: Store,
    options: Options | None = None,
    progress: Callable[[int], object] = lambda count: None,
) -> list[Row]:
    """Rows of all data sets, by data set, picture, codec and quality; those in the store are taken from it.

    Args:
        sets, codecs: what to measure.
        store: where rows come from and go to; written after every picture.
        options: what to measure besides.
        progress: called with the number of rows finished since the last call.

    Raises:
        EvaluationError: a codec failed; the message names codec, quality and picture.
    """
    options = options or Options()
    rows = []
    for data in sets:
        estimate = data.kind == CLEAN if options.estimate is None else options.estimate
        for sample in data:
            labels = {"dataset": data.name, "degradation": data.degradation, "picture": sample.name}
            labels |= {"pixels": sample.pixels, "width": sample.input.shape[1], "height": sample.input.shape[0]}
            if sample.damaged:
                rows.append(_input(store, labels, sample))
            for codec in codecs:
                for quality in codec.qualities:
                    points = _point(store, labels, sample, codec, quality, options, estimate)
                    rows += points
                    progress(len(points))
            store.flush()
    return rows


def _input(store: Store, labels: Row, sample: Sample) -> Row:
    """The row of the damaged picture itself, which has no rate."""
    labels = labels | {"codec": INPUT, "identity": INPUT, "quality": None, "convention": FILE}
    return store.find(labels) or store.add(labels | _quality(sample, sample.input))


def _point(
    store: Store, labels: Row, sample: Sample, codec: Cascade, quality: float, options: Options, estimate: bool
) -> list[Row]:
    """The row of one codec at one quality, and for our models the one in the convention of papers if asked for."""
    labels = labels | {"codec": codec.name, "identity": codec.identity, "quality": quality}
    of_file, of_paper = labels | {"convention": FILE}, labels | {"convention": PAPER}
    estimate = estimate and codec.relaxed is not None
    perceptual = options.lpips and sample.target is not None
    needed = ["estimated_bpp"] * estimate + ["lpips"] * perceptual
    try:
        rows = [
            store.find(of_file, *needed) or store.add(of_file | _file(sample, codec, quality, perceptual, estimate))
        ]
        if options.paper and codec.relaxed:
            rows.append(store.find(of_paper) or store.add(of_paper | _paper(sample, codec.relaxed, quality)))
        return rows
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise EvaluationError(f"{codec.name} at quality {quality:g} on {sample.name}: {reason}") from error


def _file(sample: Sample, codec: Cascade, quality: float, perceptual: bool, estimate: bool) -> Row:
    data = codec.encode(sample.input, quality)
    decoded = codec.decode(data)
    if decoded.shape != sample.input.shape:
        raise ValueError(f"a picture of shape {sample.input.shape} decodes to {decoded.shape}")
    pixels = sample.input.shape[0] * sample.input.shape[1]
    row = {"bytes": len(data), "bpp": 8 * len(data) / pixels, **_quality(sample, decoded)}
    if perceptual:
        row["lpips"] = lpips(decoded, sample.target)
    if estimate:
        bits, _ = codec.codec.relaxed(sample.input.astype(np.float32) / 255, quality)
        row["estimated_bpp"] = bits / pixels
    return row


def _paper(sample: Sample, model: ModelCodec, quality: int) -> Row:
    bits, decoded = model.relaxed(sample.exact, quality)
    row = {"bpp": bits / (sample.input.shape[0] * sample.input.shape[1])}
    if sample.target is None:
        return row
    target = sample.target.astype(np.float64) / 255
    similarity = ms_ssim(decoded, target, peak=1)
    return row | {"psnr": psnr(decoded, target, peak=1), "ms_ssim": similarity, "ms_ssim_db": decibel(similarity)}


def _quality(sample: Sample, decoded: np.ndarray) -> Row:
    if sample.target is None:
        return {}
    similarity = ms_ssim(decoded, sample.target)
    return {"psnr": psnr(decoded, sample.target), "ms_ssim": similarity, "ms_ssim_db": decibel(similarity)}
