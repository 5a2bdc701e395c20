"""``python -m aicr_ext.train``: trains a model on a folder of photographs for so many minutes."""

from __future__ import annotations

import argparse

from aicr_ext.model.config import CONFIGS
from aicr_ext.train.loop import TrainingOptions, train
from aicr_ext.train.mixture import Mixture
from aicr_ext.train.optimisers import OPTIMISERS


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is outside 0 to 1")
    return value


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m aicr_ext.train", description=__doc__)
    parser.add_argument("data", help="folder of photographs")
    parser.add_argument("out", help="folder for log, weights and state; a state in it is resumed")
    parser.add_argument("--model", default="aicr-t", choices=sorted(CONFIGS))
    parser.add_argument("--start", help="shipped model or weight file to begin from")
    parser.add_argument(
        "--degrade", type=_share, default=0.0, metavar="0..1", help="share of degraded inputs (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="time box (default: %(default)s)")
    parser.add_argument("--optimiser", default=TrainingOptions.optimiser, choices=OPTIMISERS)
    parser.add_argument("--learning-rate", type=float, default=TrainingOptions.learning_rate)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--float32", action="store_true", help="no bfloat16 autocast")
    parser.add_argument("--max-steps", type=int, default=TrainingOptions.max_steps)
    args = parser.parse_args(argv)
    options = TrainingOptions(
        data=args.data,
        out=args.out,
        model=args.model,
        start=args.start,
        mixture=Mixture(clean=1 - args.degrade),
        optimiser=args.optimiser,
        minutes=args.minutes,
        learning_rate=args.learning_rate,
        device=args.device,
        bfloat16=not args.float32,
        seed=args.seed,
        max_steps=args.max_steps,
    )
    print(train(options))


if __name__ == "__main__":
    main()
