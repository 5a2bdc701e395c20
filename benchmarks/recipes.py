"""Short trainings side by side: ``python -m benchmarks.recipes PHOTOGRAPHS OUT [--only NAME ...] [--steps N]``.

Each is a run of ``aicr train`` from drawn weights for clean pictures, with the same photographs, seed, number of steps
and pixels per step; what sets it apart is one line of :data:`RECIPES`. The table has the loss of the averaged weights
on 32 photographs kept out, which is the same function for all, and the processor time of the run on one thread. OUT
keeps a folder for each run, with its log; one that is finished is not run again. ``soap`` needs ``pip install
pytorch_optimizer``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import torch

from aicr_ext.model.aicr import AICR
from aicr_ext.model.config import CONFIGS
from aicr_ext.train import TrainingOptions, loop, train
from aicr_ext.train.optimisers import OPTIMISERS

from .timing import circumstances, print_table, write_csv

#: What the published recipe does to every step (aicr_ext/train/configs/paper.toml), with as many pixels as the others.
PAPER: dict[str, object] = {
    "optimiser": "adam",
    "learning_rate": 1e-4,
    "final_rate": 1e-7,
    "warmup": 1,
    "clip": 0.1,
    "balance": False,
    "qualities": "pairs",
    "decay": 0.0,
    "stages": ((1.0, 2, 256),),
}


SHORTCUT = ("analysis.linear", "synthesis.linear")


@dataclass(frozen=True)
class Recipe:
    """Settings that differ from the defaults, fields of the model's configuration that do, and whether the network has
    its linear shortcut."""

    settings: Mapping[str, object] = field(default_factory=dict)
    shape: Mapping[str, object] = field(default_factory=dict)
    shortcut: bool = True


#: The gate and what needs one.
GATED = ("shortcut_gate", "wiener_filter", "noise_evidence", "feedback")

RECIPES = {
    "defaults": Recipe(),
    "learning rate 1.6e-3": Recipe({"learning_rate": 1.6e-3}),
    "learning rate 4e-4": Recipe({"learning_rate": 4e-4}),
    "patches 2 x 256": Recipe({"stages": ((1.0, 2, 256),)}),
    "muon": Recipe({"optimiser": "muon"}),
    "soap": Recipe({"optimiser": "soap"}),
    "soap, 1.6e-3": Recipe({"optimiser": "soap", "learning_rate": 1.6e-3}),
    "float32": Recipe({"precision": "float32"}),
    "without gate": Recipe(shape=dict.fromkeys(GATED, False)),
    "without detail": Recipe(shape={"detail": 0}),
    "coarser": Recipe(shape={"stem": 8, "widths": (144, 192), "blocks": (2, 3)}),
    "without linear shortcut": Recipe({"freeze": SHORTCUT}, shortcut=False),
    "published": Recipe(PAPER),
    "published, without linear shortcut": Recipe(PAPER | {"freeze": SHORTCUT}, shortcut=False),
}


def soap(model: AICR, learning_rate: float) -> torch.optim.Optimizer:
    """SOAP (arXiv:2409.11321) for all parameters, with the moments and the decay of the defaults."""
    from pytorch_optimizer import SOAP

    return SOAP(model.parameters(), learning_rate, betas=(0.9, 0.98), weight_decay=1e-4, precondition_frequency=10)


@torch.no_grad()
def no_shortcut(model: AICR, *_: object) -> None:
    """In place of the principal components: a shortcut that gives grey, beside convolutions of the usual size."""
    for linear in (model.analysis.linear, model.synthesis.linear):
        linear.weight.zero_()
        linear.bias.zero_()
    model.synthesis.linear.bias.fill_(0.5)
    model.analysis.head.weight.div_(0.05)
    model.synthesis.tail[0].weight.div_(0.05)


def try_out(name: str, photographs: str, out: Path, steps: int) -> dict[str, object]:
    """Run one recipe unless its folder holds a finished run; its row of the table."""
    recipe, folder = RECIPES[name], out / name.replace(" ", "-").replace(",", "")
    finished = folder / "row.json"
    if finished.exists():
        return json.loads(finished.read_text())
    shape = replace(CONFIGS["aicr-t"], name="shape", wire_id=99, **recipe.shape)
    if not recipe.shortcut:
        shape = replace(shape, detail=0)
    settings = {"model": "shape", "minutes": math.inf, "max_steps": steps, "warmup": 50, "validation": 32}
    settings |= {"stages": ((1.0, 8, 128),), "save_every": 1e6} | recipe.settings
    with ExitStack() as patches:
        patches.enter_context(mock.patch.dict(CONFIGS, shape=shape))
        patches.enter_context(mock.patch.dict(OPTIMISERS, soap=soap))
        if not recipe.shortcut:
            patches.enter_context(mock.patch.object(loop, "initialise_linear", no_shortcut))
        parameters = sum(p.numel() for p in AICR("shape").parameters())
        options = TrainingOptions.from_config(photographs, folder, None, settings)
        begin = time.process_time()
        train(options)
        seconds = time.process_time() - begin
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    loss = next(line["valid_clean"] for line in reversed(lines) if "valid_clean" in line)
    row = {"recipe": name, "parameters": parameters, "steps": steps, "loss": loss, "seconds": round(seconds, 1)}
    finished.write_text(json.dumps(row))
    return row


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.recipes", description="short trainings side by side")
    parser.add_argument("photographs")
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--csv", help="also write the table to this file")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = [try_out(name, options.photographs, options.out, options.steps) for name in options.only]
    print_table([row | {"loss": f"{row['loss']:.3f}", "seconds": round(row["seconds"])} for row in rows])
    if options.csv:
        write_csv(options.csv, [row | circumstances() for row in rows])


if __name__ == "__main__":
    main()
