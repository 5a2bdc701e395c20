"""What the blocks ask of the shapes of their arguments."""

from __future__ import annotations

from torch import Tensor

__all__ = ["channels_of", "check_transposed_attention", "expect_shape"]


def check_transposed_attention(
    x: Tensor,
    context: Tensor | None,
    qkv: Tensor,
    qkv_dwconv: Tensor | None,
    temperature: Tensor | None,
    project_out: Tensor,
    groups: int,
    residual: bool,
) -> None:
    """ValueError for shapes that do not go together."""
    c = channels_of(x)
    expect_shape("qkv", qkv, (3 * c, c, 1, 1))
    if qkv_dwconv is not None:
        expect_shape("qkv_dwconv", qkv_dwconv, (3 * c, 1, 3, 3))
    expect_shape("project_out", project_out, (c if residual else project_out.shape[0], c, 1, 1))
    if groups < 1 or c % groups:
        raise ValueError(f"groups must divide the {c} channels of x, got {groups}")
    if temperature is not None and temperature.numel() != groups:
        raise ValueError(f"temperature must have {groups} values, one for each group, got {temperature.numel()}")
    if context is not None:
        expect_shape("context", context, tuple(x.shape))


def channels_of(x: Tensor) -> int:
    """The channels of a map; ValueError if x is none."""
    if x.dim() != 4:
        raise ValueError(f"x must be (B, C, H, W), got {tuple(x.shape)}")
    return x.shape[1]


def expect_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """ValueError for a tensor of another shape."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must have the shape {shape}, got {tuple(tensor.shape)}")
