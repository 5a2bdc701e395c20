"""The networks behind the golden files, and what the files are compared by."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from aicr_ext.codec import container
from aicr_ext.codec.codec import Codec
from aicr_ext.codec.latents import decode_latents
from aicr_ext.model.config import ModelConfig

FOLDER = Path(__file__).with_name("golden")

_SHARED = {"groups": 2, "expansion": 1.0, "prior_expansion": 1}
_LINEAR = {
    **_SHARED,
    "quant_step": False,
    "fusion": (2,),
    "context": (1, 2),
    "linear_shortcut": True,
    "lambdas": (32.0, 2048.0),
}

MODELS = (
    ModelConfig(*("golden-linear", 97, 4, (8, 8, 8), (1, 1, 1), 16, 8), **_LINEAR),
    ModelConfig(*("golden-detail", 95, 4, (8, 8, 8), (1, 1, 1), 16, 8), **_LINEAR, detail=12),
    ModelConfig(*("golden-step", 96, 1, (8, 8, 8, 8), (1, 1, 1, 1), 8, 8), **_SHARED, fusion=(3,), context=(2, 2)),
)

#: (width, height, quality)
SIZES = (
    *((w, h, q) for w, h in ((1, 1), (16, 16), (17, 33), (100, 60)) for q in (0, 31, 63)),
    (256, 192, 40),
    (250, 180, 63),
)
#: Of files with several streams, about how many bytes each of these has: far less than the encoder gives them.
CUT = {"250x180_63": 700}


def decoded_latent(codec: Codec, data: bytes) -> Tensor:
    """The decoded y of a file, float32: exact numbers of symbols and means."""
    header, streams = container.unpack(data, container.MAX_PIXELS)
    rows, cols = -(-header.height // 16), -(-header.width // 16)
    return decode_latents(codec._priors, codec._hyper_tables, [streams], rows, cols, codec.device)[0]


def thumbnail(picture: Tensor) -> Tensor:
    """Means over an 8 x 8 grid of a picture (3, H, W)."""
    return F.adaptive_avg_pool2d(picture, 8)
