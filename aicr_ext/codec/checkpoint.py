"""Weight files to models that can code: the network, and the integer tables of its hyper latent."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from aicr_ext.codec.calibrate import calibrate
from aicr_ext.codec.priors import IntegerPriors
from aicr_ext.codec.rans import TableSet
from aicr_ext.codec.tables import tables_from_probabilities
from aicr_ext.model.aicr import AICR
from aicr_ext.model.config import CONFIGS, ModelConfig
from aicr_ext.model.entropy import DEFAULT_EXPONENT, exponents
from aicr_ext.weights import FOLDER, load_weights, save_weights

__all__ = ["export_weights", "hyper_tables", "load_model", "shipped_models"]

#: Values of z that get a table entry or a known distance in an escape, on each side of zero.
_REACH = 255


def shipped_models() -> list[str]:
    """Names of the models whose weights are in this package."""
    return sorted(name for name in CONFIGS if (FOLDER / f"{name}.safetensors").exists())


def load_model(name_or_path: str | Path) -> AICR:
    """The network of a shipped model's name or of a weight file, on the CPU, in evaluation mode, float32.

    Raises:
        ValueError: an unknown name, a known one without weights in this package, or a file that holds no weights.
        FileNotFoundError: a path that is not there.
    """
    if not isinstance(name_or_path, (str, Path)):
        raise TypeError(f"model must be a name or a path, got {type(name_or_path).__name__}")
    shipped = shipped_models()
    if str(name_or_path) in CONFIGS:
        if str(name_or_path) not in shipped:
            known = ", ".join(shipped) or "no model"
            raise ValueError(
                f"this package holds no weights for {str(name_or_path)!r}, only for {known}; "
                "give the path of a weight file"
            )
        path = FOLDER / f"{name_or_path}.safetensors"
    else:
        path = Path(name_or_path)
        if path.suffix != ".safetensors":
            raise ValueError(
                f"unknown model {str(name_or_path)!r}: neither one of {', '.join(sorted(CONFIGS))} "
                "nor the path of a .safetensors file"
            )
        if not path.exists():
            raise FileNotFoundError(f"no weight file {str(path)!r}")
    config, state, _ = load_weights(path)
    with torch.device("meta"):
        model = AICR(config)
    _add_exponents(model, state)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{str(path)!r} does not hold the weights of {config.name}: {error}") from None
    return model.eval().requires_grad_(False)


def _add_exponents(model: AICR, state: dict[str, torch.Tensor]) -> None:
    """Weights written before the entropy networks became integers say nothing of ranges."""
    for name, buffer in model.named_buffers():
        if name.endswith("exponents") and name not in state:
            state[name] = exponents(len(buffer), 6 if name == "mean_exponents" else DEFAULT_EXPONENT)


def export_weights(path: str | Path, model: AICR, notes: dict[str, str], pictures: Sequence[torch.Tensor] = ()) -> None:
    """Writes a model's weights as :func:`load_model` reads them, with integer tables made from its hyper prior.

    Args:
        pictures: (B, 3, H, W) float32 in [0, 1], sides multiples of 64, on which the ranges of the entropy networks
            are measured (:func:`aicr_ext.codec.calibrate.calibrate`); without any, those in ``model`` stay.

    Raises:
        ValueError: entropy networks that do not fit integers.
    """
    half = AICR(model.config).eval()
    half.load_state_dict({k: _as_half(v) for k, v in model.state_dict().items()})
    if len(pictures):
        calibrate(half, pictures)
    IntegerPriors(half)  # proves that no sum overflows
    make_hyper_tables(half)
    save_weights(path, model.config, half.state_dict(), notes)


def _as_half(value: torch.Tensor) -> torch.Tensor:
    return value.half().float() if value.is_floating_point() else value


@torch.no_grad()
def make_hyper_tables(model: AICR) -> None:
    """Sets the integer tables of the model's hyper prior from its learned distribution functions."""
    prior = model.hyper_prior
    edges = torch.arange(-_REACH, _REACH + 2, dtype=torch.float64) - 0.5
    precise = copy.deepcopy(prior).cpu().double()
    cdf = precise.cdf(edges.expand(1, model.config.hyper, -1))[0].numpy()
    tables = tables_from_probabilities(np.diff(cdf, axis=1), [-_REACH] * len(cdf))
    prior.set_tables(tables.frequencies, tables.sizes, tables.offsets, tables.shifts)


def hyper_tables(model: AICR) -> TableSet:
    """The integer tables of the model's hyper prior; made now if the model never had any."""
    prior = model.hyper_prior
    if not prior.table_sizes.any():
        make_hyper_tables(model)
    arrays = (prior.table_frequencies, prior.table_sizes, prior.table_offsets, prior.table_shifts)
    return TableSet(*(a.cpu().numpy() for a in arrays))


def untrained(config: ModelConfig | str, seed: int = 0) -> AICR:
    """A network with freshly drawn weights, for tests and for timing; its pictures mean nothing."""
    from aicr_ext.model.initialise import initialise

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AICR(config)
        initialise(model)
    return model.eval().requires_grad_(False)
