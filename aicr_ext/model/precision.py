"""In which numbers the networks outside the entropy coder compute."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["PRECISIONS", "InBfloat16", "autocast", "has_bfloat16", "resolve_precision", "with_cast_weights"]

#: What can be asked for; ``auto`` is bfloat16 where the device has instructions for it, else float32.
PRECISIONS = ("float32", "bfloat16", "auto")


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16: AVX-512 or AMX ones, or compute capability 8.0."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    known = getattr(torch.cpu, "get_capabilities", dict)()  # not in every version that this package accepts
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def resolve_precision(precision: str, device: torch.device) -> str:
    """``float32`` or ``bfloat16``, for one of :data:`PRECISIONS`.

    Raises:
        ValueError: another precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "auto":
        return "bfloat16" if has_bfloat16(device) else "float32"
    return precision


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which convolutions and products run in that precision, with sums in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


#: Convolutions whose weights stay float32 under autocast: the linear shortcut, and what kernels and the channel
#: attention's product of matrices take so.
_IN_FLOAT32 = ("linear", "dwconv", "dwconv_row", "dwconv_col", "channel_attention.project_out")


def with_cast_weights(network: nn.Module, precision: str) -> nn.Module:
    """Analysis or synthesis for :func:`autocast`: with bfloat16 a copy that has cast its weights, as every call would.

    The results have the same bits. Casts would be a third of the kernels of these networks and more.
    """
    if precision != "bfloat16":
        return network
    network = copy.deepcopy(network)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and not f".{name}".endswith(tuple(f".{end}" for end in _IN_FLOAT32)):
            module.to(torch.bfloat16)
    return network


class InBfloat16:
    """A synthesis for feedback (:class:`aicr_ext.model.transforms.Analysis`) that computes in bfloat16.

    For an analysis in float32. How the synthesis would show a picture is an estimate there: on pictures of Kodak the
    files differ by less than 0.05 %, and what they decode to by less than 0.004 dB, either way.
    """

    def __init__(self, synthesis: nn.Module) -> None:
        self._network = with_cast_weights(synthesis, "bfloat16").requires_grad_(False)
        #: Of a difference; in float32.
        self.components: Callable[[Tensor], Tensor] = synthesis.components

    def __call__(self, latents: Tensor, quality: Tensor) -> Tensor:
        with autocast(latents.device, "bfloat16"):
            return self._network(latents, quality)
