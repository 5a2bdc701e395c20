"""Plain-torch definitions of the operators that have native kernels.

Each function here is the specification of the operator of its name: tests compare kernels with it, and it
runs where no kernel is available.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["decoupled_attention_reference"]


def decoupled_attention_reference(attn: Tensor, value: Tensor, weight_row: Tensor, weight_col: Tensor) -> Tensor:
    """dwconv_{K×1}(GELU(dwconv_{1×K}(GELU(attn)))) ⊙ value, as
    :func:`aicr_ext.ops.decoupled_attention.decoupled_attention`.

    The weights are taken in the dtype of ``attn``.
    """
    channels, taps = attn.shape[1], weight_row.shape[3]
    row, col = weight_row.to(attn.dtype), weight_col.to(attn.dtype)
    rows = F.conv2d(F.gelu(attn), row, padding=(0, taps // 2), groups=channels)
    return F.conv2d(F.gelu(rows), col, padding=(taps // 2, 0), groups=channels) * value
