"""``aicr eval``: from the command line to :mod:`aicr_ext.evaluate`. What it promises is in docs/evaluation.md."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .cli_options import SetupError, UsageError, add_device, add_precision, add_threads, whole

if TYPE_CHECKING:
    from .evaluate import Cascade, DataSet, ModelCodec
    from .evaluate.pictures import Crop

__all__ = ["add_arguments", "evaluate"]

NO_DEGRADATION = "none"


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """The arguments of ``aicr eval``."""
    what = sub.add_argument_group("pictures")
    what.add_argument(
        "folders",
        nargs="*",
        metavar="[NAME=]FOLDER",
        help="clean pictures, or input/ and target/ with pairs; NAME defaults to the folder's",
    )
    what.add_argument(
        "--no-target",
        nargs="+",
        default=[],
        metavar="[NAME=]FOLDER",
        help="pictures without clean ones: only rates are measured",
    )
    what.add_argument(
        "--degrade",
        nargs="+",
        default=[NO_DEGRADATION],
        metavar="SPEC",
        help="damage clean pictures, such as gaussian_noise:sigma=25, raw_noise:gain=4, haze:seed=3, random; "
        "each makes a data set of its own, and none keeps them clean (default: none)",
    )
    what.add_argument("--limit", type=whole(1), metavar="N", help="first N pictures of each folder")

    how = sub.add_argument_group("codecs")
    how.add_argument(
        "--codecs",
        nargs="+",
        default=["aicr", "jpeg", "webp", "avif"],
        metavar="SPEC",
        help="aicr, a label of --model, jpeg, webp, avif, or a plug-in module:object; with restorers before or after, "
        "such as nlm+avif (default: aicr jpeg webp avif)",
    )
    how.add_argument(
        "--model",
        "-m",
        action="append",
        metavar="[LABEL=]NAME_OR_PATH",
        help="weights that aicr stands for; may be repeated (default: aicr-t)",
    )
    how.add_argument(
        "--qualities",
        nargs="+",
        default=[],
        metavar="Q | CODEC=Q,Q",
        help="of our codec, or of the named one (default: 0 9 18 27 36 45 54 63, and each codec's own)",
    )
    add_device(how, "our networks run")
    add_precision(how, "our networks")
    add_threads(how)

    more = sub.add_argument_group("measured besides rate, PSNR and MS-SSIM")
    more.add_argument(
        "--estimate",
        action=argparse.BooleanOptionalAction,
        help="the bits our model expects, beside the real rate (default: for clean pictures)",
    )
    more.add_argument("--paper", action="store_true", help="our models in the convention of papers, too")
    more.add_argument("--lpips", action="store_true", help="perceptual distance; needs the extra perceptual")

    out = sub.add_argument_group("results")
    out.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for tables; extended if it is there")
    out.add_argument("--fresh", action="store_true", help="measure again what FOLDER holds already")
    out.add_argument(
        "--anchors",
        action="append",
        default=[],
        metavar="[SET=]JSON[:NAME,NAME]",
        help="published curves, all or some, of one data set or of all clean ones; may be repeated",
    )
    out.add_argument("--plot", type=Path, metavar="FILE", help="curves, one picture per data set")
    out.add_argument("--sheet", type=Path, metavar="FILE", help="side-by-side crops, one picture per data set")
    out.add_argument("--sheet-pictures", nargs="+", default=[], metavar="NAME", help="default: the first three")
    out.add_argument("--sheet-bpp", type=_rate, metavar="BPP", help="rate to come near (default: our middle quality)")
    out.add_argument("--crop", type=_crop, metavar="LEFT,TOP,SIDE", help="place to show (default: the busiest)")
    out.add_argument("--quiet", action="store_true", help="write files, print errors only")


def evaluate(args: argparse.Namespace, say: Callable[[str], None], prepare: Callable[[], None]) -> int:
    """Runs ``aicr eval``: everything is checked before the first picture is measured."""
    from tqdm import tqdm

    from .errors import MissingPackageError
    from .evaluate import Options, Store, measure
    from .evaluate.extras import load
    from .evaluate.pictures import sheet
    from .evaluate.plots import plot
    from .evaluate.report import Report
    from .evaluate.run import steps

    try:
        for module in ("pytorch_msssim", "bjontegaard", *["matplotlib"] * bool(args.plot)):
            load(module)
        if args.lpips:
            load("lpips", "perceptual")
    except MissingPackageError as error:
        raise SetupError(str(error)) from error
    for file in (args.plot, args.sheet):
        if file and not file.suffix:
            raise UsageError(f"{file}: no suffix to choose the image format by, such as .png")
    sets = _sets(args)
    anchors = _anchors(args.anchors, sets)
    prepare()
    codecs = _codecs(args, _models(args))
    options = Options(args.estimate, args.lpips, args.paper)
    with Store(args.out / "pictures.csv", fresh=args.fresh) as store:
        total = steps(sets, codecs, options)
        hidden = args.quiet or not sys.stderr.isatty()
        with tqdm(total=total, unit="file", file=sys.stderr, disable=hidden, leave=False) as bar:
            rows = measure(sets, codecs, store, options, bar.update)
        report = Report(sets, codecs, rows, anchors)
        settings = {
            name: getattr(args, name) for name in ("estimate", "paper", "lpips", "limit", "device", "precision")
        }
        written = report.write(args.out, settings)
    for data in sets:
        if args.plot and data.kind != "no target":
            written.append(_named(args.plot, data, sets))
            written[-1].parent.mkdir(parents=True, exist_ok=True)
            plot(report, data, written[-1])
        if args.sheet:
            written.append(_named(args.sheet, data, sets))
            written[-1].parent.mkdir(parents=True, exist_ok=True)
            place = {"names": args.sheet_pictures, "bpp": args.sheet_bpp, "crop": args.crop}
            sheet(data, codecs, rows, written[-1], **place)
    if not args.quiet:
        print(report.text(), end="")
        say(f"{len(rows)} measurements, {store.reused} of them from before; wrote {', '.join(map(str, written))}")
    return 0


def _sets(args: argparse.Namespace) -> list[DataSet]:
    from .evaluate import Synthetic, open_folder

    if not args.folders and not args.no_target:
        raise UsageError("no FOLDER given")
    try:
        degradations = [None if text == NO_DEGRADATION else Synthetic(text) for text in args.degrade]
    except ValueError as error:
        raise UsageError(str(error)) from error
    sets = []
    for text in args.folders:
        name, folder = _labelled(text)
        for degradation in degradations:
            sets.append(open_folder(folder, name=name, degradation=degradation, limit=args.limit))
    for text in args.no_target:
        name, folder = _labelled(text)
        sets.append(open_folder(folder, name=name, target=False, limit=args.limit))
    labels = [data.label for data in sets]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise UsageError(f"two data sets are called {', '.join(twice)}; give them names: NAME=FOLDER")
    return sets


def _models(args: argparse.Namespace) -> dict[str, str]:
    """Names or paths by label."""
    models: dict[str, str] = {}
    for text in args.model or ["aicr-t"]:
        label, model = _labelled(text)
        label = label or Path(model).stem
        if not re.fullmatch(r"[\w.\-]+", label):
            raise UsageError(f"model label {label!r}: letters, digits, '.', '-' and '_' are accepted")
        if label in models:
            raise UsageError(f"two models are called {label}; give them labels: LABEL={model}")
        models[label] = model
    return models


def _codecs(args: argparse.Namespace, models: dict[str, str]) -> list[Cascade]:
    from .errors import MissingPackageError
    from .evaluate import build_codecs
    from .evaluate.specs import uses_models

    loaded: dict[str, ModelCodec] = {}
    ours, others = _qualities(args.qualities)
    if uses_models(args.codecs, list(models)):
        loaded = {label: _load(label, model, args.device, args.precision) for label, model in models.items()}
        for codec in loaded.values():
            codec.qualities = ours or codec.qualities
    elif ours or args.model:
        raise UsageError(
            f"--model and whole numbers in --qualities are for our codec, and --codecs {args.codecs} has none"
        )
    try:
        return build_codecs(args.codecs, loaded, others)
    except MissingPackageError as error:
        raise SetupError(str(error)) from error
    except ValueError as error:
        raise UsageError(str(error)) from error


def _load(label: str, model: str, device: str | None, precision: str) -> ModelCodec:
    from .evaluate import ModelCodec

    try:
        return ModelCodec(model, name=label, device=device, precision=precision)
    except Exception as error:
        raise SetupError(f"cannot set up model {model!r}: {error}") from error


def _qualities(texts: Sequence[str]) -> tuple[list[int], dict[str, list[float]]]:
    """Ours, and those of codecs by name."""
    ours, others = [], {}
    for text in texts:
        name, equals, values = text.rpartition("=")
        try:
            if equals:
                others[name] = [float(v) if "." in v else int(v) for v in values.split(",")]
                continue
            ours.append(int(text))
        except ValueError:
            raise UsageError(f"--qualities {text}: expected a number 0 to 63, or CODEC=NUMBER,NUMBER") from None
        if not 0 <= ours[-1] <= 63:
            raise UsageError(f"--qualities {text}: ours are 0 to 63")
    return ours, others


def _anchors(texts: Sequence[str], sets: Sequence[DataSet]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Published curves by label of data set."""
    from .evaluate import read_anchors

    found: dict[str, dict] = {}
    for text in texts:
        labels = [data.label for data in sets if text.startswith(f"{data.label}=")]
        file = text
        if labels:
            labels = [max(labels, key=len)]
            file = text[len(labels[0]) + 1 :]
        elif not (labels := [data.label for data in sets if data.kind == "clean"]):
            known = ", ".join(data.label for data in sets)
            raise UsageError(f"--anchors {text}: no clean data set here; name the one it is for, SET=JSON: {known}")
        names = ""
        if not Path(file).exists():
            file, _, names = file.rpartition(":") if ":" in file else (file, "", "")
        curves = read_anchors(file, names.split(",") if names else ())
        for label in labels:
            found.setdefault(label, {}).update(curves)
    return found


def _labelled(text: str) -> tuple[str | None, str]:
    """Label and path of ``LABEL=PATH``; a path that exists is taken as it is."""
    label, equals, path = text.partition("=")
    if os.path.exists(text) or not equals or not label:
        return None, text
    return label, path


def _named(file: Path, data: DataSet, sets: Sequence[DataSet]) -> Path:
    """The file itself for a single data set; with the label in its name for one of several."""
    if len(sets) == 1:
        return file
    return file.with_name(f"{file.stem}-{re.sub(r'[^A-Za-z0-9.]+', '-', data.label)}{file.suffix}")


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate in bits per pixel")
    return value


def _crop(text: str) -> Crop:
    from .evaluate.pictures import Crop

    match = re.fullmatch(r"(\d+),(\d+),([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not LEFT,TOP,SIDE in pixels")
    return Crop(*map(int, match.groups()))
