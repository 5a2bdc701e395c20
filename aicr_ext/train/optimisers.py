"""The optimisers a run can choose between."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from aicr_ext.model.aicr import AICR

__all__ = ["OPTIMISERS", "Muon", "build_optimiser"]

_BETAS = (0.9, 0.98)
_DECAY = 1e-4


def build_optimiser(name: str, model: AICR, learning_rate: float) -> torch.optim.Optimizer | Muon:
    """An optimiser of all parameters of ``model``, which must already have its device and memory format.

    Raises:
        ValueError: a name that is not in :data:`OPTIMISERS`.
    """
    if name not in OPTIMISERS:
        raise ValueError(f"unknown optimiser {name!r}; known: {', '.join(OPTIMISERS)}")
    return OPTIMISERS[name](model, learning_rate)


def _adamw(model: AICR, learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), learning_rate, _BETAS, weight_decay=_DECAY, fused=True)


def _adam(model: AICR, learning_rate: float) -> torch.optim.Optimizer:
    """As published for AICR."""
    return torch.optim.Adam(model.parameters(), learning_rate, (0.9, 0.999), fused=True)


class Muon:
    """Muon for the matrices inside the network, AdamW for everything else; used like one optimiser.

    Muon replaces the momentum of a weight matrix by its nearest orthogonal matrix, scaled so that its root mean
    square matches a step of AdamW (:class:`torch.optim.Muon`, ``match_rms_adamw``); one learning rate serves both.
    A convolution counts as the matrix (out, in · height · width). Stem, tail, the linear shortcut, depthwise weights
    and vectors stay with AdamW.
    """

    def __init__(self, model: AICR, learning_rate: float) -> None:
        matrices = dict(_inner_matrices(model))
        taken = set(matrices.values())
        rest = [p for p in model.parameters() if p not in taken]
        self._pairs = [(p, nn.Parameter(_as_matrix(p.detach()))) for p in matrices.values()]
        self.parts = (
            torch.optim.Muon([view for _, view in self._pairs], learning_rate, _DECAY, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, learning_rate, _BETAS, weight_decay=_DECAY, fused=True),
        )

    @property
    def param_groups(self) -> list[dict]:
        """Those of both parts, so that a schedule reaches all."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter, view in self._pairs:
            parameter.grad = view.grad = None
        self.parts[1].zero_grad(set_to_none)

    @torch.no_grad()
    def step(self) -> None:
        for parameter, view in self._pairs:
            view.grad = None if parameter.grad is None else _as_matrix(parameter.grad)
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict) -> None:
        for part, its_state in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(its_state)


def _inner_matrices(model: AICR) -> Iterator[tuple[str, Tensor]]:
    """Weights of the dense convolutions between the stem and the tail."""
    outer = ("analysis.stem", "analysis.linear", "synthesis.tail", "synthesis.linear")
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1 and not name.startswith(outer):
            yield name, module.weight


def _as_matrix(weight: Tensor) -> Tensor:
    """(out, in, h, w) as (out, h · w · in); shares memory if the weight is channels-last or 1x1."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


#: What :func:`build_optimiser` knows.
OPTIMISERS: dict[str, Callable[[AICR, float], torch.optim.Optimizer | Muon]] = {
    "adamw": _adamw,
    "muon": Muon,
    "adam": _adam,
}
