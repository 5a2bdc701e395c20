"""Several processes that train one model, as ``torchrun`` starts them.

Each makes its own rows of every batch; the gradients are averaged, so that all take the same step. They travel in one
vector after the backward pass: the networks are small, and nothing but the loop has to know.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Group"]


class Group:
    """This process among those of the run; a group of one where ``torchrun`` did not start it. A context manager.

    ``rank`` 0 alone writes files. CPU tensors travel by gloo, CUDA tensors by NCCL.

    Raises:
        ValueError: a device with a number in a run of several processes; each takes its own.
    """

    def __init__(self, device: str) -> None:
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = torch.device(device)
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        elif self.size > 1 and self.device.index is not None:
            raise ValueError(f"device: expected cpu or cuda for {self.size} processes, got {device!r}")

    def __enter__(self) -> Group:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.size > 1:
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.size > 1:
            if kind is None or issubclass(kind, KeyboardInterrupt):  # all processes come here, but not at once
                dist.barrier()  # one that takes its group down while another still uses it can bring both to abort
            dist.destroy_process_group()

    def rows(self, count: int) -> range:
        """Which of ``count`` rows of a batch are this process's; sizes differ by at most one."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def furthest(self, *values: float) -> tuple[float, ...]:
        """The greatest of each value over all processes: clocks and signals differ, decisions must not."""
        if self.size == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return tuple(shared.tolist())

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    @torch.no_grad()
    def average(self, parameters: Iterable[Tensor], values: Tensor, rows: int, count: int) -> Tensor:
        """Average gradients in place, and return averaged ``values`` (n,).

        ``rows`` of the batch's ``count`` are this process's: means over them become means over the batch. What is
        not finite in one process is so in all.
        """
        if self.size == 1:
            return values
        gradients = [p.grad for p in parameters if p.grad is not None]
        vector = torch.cat([values, *(g.flatten() for g in gradients)]).mul_(rows / count)
        dist.all_reduce(vector)
        values, *parts = vector.split([len(values), *(g.numel() for g in gradients)])
        _copy(gradients, parts)
        return values


def _copy(gradients: Sequence[Tensor], parts: Sequence[Tensor]) -> None:
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
