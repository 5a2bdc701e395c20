"""Weight files: safetensors in float16 with the configuration in their metadata, shipped in this folder."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from aicr_ext.files import appearing
from aicr_ext.model.config import ModelConfig

__all__ = ["FOLDER", "load_weights", "save_weights"]

FOLDER = Path(__file__).parent


def save_weights(path: str | Path, config: ModelConfig, state: dict[str, Tensor], notes: dict[str, str]) -> None:
    """Writes ``state`` as float16 (integers stay) with ``config`` and ``notes`` as metadata; whole or not at all."""
    half = {k: (v.half() if v.is_floating_point() else v).detach().cpu().contiguous() for k, v in state.items()}
    with appearing(path) as temporary:
        save_file(half, temporary, {"config": json.dumps(config.to_dict()), **notes})
        temporary.chmod(0o644)  # safetensors writes 0600, which a wheel would keep


def load_weights(path: str | Path) -> tuple[ModelConfig, dict[str, Tensor], dict[str, str]]:
    """Configuration, tensors (float32 where they were floating point) and the other metadata of a weight file.

    Raises:
        ValueError: the file is not in safetensors format, or has no model configuration in its metadata.
    """
    try:
        with safe_open(path, "pt") as file:
            notes = dict(file.metadata() or {})
            state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
        config = ModelConfig.from_dict(json.loads(notes.pop("config")))
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{str(path)!r} is not a weight file of this package: {error}") from error
    return config, {k: v.float() if v.dtype == torch.float16 else v for k, v in state.items()}, notes
