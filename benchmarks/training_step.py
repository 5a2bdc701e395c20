"""One training step with native operators and in plain torch: ``python -m benchmarks.training_step [--csv FILE]``.

Forward, backward, clipping and AdamW on random pictures, under bfloat16 autocast unless ``--float32``; "recomputed"
keeps only the input of every block. MiB is what the forward pass keeps for the backward pass beside the weights. The
three take turns in one process, so that other work on the machine slows all alike; with ``--threads 1`` times are
processor time, to which it adds nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aicr_ext.model.aicr import AICR
from aicr_ext.model.initialise import initialise
from aicr_ext.ops.kernels import plain_torch
from aicr_ext.train.loop import lambda_of, rate_distortion_loss
from aicr_ext.train.optimisers import build_optimiser

from .timing import measure_together, print_table, write_csv

#: (batch, patch side): the stages of a training by default.
STAGES = [(8, 128), (6, 192), (4, 256)]


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
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            result = self.model(self.pictures, self.quality)
        lam = lambda_of(self.quality, self.model.config.lambdas)
        loss, _ = rate_distortion_loss(result.y_bpp + result.z_bpp, result.picture, self.pictures, lam)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        self.optimiser.step()

    def plain(self) -> None:
        with plain_torch():
            self()

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


def run(model: str, batch: int, side: int, bfloat16: bool, seconds: float) -> dict[str, object]:
    step = Step(model, batch, side, bfloat16)
    one_thread = torch.get_num_threads() == 1
    steps = [step.plain, step, step.recomputed]
    plain, native, recomputed = measure_together(steps, seconds, processor_time=one_thread)
    return {
        "model": model,
        "batch": f"{batch}x{side}x{side}",
        "autocast": "bfloat16" if bfloat16 else "off",
        "plain s": plain,
        "native s": native,
        "x plain": plain / native,
        "recomputed s": recomputed,
        **{
            f"{name} MiB": kept(step.model, way)
            for name, way in zip(("plain", "native", "recomputed"), steps, strict=True)
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.training_step", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="aicr-t")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--float32", action="store_true", help="without autocast")
    parser.add_argument("--seconds", type=float, default=10, help="to spend on each of the three, per row")
    parser.add_argument("--csv", help="also write the table to this file")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    rows = [run(options.model, *stage, not options.float32, options.seconds) for stage in STAGES]
    print_table(rows)
    if options.csv:
        write_csv(options.csv, rows)


if __name__ == "__main__":
    main()
