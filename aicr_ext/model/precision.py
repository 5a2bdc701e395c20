"""In which numbers the networks outside the entropy coder compute."""

from __future__ import annotations

import torch

__all__ = ["PRECISIONS", "autocast", "has_bfloat16", "resolve_precision"]

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
