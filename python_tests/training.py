"""A network and options with which the tests train in milliseconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from aicr_ext.model.config import ModelConfig
from aicr_ext.train import TrainingOptions

TINY = ModelConfig(
    *("tiny", 99, 4, (8, 8, 8), (1, 1, 1), 8, 8),
    groups=2,
    expansion=1.0,
    prior_expansion=1,
    quant_step=False,
    fusion=(2,),
    context=(1, 2),
)


TONED = replace(
    TINY,
    name="tiny-toned",
    wire_id=98,
    linear_shortcut=True,
    detail=6,
    shortcut_gate=True,
    wiener_filter=True,
    noise_evidence=True,
    feedback=True,
    tone_field=True,
)


#: A shortcut without gate, and so without what needs one.
UNGATED = {"shortcut_gate": False, "wiener_filter": False, "noise_evidence": False, "feedback": False}


def short(data: Path, out: Path, **changes: object) -> TrainingOptions:
    """Options for a few steps of the tiny network in float32, ended by their number and not by the clock."""
    values = {
        "model": TINY.name,
        "stages": ((1.0, 4, 64),),
        "warmup": 2,
        "report_every": 2,
        "max_steps": 6,
        "minutes": 1000.0,
        "validation": 1,
        "precision": "float32",
    }
    return TrainingOptions(str(data), str(out), **(values | changes))


def log_of(out: Path) -> list[dict]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
