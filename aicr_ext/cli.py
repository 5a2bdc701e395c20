"""The ``aicr`` command: compress, decompress, info, eval, train, doctor; docs/cli.md says what it promises.

Torch and Pillow are imported by the commands that need them, so that ``aicr --help`` answers at once.
Results of ``info``, ``eval`` and ``doctor`` go to standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from . import cli_eval, cli_profile, cli_train
from .cli_files import Job, Plan, plan_of
from .cli_options import (
    FAILED,
    INTERRUPTED,
    OK,
    SETUP,
    USAGE,
    SetupError,
    UsageError,
    add_device,
    add_precision,
    add_threads,
    whole,
)

if TYPE_CHECKING:
    from . import Codec

__all__ = ["main"]

SUFFIX = ".aicr"

EXIT_CODES = """\
exit codes:
  0    everything asked for was done
  1    at least one file failed; the others were written
  2    wrong usage; nothing was touched
  3    the model, the device or a compiled library could not be set up
  130  interrupted; finished files stay, no half-written file does
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (see ``EXIT_CODES``) and never raises on bad input."""
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has already printed help, version or the error
        return stop.code or OK
    try:
        with warnings.catch_warnings():
            _route_warnings(quiet=getattr(args, "quiet", False))
            code = args.run(args)
            sys.stdout.flush()  # so that a reader that has gone is noticed here, not at exit
            return code
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # `aicr info FILE | head`: the reader has gone, which is its right
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except UsageError as error:
        _report(error, args.debug)
        return USAGE
    except SetupError as error:
        _report(error, args.debug)
        return SETUP
    except Exception as error:
        _report(error, args.debug, about=getattr(args, "file", None))
        return FAILED


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of ``aicr``."""
    parser = argparse.ArgumentParser(
        prog="aicr",
        description="Learned image codec that also restores: a clean or degraded photograph goes in, a small "
        "file comes out, and it decodes to the clean picture.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return sub

    sub = command("compress", _compress, f"compress an image, or a folder of images, to {SUFFIX} files")
    _add_file_arguments(sub, f"IN with the suffix {SUFFIX}")
    sub.add_argument("--quality", "-q", type=whole(0, 63), default=32, metavar="0..63", help="default: 32")
    sub.add_argument(
        "--streams",
        type=whole(1, 256),
        metavar="1..256",
        help="parts of the file that are coded side by side (default: one for every 64 KiB)",
    )
    sub.add_argument(
        "--no-feedback",
        action="store_true",
        help="do not decode and correct before coding: faster, and worse from quality 18 on",
    )
    sub.add_argument(
        "--effort",
        type=whole(0, 1000),
        default=0,
        metavar="0..1000",
        help="steps of a search for a better bargain of bits and picture, each as long as encoding or more; "
        "10 bring most of it (default: 0)",
    )
    sub.add_argument("--model", "-m", default="aicr-t", metavar="NAME_OR_PATH", help="default: aicr-t")

    sub = command("decompress", _decompress, f"decode an {SUFFIX} file, or a folder of them, to images")
    _add_file_arguments(sub, "IN with the suffix .png")
    sub.add_argument("--model", "-m", metavar="NAME_OR_PATH", help="default: the model that the file names")
    sub.add_argument(
        "--format",
        choices=["png", "webp", "tif", "bmp", "ppm", "jpg"],
        help="image format where OUT names none (default: png)",
    )
    sub.add_argument("--max-pixels", type=whole(1), metavar="N", help="refuse files that say they are larger than this")

    sub = command("info", _info, f"show what an {SUFFIX} file holds, without decoding it")
    sub.add_argument("file", type=Path, metavar="FILE")
    sub.add_argument("--json", action="store_true", help="print one JSON object")

    sub = command("eval", _eval, "measure rate and distortion of codecs on folders of pictures")
    cli_eval.add_arguments(sub)
    sub = command("train", _train, "train a model on a folder of photographs")
    cli_train.add_arguments(sub)

    sub = command("profile", _profile, "show where the time goes, beside what the machine could do")
    cli_profile.add_arguments(sub)

    sub = command("doctor", _doctor, "report versions, compiled libraries, devices and weights")
    sub.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _add_file_arguments(sub: argparse.ArgumentParser, default_out: str) -> None:
    sub.add_argument("input", type=Path, metavar="IN", help="file, or folder (searched with its subfolders)")
    sub.add_argument(
        "output",
        type=Path,
        nargs="?",
        metavar="OUT",
        help=f"file or folder; a folder if IN is one (default for a file: {default_out})",
    )
    add_device(sub, "to run")
    add_threads(sub)
    add_precision(sub, "the networks")
    sub.add_argument("--quiet", action="store_true", help="print errors only")
    exists = sub.add_mutually_exclusive_group()
    exists.add_argument("--force", "--overwrite", "-f", action="store_true", help="replace files that exist")
    exists.add_argument("--skip-existing", action="store_true", help="leave files that exist, and go on")


def _compress(args: argparse.Namespace) -> int:
    from .files import atomic_write
    from .images import READ_SUFFIXES, read_image

    if args.output and not args.input.is_dir() and args.output.suffix.lower() in READ_SUFFIXES:
        raise UsageError(f"OUT has the suffix of an image: {args.output}; use {SUFFIX}")
    plan = plan_of(args.input, args.output, READ_SUFFIXES, SUFFIX)
    _prepare(args)
    codec = _load(args, args.model)

    def one(job: Job) -> str:
        started = time.perf_counter()
        image = read_image(job.source)
        data = codec.compress(
            image,
            quality=args.quality,
            streams=args.streams,
            feedback=not args.no_feedback,
            effort=args.effort,
        )
        atomic_write(job.target, data)
        seconds = time.perf_counter() - started
        bpp = 8 * len(data) / (image.width * image.height)
        return f"{image.width}x{image.height}, {len(data):,} bytes, {bpp:.3f} bpp, {seconds:.2f} s"

    return _work(args, plan, one, "compress")


def _decompress(args: argparse.Namespace) -> int:
    from . import Codec, read_info
    from .images import WRITE_SUFFIXES, write_image

    suffix = f".{args.format or 'png'}"
    if args.output and not args.input.is_dir() and not args.output.is_dir():
        given = args.output.suffix.lower()
        if given not in WRITE_SUFFIXES:
            raise UsageError(f"OUT needs an image suffix, one of {', '.join(WRITE_SUFFIXES)}: {args.output}")
        if args.format and WRITE_SUFFIXES[given] != WRITE_SUFFIXES[suffix]:
            raise UsageError(f"--format {args.format} contradicts OUT, {args.output.name}")
    plan = plan_of(args.input, args.output, {SUFFIX}, suffix)
    limit = {} if args.max_pixels is None else {"max_pixels": args.max_pixels}
    # A model given by the user has to work; one that a file names is that file's affair.
    _prepare(args)
    codecs = {args.model: _load(args, args.model)} if args.model else {}

    def one(job: Job) -> str:
        started = time.perf_counter()
        data = job.source.read_bytes()
        model = args.model or read_info(data).model
        if model not in codecs:
            codecs[model] = Codec(model, device=args.device, precision=args.precision)
        image = codecs[model].decompress(data, **limit)
        write_image(job.target, image)
        seconds = time.perf_counter() - started
        return f"{image.shape[-1]}x{image.shape[-2]}, {seconds:.2f} s"

    return _work(args, plan, one, "decode")


def _info(args: argparse.Namespace) -> int:
    from . import read_info

    info = read_info(args.file.read_bytes())
    if args.json:
        fields = {
            "file": str(args.file),
            "width": info.width,
            "height": info.height,
            "model": info.model,
            "weight_hash": _text(info.weight_hash),
            "quality": info.quality,
            "version": info.version,
            "streams": info.streams,
            "total_bytes": info.total_bytes,
            "bpp": info.bpp,
            "sections": dict(info.sections),
        }
        print(json.dumps(fields, indent=2))
        return OK
    print(f"file      {args.file}")
    print(f"size      {info.width} x {info.height}")
    print(f"model     {info.model}, weights and tables {_text(info.weight_hash)}")
    print(f"quality   {info.quality}")
    print(f"format    version {info.version}, {info.streams} stream{'s' if info.streams > 1 else ''}")
    print(f"bytes     {info.total_bytes:,} ({info.bpp:.4f} bpp)")
    for name, size in info.sections.items():
        print(f"  {name:<12}{size:>10,}")
    return OK


def _eval(args: argparse.Namespace) -> int:
    return cli_eval.evaluate(args, _say, lambda: _prepare(args))


def _profile(args: argparse.Namespace) -> int:
    return cli_profile.run(args, lambda: _prepare(args))


def _doctor(args: argparse.Namespace) -> int:
    from . import doctor

    report = doctor.examine()
    print(json.dumps(report, indent=2) if args.json else doctor.as_text(report))
    return OK if report["healthy"] else SETUP


def _train(args: argparse.Namespace) -> int:
    try:
        options = cli_train.options_of(args)
    except (OSError, TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    # Of several processes each has a device of its own, which the run finds.
    args.device, args.threads = None if "LOCAL_RANK" in os.environ else options.device, None
    _prepare(args)
    cli_train.run(args, options, _say)
    return OK


def _prepare(args: argparse.Namespace) -> None:
    """Set the number of threads, and try the device."""
    try:
        import torch
    except Exception as error:
        raise SetupError(f"cannot import torch: {_message(error)}") from error
    try:
        if args.threads:
            torch.set_num_threads(args.threads)
        if args.device:
            torch.empty(1, device=args.device)
    except Exception as error:
        raise SetupError(f"cannot use device {args.device!r}: {_message(error)}") from error


def _load(args: argparse.Namespace, model: str) -> Codec:
    try:
        from . import Codec

        return Codec(model, device=args.device, precision=args.precision)
    except Exception as error:
        raise SetupError(f"cannot set up model {model!r}: {_message(error)}") from error


def _work(args: argparse.Namespace, plan: Plan, one: Callable[[Job], str], verb: str) -> int:
    """Run ``one`` on every job; a file that fails is reported and does not stop the others."""
    folder = args.input.is_dir()
    for error in plan.unread:
        _report(error, args.debug)
    done = failed = kept = 0
    for job in _progress(plan.jobs, verb, hidden=args.quiet or not folder):
        try:
            if job.target.is_file():
                if job.source.exists() and job.target.samefile(job.source):
                    raise FileExistsError(f"{job.source}: IN and OUT are the same file")
                if args.skip_existing:
                    kept += 1
                    continue
                if not args.force:
                    raise FileExistsError(f"{job.target} exists; use --force or --skip-existing")
            if folder:
                job.target.parent.mkdir(parents=True, exist_ok=True)
            line = one(job)
            done += 1
            if not args.quiet:
                _say(f"{job.source} -> {job.target}: {line}")
        except SetupError:
            raise
        except Exception as error:
            failed += 1
            _report(error, args.debug, about=job.source)
    if folder and not args.quiet:
        parts = [f"{done} of {len(plan.jobs)} files {verb}{'ed' if verb == 'compress' else 'd'}"]
        parts += [f"{kept} already there"] * bool(kept)
        parts += [f"{failed} failed"] * bool(failed)
        parts += [f"{plan.passed_over} skipped (other file types)"] * bool(plan.passed_over)
        parts += [f"{len(plan.unread)} folders not read"] * bool(plan.unread)
        _say(", ".join(parts))
    return FAILED if failed or plan.unread else OK


def _progress(jobs: list[Job], verb: str, hidden: bool) -> Iterable[Job]:
    if hidden or not sys.stderr.isatty():
        return jobs
    from tqdm import tqdm

    return tqdm(jobs, desc=verb, unit="file", file=sys.stderr, leave=False)


def _say(text: str) -> None:
    tqdm = sys.modules.get("tqdm")
    if tqdm is None:
        print(f"aicr: {text}", file=sys.stderr)
    else:  # keeps a progress bar in one piece
        tqdm.tqdm.write(f"aicr: {text}", file=sys.stderr)


def _report(error: BaseException, debug: bool, about: Path | None = None) -> None:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    text = _message(error)
    names_a_file = isinstance(error, OSError) and error.filename
    if about is not None and not names_a_file and str(about) not in text:
        text = f"{about}: {text}"
    _say(f"error: {text}")


def _message(error: BaseException) -> str:
    from .errors import AicrError

    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    text = " ".join(str(error).split())
    if isinstance(error, (AicrError, OSError, ValueError, UsageError, SetupError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _route_warnings(quiet: bool) -> None:
    def show(message: Warning | str, category: type[Warning], *where: object) -> None:
        if not quiet:
            _say(f"warning: {' '.join(str(message).split())}")

    warnings.showwarning = show


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


class _Version(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and stop")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from . import __version__

        print(f"aicr_ext {__version__}")
        parser.exit()
