"""Pictures for the tests of the evaluation, as it holds them: (H, W, 3) uint8."""

from __future__ import annotations

import numpy as np
from pictures import smooth


def picture(width: int = 64, height: int = 48) -> np.ndarray:
    return np.array(smooth(width, height))


def grey(value: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)
