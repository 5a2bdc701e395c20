"""Every operator with a native kernel beside eager PyTorch: ``python -m benchmarks.ops [--csv FILE]``.

Eager is the plain-torch reference in the layout that suits it best, NCHW or channels-last, measured in the
same run. GB/s counts the bytes the operator has to move at least: its inputs once and its output once. The
error is the largest against the reference in float64, next to that of eager PyTorch in the same dtype.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from aicr_ext.ops.decoupled_attention import decoupled_attention
from aicr_ext.ops.reference import decoupled_attention_reference

from .timing import circumstances, measure_together, print_table, write_csv

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Case:
    """One operator at one shape: the native call, its reference, and a function that makes its arguments."""

    op: str
    shape: tuple[int, ...]
    native: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    arguments: Callable[[torch.dtype, str], tuple[Tensor, ...]]


def decoupled_attention_case(shape: tuple[int, int, int, int], taps: int = 5) -> Case:
    def arguments(dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        sizes = [shape, shape, (shape[1], 1, 1, taps), (shape[1], 1, taps, 1)]
        return tuple(torch.randn(size, generator=generator).to(device, dtype) for size in sizes)

    return Case("decoupled_attention", shape, decoupled_attention, decoupled_attention_reference, arguments)


# The three scales of aicr-t for a picture of 768 x 512, and the first of aicr-s for a quarter of it.
CASES = [
    decoupled_attention_case((1, 64, 128, 192)),
    decoupled_attention_case((1, 128, 64, 96)),
    decoupled_attention_case((1, 192, 32, 48)),
    decoupled_attention_case((1, 32, 256, 384)),
]


def in_layout(args: tuple[Tensor, ...], layout: str) -> tuple[Tensor, ...]:
    """Feature maps in a layout; weights, whose last axes are single, as they are."""
    return tuple(a if a.shape[1] == 1 else a.contiguous(memory_format=LAYOUTS[layout]) for a in args)


def largest(x: Tensor) -> float:
    return x.abs().max().item()


def run(case: Case, dtype: torch.dtype, device: str, seconds: float) -> list[dict[str, object]]:
    args = case.arguments(dtype, device)
    exact = case.reference(*(a.double() for a in args))
    maps = {layout: in_layout(args, layout) for layout in LAYOUTS}
    eager_error = max(largest(case.reference(*placed).double() - exact) for placed in maps.values())
    calls = [partial(call, *placed) for call in (case.reference, case.native) for placed in maps.values()]
    durations = measure_together(calls, seconds, device)
    best = min(durations[: len(maps)])

    rows = []
    for (layout, placed), took in zip(maps.items(), durations[len(maps) :], strict=True):
        out = case.native(*placed)
        moved = sum(a.numel() * a.element_size() for a in (*placed, out))
        rows.append(
            {
                "op": case.op,
                "shape": "x".join(map(str, case.shape)),
                "dtype": str(dtype).removeprefix("torch."),
                "layout": layout,
                "us": took * 1e6,
                "GB/s": moved / took / 1e9,
                "x eager": best / took,
                "max error": largest(out.double() - exact),
                "eager error": eager_error,
            }
        )
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.ops", description="operators beside eager PyTorch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, help="CPU threads (default: what torch chooses)")
    parser.add_argument("--seconds", type=float, default=0.3, help="time for each call (default: %(default)s)")
    parser.add_argument("--csv", help="also write the table to this file")
    options = parser.parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    cuda = options.device == "cuda"
    place = torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} CPU thread(s)"
    print(f"torch {torch.__version__}, {place}\n")
    with torch.inference_mode():
        rows = [
            row
            for case in CASES
            for dtype in options.dtype
            for row in run(case, getattr(torch, dtype), options.device, options.seconds)
        ]
    print_table(rows)
    if options.csv:
        facts = circumstances(options.device)
        write_csv(options.csv, [row | facts for row in rows])


if __name__ == "__main__":
    main()
