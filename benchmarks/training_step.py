"""One training step with native operators and in plain torch: ``python -m benchmarks.training_step [--csv FILE]``.

Forward, backward, clipping and AdamW on random pictures, under bfloat16 autocast unless ``--float32``; "recomputed"
keeps only the input of every block, and "compiled" (with ``--compiled``, minutes for each row) is ``torch.compile`` of
the network in plain torch. MiB is what the forward pass keeps for the backward pass beside the weights. All take turns
in one process, so that other work on the machine slows all alike; with ``--threads 1`` times are processor time, to
which it adds nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from aicr_ext.model.aicr import AICR
from aicr_ext.model.initialise import initialise
from aicr_ext.model.scale import lambda_of
from aicr_ext.ops.kernels import plain_torch
from aicr_ext.train.loop import rate_distortion_loss
from aicr_ext.train.optimisers import build_optimiser

from .timing import circumstances, measure_together, print_table, write_csv

#: Pictures of a batch and their side: the stages of a training by default.
STAGES = ["8x128", "6x192", "4x256"]


class Step:
    """A model with what one step needs; a call is a step."""

    def __init__(self, model: str, batch: int, side: int, bfloat16: bool) -> None:
        torch.manual_seed(0)
        self.model = AICR(model)
        initialise(self.model)
        self.model.to(memory_format=torch.channels_last).train()
        self.optimiser = build_optimiser("adamw", self.model, 1e-5)
        self.pictures = torch.rand(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
        self.quality = torch.linspace(0, 63, batch).round().long()
        self.bfloat16 = bfloat16

    def __call__(self) -> None:
        self.step(self.model)

    def step(self, model: Callable[..., Any]) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            result = model(self.pictures, self.quality)
        lam = lambda_of(self.quality, self.model.config.lambdas)
        loss, _ = rate_distortion_loss(result.y_bpp + result.z_bpp, result.picture, self.pictures, lam)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        self.optimiser.step()

    def plain(self) -> None:
        with plain_torch():
            self()

    @cached_property
    def compiled_model(self) -> Callable[..., Any]:
        torch.compiler.reset()
        return torch.compile(self.model)

    def compiled(self) -> None:
        with plain_torch():
            self.step(self.compiled_model)

    def recomputed(self) -> None:
        blocks = [module for module in self.model.modules() if hasattr(module, "recompute")]
        for block in blocks:
            block.recompute = True
        self()
        for block in blocks:
            block.recompute = False


def kept(model: torch.nn.Module, step: Callable[[], None]) -> float:
    """MiB of all tensors that the forward pass keeps for the backward pass beside the weights, each counted once."""
    sizes: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def note(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        step()
    return sum(sizes.values()) / 2**20


def run(model: str, batch: int, side: int, bfloat16: bool, compiled: bool, seconds: float) -> dict[str, object]:
    step = Step(model, batch, side, bfloat16)
    one_thread = torch.get_num_threads() == 1
    ways = {"native": step, "recomputed": step.recomputed, "plain": step.plain}
    if compiled:
        ways["compiled"] = step.compiled
    times = dict(zip(ways, measure_together(list(ways.values()), seconds, processor_time=one_thread), strict=True))
    others = list(ways)[2:]
    return {
        "model": model,
        "batch": f"{batch}x{side}x{side}",
        "autocast": "bfloat16" if bfloat16 else "off",
        **{f"{way} s": took for way, took in times.items()},
        **{f"x {way}": times[way] / times["native"] for way in others},
        **{f"{way} MiB": kept(step.model, call) for way, call in ways.items()},
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.training_step", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="aicr-t")
    parser.add_argument("--stages", nargs="+", default=STAGES, metavar="PICTURESxSIDE", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--float32", action="store_true", help="without autocast")
    parser.add_argument("--compiled", action="store_true", help="also torch.compile of the network in plain torch")
    parser.add_argument("--seconds", type=float, default=10, help="to spend on each way, per row")
    parser.add_argument("--csv", help="also write the table to this file")
    options = parser.parse_args(argv)
    stages = [stage.split("x") for stage in options.stages]
    if not all(len(stage) == 2 and all(number.isdecimal() for number in stage) for stage in stages):
        parser.error(f"--stages must be like 8x128, got {' '.join(options.stages)}")
    torch.set_num_threads(options.threads)
    rows: list[dict[str, object]] = []
    for batch, side in stages:
        rows.append(run(options.model, int(batch), int(side), not options.float32, options.compiled, options.seconds))
        if options.csv:
            write_csv(options.csv, [row | {"threads": options.threads} | circumstances() for row in rows])
    print_table(rows)


if __name__ == "__main__":
    main()
