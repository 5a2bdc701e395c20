"""Every operator with a native kernel beside eager PyTorch: ``python -m benchmarks.ops [--csv FILE]``.

Eager is the plain-torch reference in the layout that suits it best, NCHW or channels-last, and autograd through it,
measured in the same run. GB/s counts the bytes the forward operator has to move at least: its inputs once and its
output once. The error is the largest against the reference in float64, next to that of eager PyTorch in the same
dtype; of an operator with several results they are those of the first. The backward columns are about the gradients of
all arguments, after one forward pass. Operators without a CPU kernel are measured on a GPU only. With ``--threads 1``
all times are processor time, to which other programs on the machine add nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from aicr_ext.ops import (
    decoupled_attention,
    depthwise_gram,
    fold_channel_attention,
    gated_depthwise_conv3x3,
    gelu_gate,
    layer_norm2d,
)
from aicr_ext.ops.reference import (
    decoupled_attention_reference,
    depthwise_gram_reference,
    fold_channel_attention_reference,
    gated_depthwise_conv3x3_reference,
    gelu_gate_reference,
    layer_norm2d_reference,
)

from .timing import circumstances, measure_together, print_table, write_csv

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Case:
    """One operator at one shape: the native call, its reference, and a function that makes its arguments."""

    op: str
    shape: tuple[int, ...]
    native: Callable[..., Tensor | tuple[Tensor, ...]]
    reference: Callable[..., Tensor | tuple[Tensor, ...]]
    arguments: Callable[[torch.dtype, str], tuple[Tensor, ...]]


def drawn(*sizes: tuple[int, ...]) -> Callable[[torch.dtype, str], tuple[Tensor, ...]]:
    """A function that draws arguments of these sizes, always the same values."""

    def arguments(dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        return tuple(torch.randn(size, generator=generator).to(device, dtype) for size in sizes)

    return arguments


def decoupled_attention_case(shape: tuple[int, int, int, int], taps: int = 5) -> Case:
    arguments = drawn(shape, shape, (shape[1], 1, 1, taps), (shape[1], 1, taps, 1))
    return Case("decoupled_attention", shape, decoupled_attention, decoupled_attention_reference, arguments)


def layer_norm2d_case(shape: tuple[int, int, int, int]) -> Case:
    return Case("layer_norm2d", shape, layer_norm2d, layer_norm2d_reference, drawn(shape, (shape[1],)))


def gated_depthwise_conv3x3_case(shape: tuple[int, int, int, int]) -> Case:
    reference = partial(gated_depthwise_conv3x3_reference, bias=None, gelu=True)
    arguments = drawn(shape, (shape[1], 1, 3, 3))
    return Case("gated_depthwise_conv3x3", shape, gated_depthwise_conv3x3, reference, arguments)


def gelu_gate_case(shape: tuple[int, int, int, int]) -> Case:
    return Case("gelu_gate", shape, gelu_gate, gelu_gate_reference, drawn(shape))


def depthwise_gram_case(shape: tuple[int, int, int, int], groups: int = 4) -> Case:
    native, reference = (partial(op, bias=None, groups=groups) for op in (depthwise_gram, depthwise_gram_reference))
    return Case("depthwise_gram", shape, native, reference, drawn(shape, (shape[1], 1, 3, 3)))


def fold_channel_attention_case(channels: int, groups: int = 4) -> Case:
    """Of one picture. Its tensors have fewer dimensions than maps, because they have no layout."""
    depth = channels // groups
    draw = drawn((groups, depth, 2 * depth), (groups, depth, 2 * depth), (groups,), (channels, channels))

    def arguments(dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
        q, k, temperature, weight = draw(dtype, device)
        wide_q, wide_k = q.float(), k.float()
        return wide_q @ wide_k.transpose(1, 2), wide_q.square().sum(2), wide_k.square().sum(2), temperature, weight

    def call(op: Callable[..., Tensor], scores: Tensor, q: Tensor, k: Tensor, temperature: Tensor, weight: Tensor):
        return op(scores[None], q[None], k[None], temperature, weight[:, :, None, None])

    native, reference = (partial(call, op) for op in (fold_channel_attention, fold_channel_attention_reference))
    return Case("fold_channel_attention", (1, groups, depth, depth), native, reference, arguments)


# The three scales of aicr-t for a picture of 768 x 512, and the first of aicr-s for a quarter of it.
SHAPES = [(1, 64, 128, 192), (1, 128, 64, 96), (1, 192, 32, 48), (1, 32, 256, 384)]
CASES = [
    *map(decoupled_attention_case, SHAPES),
    *map(layer_norm2d_case, SHAPES),
    *(gated_depthwise_conv3x3_case((b, 4 * c, h, w)) for b, c, h, w in SHAPES),
    *(gelu_gate_case((b, 4 * c, h, w)) for b, c, h, w in SHAPES),
]
CUDA_CASES = [
    *(depthwise_gram_case((b, 2 * c, h, w)) for b, c, h, w in SHAPES),
    *(fold_channel_attention_case(c) for _, c, _, _ in SHAPES),
]


def in_layout(args: tuple[Tensor, ...], layout: str) -> tuple[Tensor, ...]:
    """Feature maps in a layout; weights, which have one input channel, as they are."""
    return tuple(a if a.dim() < 4 or a.shape[1] == 1 else a.contiguous(memory_format=LAYOUTS[layout]) for a in args)


def tensors(out: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (out,) if isinstance(out, Tensor) else out


def largest(x: Tensor) -> float:
    return x.abs().max().item()


def backward(function: Callable[..., Tensor | tuple[Tensor, ...]], args: tuple[Tensor, ...]) -> Callable[[], object]:
    """A call that computes the gradients of all arguments from fixed ones of the results."""
    leaves = [a.detach().requires_grad_() for a in args]
    out = tensors(function(*leaves))
    generator = torch.Generator().manual_seed(1)
    grads = [torch.empty_like(t).copy_(torch.randn(t.shape, generator=generator)) for t in out]
    return lambda: torch.autograd.grad(out, leaves, grads, retain_graph=True)


@torch.no_grad()
def largest_errors(case: Case, maps: Sequence[tuple[Tensor, ...]]) -> list[tuple[float, float]]:
    """For each layout the largest error of the operator and of eager PyTorch, against float64."""
    exact = tensors(case.reference(*(a.double() for a in maps[0])))[0]

    def error(call: Callable[..., Tensor | tuple[Tensor, ...]], args: tuple[Tensor, ...]) -> float:
        return largest(tensors(call(*args))[0].double() - exact)

    return [(error(case.native, a), error(case.reference, a)) for a in maps]


def run(case: Case, dtype: torch.dtype, device: str, seconds: float) -> list[dict[str, object]]:
    args = case.arguments(dtype, device)
    maps = [in_layout(args, layout) for layout in LAYOUTS]
    count = len(maps)
    clock = {"seconds": seconds, "device": device, "processor_time": device == "cpu" and torch.get_num_threads() == 1}
    errors = largest_errors(case, maps)
    calls = [partial(call, *placed) for call in (case.reference, case.native) for placed in maps]
    with torch.inference_mode():
        forward = measure_together(calls, **clock)
        moved = sum(a.numel() * a.element_size() for a in (*args, *tensors(case.native(*args))))
    calls = [backward(call, placed) for call in (case.reference, case.native) for placed in maps]
    gradients = measure_together(calls, **clock)
    return [
        {
            "op": case.op,
            "shape": "x".join(map(str, case.shape)),
            "dtype": str(dtype).removeprefix("torch."),
            "layout": layout,
            "us": forward[count + i] * 1e6,
            "GB/s": moved / forward[count + i] / 1e9,
            "x eager": min(forward[:count]) / forward[count + i],
            "max error": errors[i][0],
            "eager error": max(eager for _, eager in errors),
            "backward us": gradients[count + i] * 1e6,
            "backward x eager": min(gradients[:count]) / gradients[count + i],
        }
        for i, layout in enumerate(LAYOUTS)
    ]


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
    rows = [
        row
        for case in (*CASES, *(CUDA_CASES if cuda else ()))
        for dtype in options.dtype
        for row in run(case, getattr(torch, dtype), options.device, options.seconds)
    ]
    print_table(rows)
    if options.csv:
        facts = circumstances(options.device)
        write_csv(options.csv, [row | facts for row in rows])


if __name__ == "__main__":
    main()
