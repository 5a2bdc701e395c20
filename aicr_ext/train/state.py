"""The file that a run resumes from."""

from __future__ import annotations

from pathlib import Path

import torch

from aicr_ext.errors import first_line
from aicr_ext.files import appearing
from aicr_ext.train.options import TrainingOptions

__all__ = ["changed_options", "load_state", "save_state"]

_KEYS = {"model", "optimiser", "average", "step", "skipped", "seconds"}

#: Options that may differ between two parts of a run without a word.
_FREE = {"start", "device", "compile", "workers", "report_every", "save_every"}


def save_state(path: Path, state: dict[str, object]) -> None:
    """Writes a state, whole or not at all."""
    with appearing(path) as temporary, open(temporary, "wb") as file:  # a path would get its name into the file
        torch.save(state, file)


def load_state(path: Path) -> dict[str, object]:
    """A state, on the CPU, from whatever device it was written on.

    Raises:
        ValueError: the file is damaged or no state of a training run.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # the unpickler raises whatever damaged bytes lead it to
        raise ValueError(f"{path}: damaged, or not a training state ({first_line(error)}); {_WAY_OUT}") from error
    if not isinstance(state, dict) or not state.keys() >= _KEYS:
        raise ValueError(f"{path}: not a training state of this package; {_WAY_OUT}")
    return state


_WAY_OUT = "move it away to begin anew, or begin from weights in a new folder with --start FILE.safetensors"


def changed_options(state: dict[str, object], options: TrainingOptions) -> list[str]:
    """``"name: old -> new"`` for every option that matters and differs from the one the state was written with.

    States written before the options were kept in them differ in nothing.

    Raises:
        ValueError: another model or optimiser, which no state can serve.
    """
    new = options.as_dict() | {"data": options.data}
    old = state.get("options", new)
    for name in ("model", "optimiser"):
        if old.get(name) != new[name]:
            raise ValueError(
                f"{name}: the run in {options.out} was made with {old.get(name)!r}, not with {new[name]!r}; {_WAY_OUT}"
            )
    free = _FREE - {"start"} if options.objective == "latent" else _FREE  # it aims at the latents of its start
    return [
        f"{name}: {old[name]} -> {new[name]}" for name in new if name in old.keys() - free and old[name] != new[name]
    ]
