"""Every operator, primitive and block, beside eager PyTorch: ``python -m benchmarks.ops [--csv FILE]``.

Eager is the plain-torch definition in the layout that suits it best, NCHW or channels-last, and autograd through it;
``--compiled`` adds ``torch.compile`` of the definition, which takes minutes to compile. All are measured in the same
run, in turns.

* GB/s counts the bytes that the forward operator has to move at least: its inputs once and its output once; GFLOP/s
  what ``FlopCounterMode`` counts in the definition.
* "% of roof" is the time that these bytes or these operations take at least, whichever is longer, of the time measured.
  The roofs are copies of several sizes, of which the nearest counts, and a large matrix product in the dtype
  (:mod:`aicr_ext.profiling.roofs`).
* MiB is the most memory that a forward call holds beside its arguments.
* The error is the largest against the definition in float64, next to that of eager PyTorch in the same dtype; of an
  operator with several results it is that of the first.
* The backward columns are about the gradients of all arguments, after one forward pass.

On a CPU glibc keeps freed memory (:func:`aicr_ext.codec.heap.keep_freed_blocks`), for whoever comes next: otherwise the
pages of every large result are new, and how often depends on what a process did before.

Operators without a CPU kernel are measured on a GPU only. There, times are between events, each call on a cache of
other data. With ``--threads 1`` on a CPU they are processor time, to which other programs on the machine add nothing.
The file of ``--csv`` is written anew after each case, so that a run that is stopped leaves what it has measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from aicr_ext.codec.heap import keep_freed_blocks
from aicr_ext.profiling import Roofs, measure_roofs

from .op_cases import CASES, CUDA_CASES, LAYOUTS, QUICK_CASES, Case, in_layout
from .timing import circumstances, measure_events, measure_together, print_table, write_csv

Arguments = tuple[Tensor | None, ...]


def tensors(out: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (out,) if isinstance(out, Tensor) else out


def largest(x: Tensor) -> float:
    return x.abs().max().item()


def backward(function: Callable[..., Tensor | tuple[Tensor, ...]], args: Arguments) -> Callable[[], object]:
    """A call that computes the gradients of all arguments from fixed ones of the results."""
    placed = [None if a is None else a.detach().requires_grad_() for a in args]
    leaves = [a for a in placed if a is not None]
    out = tensors(function(*placed))
    generator = torch.Generator().manual_seed(1)
    grads = [torch.empty_like(t).copy_(torch.randn(t.shape, generator=generator)) for t in out]
    return lambda: torch.autograd.grad(out, leaves, grads, retain_graph=True)


@torch.no_grad()
def largest_errors(case: Case, maps: Sequence[Arguments]) -> list[tuple[float, float]]:
    """For each layout the largest error of the operator and of eager PyTorch, against float64."""
    exact = tensors(case.reference(*(None if a is None else a.double() for a in maps[0])))[0]

    def error(call: Callable[..., Tensor | tuple[Tensor, ...]], args: Arguments) -> float:
        return largest(tensors(call(*args))[0].double() - exact)

    return [(error(case.native, a), error(case.reference, a)) for a in maps]


@torch.no_grad()
def operations(case: Case) -> int:
    """FLOPs of the definition, counted without computing it."""
    args = (None if size is None else torch.empty(size, device="meta") for size in case.sizes)
    with FlopCounterMode(display=False) as counter:
        case.reference(*args)
    return counter.get_total_flops()


@torch.no_grad()
def peak_memory(call: Callable[[], object], device: str) -> float:
    """MiB that a call holds at most beside what was there before."""
    call()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = call()
    del result
    held = peak = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 2**20


@cache
def roofs(dtype: torch.dtype, device: str) -> Roofs:
    measured = measure_roofs(device, (name_of(dtype),))
    if device != "cuda":
        return measured
    memory = max(measured.copy)  # the calls find nothing of theirs in the cache
    return replace(measured, copy={memory: measured.copy[memory]})


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def on_processor_time(device: str) -> bool:
    return device == "cpu" and torch.get_num_threads() == 1


def run(case: Case, dtype: torch.dtype, device: str, seconds: float, compiled: bool) -> list[dict[str, object]]:
    args = case.arguments(dtype, device)
    maps = {layout: in_layout(args, layout) for layout in LAYOUTS}
    own = [maps[layout] for layout in case.layouts]
    clock = partial(measure_events, seconds=seconds)
    if device != "cuda":
        clock = partial(measure_together, seconds=seconds, processor_time=on_processor_time(device))
    errors = largest_errors(case, own)
    eager = [partial(case.reference, *placed) for placed in maps.values()]
    native = [partial(case.native, *placed) for placed in own]
    calls = [*eager, *native]
    if compiled:
        torch.compiler.reset()
        calls.append(partial(torch.compile(case.reference), *maps[case.layouts[-1]]))
    with torch.no_grad():
        forward = clock(calls)
        given = [a for a in args if a is not None]
        moved = sum(a.nbytes for a in (*given, *tensors(case.native(*args))))
    ways = [*((case.reference, placed) for placed in maps.values()), *((case.native, placed) for placed in own)]
    gradients = clock([backward(*way) for way in ways])
    flops = operations(case)
    floor = roofs(dtype, device).seconds(moved, flops, name_of(dtype))
    rows = []
    for i, layout in enumerate(case.layouts):
        took = forward[len(eager) + i]
        rows.append(
            {
                "op": case.op,
                "shape": "x".join(map(str, case.shape)),
                "dtype": name_of(dtype),
                "layout": layout,
                "us": took * 1e6,
                "GB/s": moved / took / 1e9,
                "GFLOP/s": flops / took / 1e9,
                "% of roof": 100 * floor / took,
                "x eager": min(forward[: len(eager)]) / took,
                **({"x compiled": forward[-1] / took} if compiled else {}),
                "MiB": peak_memory(native[i], device),
                "eager MiB": min(peak_memory(call, device) for call in eager),
                "max error": errors[i][0],
                "eager error": max(error for _, error in errors),
                "backward us": gradients[len(eager) + i] * 1e6,
                "backward x eager": min(gradients[: len(eager)]) / gradients[len(eager) + i],
            }
        )
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.ops", description="operators beside eager PyTorch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, help="CPU threads (default: what torch chooses)")
    parser.add_argument("--seconds", type=float, default=0.3, help="time for each call (default: %(default)s)")
    parser.add_argument("--ops", nargs="+", help="only these operators")
    parser.add_argument("--channels", type=int, nargs="+", help="only shapes with so many")
    parser.add_argument("--compiled", action="store_true", help="also torch.compile of every definition")
    parser.add_argument("--quick", action="store_true", help="one small shape of every operator: to see that it runs")
    parser.add_argument("--csv", help="also write the table to this file")
    options = parser.parse_args(argv)
    cases = [*(QUICK_CASES if options.quick else CASES), *(CUDA_CASES if options.device == "cuda" else [])]
    known = list(dict.fromkeys(case.op for case in cases))
    if unknown := set(options.ops or ()) - set(known):
        parser.error(f"no operator {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_blocks()
    cuda = options.device == "cuda"
    place = torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} CPU thread(s)"
    print(f"torch {torch.__version__}, {place}")
    dtypes = [getattr(torch, name) for name in options.dtype]
    limits = {}
    for name, dtype in zip(options.dtype, dtypes, strict=True):
        measured = roofs(dtype, options.device)
        copy, product = measured.copy[max(measured.copy)] / 1e9, measured.product[name] / 1e9
        limits[name] = {"copy GB/s": copy, "product GFLOP/s": product}
        print(f"{name}: copy {copy:.1f} GB/s in memory, matrix product {product:.1f} GFLOP/s")
    print()
    rows: list[dict[str, object]] = []
    facts = circumstances(options.device)
    wanted = [case for case in cases if case.op in (options.ops or known)]
    if options.channels:
        wanted = [case for case in wanted if case.shape[1] in options.channels]
    if not wanted:
        parser.error(f"no operator has a shape with {' or '.join(map(str, options.channels))} channels")
    for case in wanted:
        for dtype in dtypes:
            rows += run(case, dtype, options.device, options.seconds, options.compiled)
        if options.csv:
            write_csv(options.csv, [row | limits[str(row["dtype"])] | facts for row in rows])
    print_table(rows)


if __name__ == "__main__":
    main()
