"""Makes the golden files that are not there yet: ``python python_tests/golden/make_files.py``.

Small networks, like aicr-t-clean, aicr-t and aicr-s, with weights that are committed beside the files they made.
Later versions must decode these files to the same symbols: ``test_golden_files.py``.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from golden_models import CUT, MODELS, SIZES, decoded_latent, thumbnail  # noqa: E402
from pictures import smooth  # noqa: E402

from aicr_ext.codec.checkpoint import export_weights, load_model  # noqa: E402
from aicr_ext.codec.codec import Codec  # noqa: E402
from aicr_ext.codec.streams import STREAM_BYTES  # noqa: E402
from aicr_ext.images import read_image  # noqa: E402
from aicr_ext.model.aicr import AICR  # noqa: E402
from aicr_ext.model.config import CONFIGS, ModelConfig  # noqa: E402
from aicr_ext.model.initialise import initialise, initialise_detail, initialise_linear  # noqa: E402
from aicr_ext.train.data import patch_statistics, principal_components  # noqa: E402

SAMPLE = FOLDER.parents[1] / "samples" / "kodim23.png"


def make_model(config: ModelConfig, picture: torch.Tensor) -> AICR:
    """Drawn weights whose latents are worth coding."""
    torch.manual_seed(config.wire_id)
    model = AICR(config)
    initialise(model)
    if config.linear_shortcut:
        statistics = patch_statistics([picture], 0)
        initialise_linear(model, *principal_components(*statistics, config.latent))
        if config.detail:
            initialise_detail(model, *statistics)
    with torch.no_grad():
        if config.detail:
            model.detail_prior[-1].conv_out.weight.normal_(std=0.1)
        model.hyper_encoder[-1].weight.mul_(3)
        if not config.linear_shortcut:
            model.analysis.head.weight.mul_(40)
    return model.eval().requires_grad_(False)


def main() -> None:
    sample = torch.from_numpy(np.array(read_image(SAMPLE))).permute(2, 0, 1)
    for config in MODELS:
        CONFIGS[config.name] = config
        path = FOLDER / f"{config.name}.safetensors"
        if path.exists():
            continue
        crops = [sample[None, :, :256, 64 * i : 64 * i + 256].float() / 255 for i in range(4)]
        export_weights(path, make_model(config, sample), {}, crops)
        codec = Codec(load_model(path))
        found = {}
        for width, height, quality in SIZES:
            picture = sample[:, :height, :width] if height > 1 else smooth(width, height)
            name = f"{width}x{height}_{quality}"
            with patch("aicr_ext.codec.streams.STREAM_BYTES", CUT.get(name, STREAM_BYTES)):
                data = codec.compress(picture, quality=quality)
            found[f"{name}_data"] = np.frombuffer(data, np.uint8)
            digest = hashlib.sha256(decoded_latent(codec, data).numpy().tobytes()).digest()
            found[f"{name}_latent"] = np.frombuffer(digest, np.uint8)
            found[f"{name}_thumbnail"] = thumbnail(codec.decompress(data)).numpy()
            print(config.name, name, len(data))
        np.savez_compressed(FOLDER / f"{config.name}.npz", **found)


if __name__ == "__main__":
    main()
