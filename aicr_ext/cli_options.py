"""What the commands of ``aicr`` share: exit codes, the two errors that have one of their own, options."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "OK",
    "SETUP",
    "USAGE",
    "SetupError",
    "UsageError",
    "add_device",
    "add_precision",
    "add_threads",
    "whole",
]

OK, FAILED, USAGE, SETUP, INTERRUPTED = 0, 1, 2, 3, 130

#: Those of :mod:`aicr_ext.model.precision`, which would bring torch.
PRECISIONS = ("float32", "bfloat16", "auto")


class UsageError(Exception):
    """Arguments that parse but make no sense together."""


class SetupError(Exception):
    """The codec could not be made ready, so no file can work."""


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """The type of an argument that is a whole number from ``low`` to ``high``."""

    def parse(text: str) -> int:
        accepted = f"{low} to {high}" if high is not None else f"{low} or more"
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number ({accepted})") from None
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"{value} is outside {accepted}")
        return value

    return parse


def add_device(parser: argparse._ActionsContainer, what: str) -> None:
    """``--device``; ``what`` runs there."""
    parser.add_argument("--device", metavar="cpu|cuda|cuda:N", help=f"where {what} (default: cpu)")


def add_precision(parser: argparse._ActionsContainer, what: str) -> None:
    """``--precision``, that of ``what``."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help=f"of {what}; auto: bfloat16 where the device has instructions for it (default: {PRECISIONS[0]})",
    )


def add_threads(parser: argparse._ActionsContainer) -> None:
    """``--threads``."""
    parser.add_argument("--threads", type=whole(1), metavar="N", help="CPU threads (default: torch's choice)")
