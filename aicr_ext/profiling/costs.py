"""What a call of an operator must do at least: bytes to move, operations to compute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

__all__ = ["bytes_moved", "flops", "signature", "tensors_in"]


def tensors_in(values: object) -> Iterator[Tensor]:
    """The tensors among arguments or results, lists included."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from tensors_in(value)
    elif isinstance(values, dict):
        yield from tensors_in(list(values.values()))


def bytes_moved(arguments: Iterable[object], result: object) -> int:
    """Bytes of every tensor once: inputs are read, results are written; one that is both counts twice."""
    inputs = {_place(t): t for t in tensors_in(list(arguments))}
    outputs = {_place(t): t for t in tensors_in(result)}
    return sum(t.numel() * t.element_size() for side in (inputs, outputs) for t in side.values())


def _place(t: Tensor) -> tuple[object, ...]:
    """Which values a tensor has, also of one on the meta device, where no tensor has an address."""
    return t.untyped_storage()._cdata, t.storage_offset(), t.shape


def flops(operator: torch._ops.OpOverload, arguments: tuple, keywords: dict, result: object) -> int:
    """Floating-point operations by the formula registered for the operator, two for a multiplication with addition.

    0 where there is none (:mod:`torch.utils.flop_counter`), as for integer operators.
    """
    formula = flop_registry.get(operator._overloadpacket)
    return 0 if formula is None else int(formula(*arguments, **keywords, out_val=result))


def signature(arguments: Iterable[object]) -> str:
    """Shapes of the first three tensors, with ``*`` for height and width of feature maps: those of strips differ."""
    tensors = list(tensors_in(list(arguments)))[:3]
    maps = {t.shape[2:] for t in tensors[:1] if t.ndim == 4}

    def text(t: Tensor) -> str:
        if t.ndim == 4 and t.shape[2:] in maps and min(t.shape[2:]) > 1:
            return f"{t.shape[0]}x{t.shape[1]}x*x*"
        return "x".join(map(str, t.shape)) or "1"

    return ", ".join(text(t) for t in tensors)
