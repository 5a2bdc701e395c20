"""``aicr profile``: from the command line to :mod:`aicr_ext.profiling`. What it shows is in docs/profiling.md."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from .cli_options import FAILED, OK, SetupError, UsageError, add_device, add_precision, add_threads, whole

__all__ = ["add_arguments", "run"]

DTYPES = ("float32", "bfloat16", "float16")

#: What only the codec takes, and what only operators take, with the values that say nothing.
_OF_THE_CODEC = {
    "model": "aicr-t",
    "quality": 32,
    "size": (768, 512),
    "precision": "float32",
    "top": 20,
    "rounds": 3,
    "capture": None,
    "trace": None,
    "roofline": None,
}
_OF_OPERATORS = {
    "shape": (1, 64, 128, 192),
    "dtype": DTYPES[0],
    "nchw": False,
    "compile": False,
    "only": None,
    "repeat": None,
}


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """The arguments of ``aicr profile``."""
    sub.add_argument(
        "what",
        nargs="?",
        default="codec",
        metavar="codec | OPERATOR | FILE",
        help="the codec there and back (default), one operator, or calls that --capture has kept",
    )
    codec = sub.add_argument_group("the codec")
    codec.add_argument("--model", "-m", metavar="NAME_OR_PATH", help="default: aicr-t")
    codec.add_argument("--quality", "-q", type=whole(0, 63), metavar="0..63", help="default: 32")
    codec.add_argument("--size", type=_size, metavar="WxH", help="of the picture (default: 768x512)")
    add_precision(codec, "the networks")
    codec.add_argument("--top", type=whole(1), metavar="N", help="lines of the table (default: 20)")
    codec.add_argument("--rounds", type=whole(1), metavar="N", help="the fastest one counts (default: 3)")
    codec.add_argument("--capture", type=Path, metavar="FILE", help="keep what our operators get, to run it again")
    codec.add_argument("--trace", type=Path, metavar="FILE", help="also write a Chrome trace, for Perfetto")
    codec.add_argument("--roofline", type=Path, metavar="PICTURE", help="also draw the operators below the roofs")
    codec.add_argument("--nvtx", action="store_true", help="mark operators for Nsight Systems (CUDA)")

    operator = sub.add_argument_group("one operator, or calls kept")
    operator.add_argument("--shape", type=_shape, metavar="BxCxHxW", help="default: 1x64x128x192")
    operator.add_argument("--dtype", choices=DTYPES, help=f"default: {DTYPES[0]}")
    operator.add_argument("--nchw", action="store_true", help="feature maps in NCHW instead of channels-last")
    operator.add_argument("--compile", action="store_true", help="also compare with torch.compile")
    operator.add_argument("--only", metavar="OPERATOR", help="of the calls kept")
    operator.add_argument(
        "--repeat", type=whole(1), metavar="N", help="run each call N times and nothing else, for ncu and nsys"
    )

    sub.add_argument(
        "--dry-run",
        nargs="?",
        type=Path,
        const=Path("build/build.log"),
        metavar="LOG",
        help="registers, shared memory and occupancy of the CUDA kernels, from the log of the build "
        "(default: build/build.log); fails if a kernel spills registers",
    )
    sub.add_argument("--csv", type=Path, metavar="FILE", help="also write the table to a file")
    add_device(sub, "to run")
    add_threads(sub)
    sub.set_defaults(**_OF_THE_CODEC, **_OF_OPERATORS)


def run(args: argparse.Namespace, prepare: Callable[[], None]) -> int:
    """Runs ``aicr profile``; the exit code."""
    if args.dry_run is not None:
        return OK if _dry_run(args) else FAILED
    _check(args)
    prepare()
    if ":" in (args.device or "") and _kind(args) == "cuda":
        import torch

        torch.cuda.set_device(args.device)  # events and waits are those of the current device
    if args.what == "codec":
        _codec(args)
    elif args.repeat:
        _repeat(args)
    else:
        _compare(args)
    return OK


def _check(args: argparse.Namespace) -> None:
    """What would otherwise show after minutes, or not at all."""
    foreign = _OF_OPERATORS if args.what == "codec" else _OF_THE_CODEC
    for name, default in foreign.items():
        if getattr(args, name) != default:
            where = "an operator or a file of calls" if args.what == "codec" else "the codec"
            raise UsageError(f"--{name} is for {where}, not for {args.what!r}")
    if args.nvtx and args.what != "codec" and not args.repeat:
        raise UsageError("--nvtx is for the codec, and for operators with --repeat")
    if args.csv and args.repeat:
        raise UsageError("--csv writes a table, and --repeat makes none")
    if args.only and not Path(args.what).is_file():
        raise UsageError(f"--only takes from a file of calls, and {args.what!r} is none")
    if args.trace and args.trace.suffix != ".json":
        raise UsageError(f"{args.trace}: a trace needs the suffix .json")
    for file in (args.csv, args.capture, args.trace, args.roofline):
        if file and not file.absolute().parent.is_dir():
            raise UsageError(f"{file}: there is no such folder")
    if args.roofline:
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise SetupError("--roofline needs matplotlib: pip install 'aicr_ext[train]'") from error
        known = sorted(Figure().canvas.get_supported_filetypes())
        if args.roofline.suffix[1:] not in known:
            raise UsageError(f"{args.roofline}: the suffix must be one of {', '.join(known)}")


def _size(text: str) -> tuple[int, ...]:
    return _numbers(text, 2, "WIDTHxHEIGHT")


def _shape(text: str) -> tuple[int, ...]:
    return _numbers(text, 4, "BxCxHxW")


def _numbers(text: str, count: int, form: str) -> tuple[int, ...]:
    parts = text.split("x")
    if len(parts) != count or not all(part.isdigit() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not {form}")
    return tuple(map(int, parts))


def _kind(args: argparse.Namespace) -> str:
    return (args.device or "cpu").partition(":")[0]


def _dry_run(args: argparse.Namespace) -> bool:
    from .profiling.report import as_lines, resource_table, write_table
    from .profiling.resources import read_build_log

    resources = read_build_log(args.dry_run)
    table = resource_table(resources)
    print(as_lines(table))
    if args.csv:
        write_table(args.csv, table)
    kernels, spilled = {r.kernel for r in resources}, {r.kernel for r in resources if r.spilled}
    print(f"{len(kernels)} kernels, {len(resources)} reports, {len(spilled)} with spilled registers")
    return not spilled


def _codec(args: argparse.Namespace) -> None:
    import torch

    from . import Codec
    from .profiling import measure_roofs, profile
    from .profiling.capture import Capture
    from .profiling.compare import fastest_in_turns
    from .profiling.report import as_lines, draw_roofline, operator_table, write_table

    device, kind = args.device or "cpu", _kind(args)
    width, height = args.size
    codec = Codec(args.model, device=args.device, precision=args.precision)
    picture = _picture(width, height)
    data = codec.compress(picture, quality=args.quality)
    phases = {
        "compress": lambda: codec.compress(picture, quality=args.quality),
        "decompress": lambda: codec.decompress(data),
    }
    roofs = measure_roofs(device)
    print(_about(roofs, torch.get_num_threads()))
    capture = Capture() if args.capture else None
    everything, lines = [], []
    for name, call in phases.items():
        (seconds,) = fastest_in_turns([call], kind, seconds=0.0, rounds=args.rounds)
        rows = profile(call, args.rounds, device=device, roofs=roofs, capture=capture, nvtx=args.nvtx)
        table = operator_table(rows, seconds, args.top)
        print(f"\n{name}, {width} x {height}, quality {args.quality}: {1e3 * seconds:.1f} ms\n")
        print(as_lines(table))
        everything += rows
        lines += [{"phase": name, **line} for line in table]
    if args.csv:
        write_table(args.csv, lines)
    if args.capture:
        capture.save(args.capture)
    if args.roofline:
        draw_roofline(everything, roofs, args.roofline, f"{args.model}, {width} x {height}, {args.precision}")
    if args.trace:
        _trace(phases, kind, args.trace)


def _picture(width: int, height: int) -> object:
    """Smooth colours with some grain, like a photograph for the coder; (3, H, W) uint8."""
    import torch

    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 6, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)[0]
    grain = 0.02 * torch.randn(smooth.shape, generator=generator)
    return (smooth + grain).clamp(0, 1).mul(255).round().byte()


def _about(roofs: object, threads: int) -> str:
    memory, cache = roofs.copy[max(roofs.copy)] / 1e9, max(roofs.copy.values()) / 1e9
    products = ", ".join(f"{name} {rate / 1e9:.3g} GFLOP/s" for name, rate in roofs.product.items())
    where = f"{threads} thread{'s' if threads > 1 else ''}" if roofs.device == "cpu" else "GPU"
    return f"roofs, {where}: copies {memory:.3g} GB/s (memory) to {cache:.3g} GB/s; products {products}"


def _trace(phases: dict[str, Callable[[], object]], kind: str, path: Path) -> None:
    import torch

    from .files import appearing

    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] * (kind == "cuda")
    with torch.profiler.profile(activities=activities, record_shapes=True) as profiler:
        for name, call in phases.items():
            with torch.profiler.record_function(name):
                call()
    with appearing(path) as temporary:
        profiler.export_chrome_trace(str(temporary))


def _calls(args: argparse.Namespace) -> list:
    import torch

    from .profiling.capture import load_calls
    from .profiling.cases import CASES, make_call

    if args.what in CASES:
        calls = [make_call(args.what, args.shape, getattr(torch, args.dtype), not args.nchw)]
    elif Path(args.what).is_file():
        calls = [call for call in load_calls(args.what) if args.only in (None, call.name)]
        if not calls:
            raise UsageError(f"{args.what} holds no call of {args.only!r}")
    else:
        known = ", ".join(sorted(CASES))
        raise UsageError(f"{args.what!r} is neither 'codec' nor a file nor an operator; operators: {known}")
    return [call.to(args.device or "cpu") for call in calls]


def _compare(args: argparse.Namespace) -> None:
    import torch

    from .profiling import measure_roofs
    from .profiling.compare import compare
    from .profiling.report import as_lines, write_table

    calls = _calls(args)
    roofs = measure_roofs(args.device or "cpu")
    print(_about(roofs, torch.get_num_threads()) + "\n")
    table = [compare(call, roofs, compiled=args.compile) for call in calls]
    print(as_lines(table))
    if args.csv:
        write_table(args.csv, table)


def _repeat(args: argparse.Namespace) -> None:
    import torch

    calls = _calls(args)
    start = time.perf_counter()
    with torch.no_grad():
        for call in calls:
            if args.nvtx and _kind(args) == "cuda":
                torch.cuda.nvtx.range_push(str(call))
            for _ in range(args.repeat):
                call.operator(*call.fresh())
            if args.nvtx and _kind(args) == "cuda":
                torch.cuda.nvtx.range_pop()
    if _kind(args) == "cuda":
        torch.cuda.synchronize()
    print(f"{len(calls)} calls, {args.repeat} times each, in {time.perf_counter() - start:.3f} s")
