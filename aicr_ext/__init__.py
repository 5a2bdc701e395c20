"""AICR: a learned image codec that restores while it compresses.

>>> import torch, aicr_ext
>>> data = aicr_ext.compress(torch.rand(3, 64, 96), quality=32)
>>> aicr_ext.decompress(data).shape
torch.Size([3, 64, 96])

The parts call each other in one direction only: api, codec, model, ops, native libraries.

Names are imported at their first use, so that ``aicr --help`` answers at once and ``aicr doctor`` can report
a torch that does not load.
"""

import importlib
from typing import TYPE_CHECKING

from aicr_ext.errors import AicrError, BitstreamError

if TYPE_CHECKING:
    from aicr_ext._native import native_status
    from aicr_ext.acceleration import Acceleration, accelerate, restore_modules
    from aicr_ext.api import compress, decompress
    from aicr_ext.codec.checkpoint import load_model, shipped_models
    from aicr_ext.codec.codec import Codec
    from aicr_ext.codec.container import MAX_PIXELS, StreamInfo, read_info

__version__ = "0.1.0"

#: Names of the models this package knows; ``shipped_models()`` tells which have weights in it.
MODELS: tuple[str, ...]

__all__ = [
    "MAX_PIXELS",
    "MODELS",
    "Acceleration",
    "AicrError",
    "BitstreamError",
    "Codec",
    "StreamInfo",
    "accelerate",
    "compress",
    "decompress",
    "load_model",
    "native_status",
    "read_info",
    "restore_modules",
    "shipped_models",
]

_HOME = {
    "Acceleration": "acceleration",
    "Codec": "codec.codec",
    "MAX_PIXELS": "codec.container",
    "StreamInfo": "codec.container",
    "accelerate": "acceleration",
    "compress": "api",
    "decompress": "api",
    "load_model": "codec.checkpoint",
    "native_status": "_native",
    "read_info": "codec.container",
    "restore_modules": "acceleration",
    "shipped_models": "codec.checkpoint",
}


def __getattr__(name: str) -> object:
    if name == "MODELS":
        value = tuple(sorted(importlib.import_module(f"{__name__}.model.config").CONFIGS))
    elif name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
