"""Training: ``aicr train``, ``python -m aicr_ext.train``, and from Python

>>> from aicr_ext.train import TrainingOptions, train
>>> options = TrainingOptions.from_config("photographs", "run", "quick", {"seed": 1})

Names are imported at their first use, so that the command line answers before torch is loaded.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aicr_ext.train.loop import train
    from aicr_ext.train.options import TrainingOptions

__all__ = ["TrainingOptions", "train"]

_HOME = {"TrainingOptions": "options", "train": "loop"}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
