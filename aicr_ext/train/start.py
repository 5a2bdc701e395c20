"""What a run begins with: the weights of another one, and which parts of them stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aicr_ext.model.aicr import AICR
from aicr_ext.model.config import ModelConfig
from aicr_ext.model.initialise import initialise

__all__ = ["as_model", "fits", "freeze"]

#: Parts that change nothing (filter and feedback: little) before they are trained, by their names in
#: :class:`ModelConfig`.
ADDED = ("tone_field", "shortcut_gate", "wiener_filter", "noise_evidence", "feedback", "detail")


def fits(wanted: ModelConfig, config: ModelConfig) -> bool:
    """Whether weights of ``config`` can become those of ``wanted``, which may have parts of :data:`ADDED` more."""
    parts = {part: getattr(config, part) for part in ADDED}
    more = all(getattr(wanted, part) == present for part, present in parts.items() if present)
    return more and replace(wanted, name=config.name, wire_id=config.wire_id, **parts) == config


def as_model(wanted: ModelConfig, model: AICR) -> AICR:
    """Weights to start from as another model, with the parts of :data:`ADDED` that they lack, as these begin.

    Raises:
        ValueError: they are of another shape.
    """
    if model.config == wanted:
        return model
    if not fits(wanted, model.config):
        raise ValueError(f"start: expected weights of {wanted.name}, got those of {model.config.name}")
    wider = AICR(wanted)
    initialise(wider)
    wider.load_state_dict(model.state_dict(), strict=False)
    return wider


def freeze(model: AICR, parts: Sequence[str], only: Sequence[str] = ()) -> None:
    """Takes ``requires_grad`` from the parameters below ``parts``, such as ``analysis.tone``, and, if ``only`` names
    some, from all that are not below these.

    Raises:
        ValueError: a part that the model has not.
    """
    parameters = dict(model.named_parameters())
    below = {part: [name for name in parameters if _is_below(name, part)] for part in (*parts, *only)}
    for part, names in below.items():
        if not names:
            option = "freeze" if part in parts else "only"
            known = sorted({".".join(name.split(".")[:2]) for name in parameters})
            raise ValueError(f"{option}: {model.config.name} has no part {part!r}; among its parts: {', '.join(known)}")
    trained = {name for part in only for name in below[part]} if only else set(parameters)
    trained -= {name for part in parts for name in below[part]}
    for name in parameters.keys() - trained:
        parameters[name].requires_grad_(False)


def _is_below(name: str, part: str) -> bool:
    return f"{name}.".startswith(f"{part.rstrip('.')}.")
