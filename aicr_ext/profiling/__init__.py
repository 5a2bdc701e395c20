"""Where the time goes: operators of the codec or of any call, beside what the machine could do.

>>> import torch
>>> from aicr_ext import ops
>>> from aicr_ext.profiling import profile
>>> x, weight = torch.rand(1, 64, 32, 48), torch.ones(64)
>>> rows = profile(lambda: ops.layer_norm2d(x, weight))
>>> rows[0].name, rows[0].calls
('aicr_ext::layer_norm2d', 1)
"""

from aicr_ext.profiling.recorder import Row, profile
from aicr_ext.profiling.roofs import Roofs, measure_roofs

__all__ = ["Roofs", "Row", "measure_roofs", "profile"]
