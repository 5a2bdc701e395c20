"""The arguments of ``aicr train``, and what the command does with them.

Torch is imported when the command runs, not with this file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from .cli_options import add_device

__all__ = ["add_arguments", "options_of", "run"]

_CONFIGS = sorted(path.stem for path in (Path(__file__).parent / "train" / "configs").glob("*.toml"))


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """What ``aicr train`` takes. Ranges are checked by ``TrainingOptions``, which also serves the config files."""
    sub.add_argument("data", metavar="DATA", help="folder of photographs")
    sub.add_argument("out", metavar="OUT", help="folder for weights, state and log; a run in it is resumed")
    sub.add_argument("--config", "-c", metavar="NAME_OR_FILE", help=f"{', '.join(_CONFIGS)}, or a TOML file")
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any option of a config file, for example mixture.clean=0.5; may be repeated",
    )
    sub.add_argument("--model", "-m", metavar="NAME", help="default: aicr-t")
    sub.add_argument("--start", metavar="NAME_OR_PATH", help="weights to begin from (default: drawn ones)")
    sub.add_argument("--minutes", type=float, metavar="N", help="time box (default: 60)")
    sub.add_argument("--max-steps", type=int, metavar="N", help="end after so many steps (default: no limit)")
    sub.add_argument("--learning-rate", type=float, metavar="X", help="its peak (default: 0.0008)")
    sub.add_argument("--optimiser", metavar="NAME", help="adamw, muon or adam (default: adamw)")
    sub.add_argument("--seed", type=int, metavar="N", help="of everything random (default: 0)")
    add_device(sub, "to run")
    sub.add_argument("--workers", type=int, metavar="N", help="processes that make batches (default: 0)")
    sub.add_argument("--float32", action="store_true", help="no bfloat16, even where the device is made for it")
    sub.add_argument("--compile", action="store_true", help="compile the network with torch.compile")
    sub.add_argument("--quiet", action="store_true", help="print errors only")


_DIRECT = (
    *("model", "start", "minutes", "max_steps", "learning_rate"),
    *("optimiser", "seed", "device", "workers"),
)


def options_of(args: argparse.Namespace) -> object:
    """The ``TrainingOptions`` of parsed arguments: defaults, then the config, then ``--set``, then the options.

    Raises:
        FileNotFoundError, TypeError, ValueError: as ``TrainingOptions.from_config``.
    """
    from aicr_ext.train.options import TrainingOptions, merge, parse_setting

    settings: dict[str, object] = {}
    for text in args.set:
        try:
            settings = merge(settings, parse_setting(text))
        except ValueError as error:
            raise ValueError(f"--set: {error}") from None
    settings |= {name: getattr(args, name) for name in _DIRECT if getattr(args, name) is not None}
    if args.float32:
        settings["precision"] = "float32"
    if args.compile:
        settings["compile"] = True
    return TrainingOptions.from_config(args.data, args.out, args.config, settings)


def run(args: argparse.Namespace, options: object, say: Callable[[str], None]) -> None:
    """Trains; ``say`` gets the lines for the user."""
    from aicr_ext.train.loop import train

    train(options, None if args.quiet else say, bar=not args.quiet and sys.stderr.isatty())
