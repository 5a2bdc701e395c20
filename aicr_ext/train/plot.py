"""``python -m aicr_ext.train.plot LOG... [--out PICTURE]``: runs side by side, over steps and over minutes."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path

from aicr_ext.files import atomic_write

__all__ = ["draw", "main", "read_log"]

#: Rows of the picture: title, and the keys of the log whose curves it shows.
_ROWS = (
    ("loss", ("loss",)),
    ("bits per pixel", ("bpp",)),
    ("PSNR in dB", ("psnr",)),
    ("loss on photographs kept out", ("valid_clean", "valid_degraded")),
)

#: Points of a curve are averaged until about so many are left; single batches say little.
_POINTS = 100

_STYLES = ("-", "--")


def read_log(path: str | Path) -> list[dict]:
    """The lines of a ``log.jsonl``.

    Raises:
        ValueError: a line that is no JSON object with ``step`` and ``seconds``.
    """
    entries = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            entry["step"], entry["seconds"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}: line {number} is no line of a training log") from None
        entries.append(entry)
    return entries


def draw(logs: Sequence[str | Path], out: str | Path) -> None:
    """Draws the curves of several logs into one PNG; the file appears complete or not at all.

    Raises:
        ImportError: matplotlib is not there; it comes with ``aicr_ext[train]``.
        ValueError: as :func:`read_log`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 12), layout="constrained")
    panels = figure.subplots(len(_ROWS), 2, sharex="col", sharey="row")
    for index, log in enumerate(logs):
        entries = read_log(log)
        for (title, keys), row in zip(_ROWS, panels, strict=True):
            row[0].set_ylabel(title)
            for key, style in zip(keys, _STYLES, strict=False):
                points = _thinned([(e["step"], e["seconds"] / 60, e[key]) for e in entries if key in e])
                for axis, panel in enumerate(row):
                    x, y = [p[axis] for p in points], [p[2] for p in points]
                    label = f"{_name(log)} {key.removeprefix('valid_') if len(keys) > 1 else ''}".strip()
                    mark = "." if len(points) < 2 else None
                    panel.plot(x, y, style, color=f"C{index % 10}", marker=mark, linewidth=1, label=label)
    for panel, label in zip(panels[-1], ("steps", "minutes"), strict=True):
        panel.set_xlabel(label)
    for row in panels:
        row[0].legend(fontsize="small")
        for panel in row:
            panel.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    atomic_write(out, buffer.getvalue())


def _thinned(points: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Means of neighbouring points, until few enough are left."""
    group = -(-len(points) // _POINTS)
    parts = [points[i : i + group] for i in range(0, len(points), group)] if group > 1 else [[p] for p in points]
    return [tuple(sum(values) / len(part) for values in zip(*part, strict=True)) for part in parts]


def _name(log: str | Path) -> str:
    """That of the run's folder, or of the log if it was renamed."""
    path = Path(log)
    return path.resolve().parent.name if path.name == "log.jsonl" else path.stem


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m aicr_ext.train.plot", description="draw the logs of training runs")
    parser.add_argument("logs", nargs="+", metavar="LOG", help="log.jsonl of a run")
    parser.add_argument("--out", default="curve.png", help="PNG to write (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        draw(args.logs, args.out)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
