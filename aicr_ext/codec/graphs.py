"""Networks as CUDA graphs: recorded once for a shape, and then started by one call instead of hundreds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["GraphCache", "capture_cuda"]

Function = Callable[..., Tensor]

#: Calls before a recording, in which libraries choose their algorithms and ask for memory.
_WARM_UP = 3


class GraphCache:
    """Functions of tensors, each recorded for the shapes it is called with; the shapes used longest ago are forgotten.

    Args:
        capture: makes of a function and its arguments one that does the same for other arguments of these shapes.
        most: how many recordings are kept.

    One thread, and one CUDA stream, at a time.
    """

    def __init__(self, capture: Callable[[Function, tuple[Tensor, ...]], Function], most: int = 8) -> None:
        self._capture, self._most = capture, most
        self._recorded: OrderedDict[tuple, Function] = OrderedDict()

    def __call__(self, name: str, function: Function, *inputs: Tensor) -> Tensor:
        """``function`` of tensors; ``name`` stands for it, and for everything else that it depends on."""
        key = (name, *((x.shape, x.stride(), x.dtype) for x in inputs))
        if key not in self._recorded:
            self._recorded[key] = self._capture(function, inputs)
            if len(self._recorded) > self._most:  # the recording has waited for the device to be done with the oldest
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(key)
        return self._recorded[key](*inputs)


def capture_cuda(function: Function, inputs: tuple[Tensor, ...]) -> Function:
    """Records what a function does on CUDA, which must not wait for the device.

    The result owns copies of the inputs, and the memory between them and the output. Its own results are copies.
    """
    given = [x.clone() for x in inputs]
    here, beside = torch.cuda.current_stream(given[0].device), torch.cuda.Stream(given[0].device)
    beside.wait_stream(here)
    with torch.cuda.stream(beside):
        for _ in range(_WARM_UP):
            function(*given)
    here.wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=beside):
        made = function(*given)

    def replay(*others: Tensor) -> Tensor:
        for mine, other in zip(given, others, strict=True):
            mine.copy_(other)
        graph.replay()
        return made.clone()

    return replay
