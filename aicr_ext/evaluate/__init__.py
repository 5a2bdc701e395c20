"""Rate and distortion of codecs on folders of pictures: what ``aicr eval`` runs, as functions.

Pictures are NumPy arrays (H, W, 3) uint8 throughout. A *sample* is a picture to compress with the picture it should
decode to; a *data set* is a named list of samples; a *codec* makes bytes of a picture and a picture of bytes, with
restorers before and after it if wanted. Conventions are in ``docs/evaluation.md``.
"""

from .cascade import Cascade
from .codecs import FileCodec, ModelCodec, PillowCodec
from .curves import Comparison, Curve, compare, read_anchors
from .datasets import DataSet, Sample, open_folder
from .metrics import decibel, ms_ssim, psnr
from .restorers import Restorer, non_local_means
from .run import Options, measure
from .specs import build_codecs
from .store import Store
from .synthetic import Synthetic

__all__ = [
    "Cascade",
    "Comparison",
    "Curve",
    "DataSet",
    "FileCodec",
    "ModelCodec",
    "Options",
    "PillowCodec",
    "Restorer",
    "Sample",
    "Store",
    "Synthetic",
    "build_codecs",
    "compare",
    "decibel",
    "measure",
    "ms_ssim",
    "non_local_means",
    "open_folder",
    "psnr",
    "read_anchors",
]
