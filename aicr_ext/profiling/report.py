"""Tables and the roofline picture of a profile."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from aicr_ext.files import atomic_write
from aicr_ext.profiling.recorder import Row
from aicr_ext.profiling.resources import KernelResources
from aicr_ext.profiling.roofs import Roofs

__all__ = ["as_lines", "draw_roofline", "operator_table", "resource_table", "write_table"]

Table = Sequence[dict[str, object]]


def operator_table(rows: Sequence[Row], whole: float, top: int = 20) -> list[dict[str, object]]:
    """The longest rows, the rest in one, and what no operator accounts for.

    Args:
        whole: seconds of the call as such, without anything watching.
    """
    table = [_line(f"{row.name} ({row.arguments})", row, whole) for row in rows[:top]]
    rest, counted = rows[top:], sum(row.seconds for row in rows)
    if rest:
        others = Row("", "", "", *(sum(getattr(row, key) for row in rest) for key in _SUMS))
        table.append(_line(f"{len(rest)} other kinds of calls", others, whole))
    nothing = Row("", "", "", 0, max(0.0, whole - counted), 0, 0)
    table.append(_line("outside of operators", nothing, whole))
    return table


_SUMS = ("calls", "seconds", "bytes", "flops", "roof_seconds")


def _line(kernel: str, row: Row, whole: float) -> dict[str, object]:
    rate = 1e-9 / row.seconds if row.seconds else 0.0
    return {
        "kernel": kernel,
        "dtype": row.dtype,
        "calls": row.calls,
        "ms": 1e3 * row.seconds,
        "% of time": 100 * row.seconds / whole,
        "GB/s": row.bytes * rate or None,
        "GFLOP/s": row.flops * rate or None,
        "% of roof": 100 * row.roof_seconds / row.seconds if row.roof_seconds and row.seconds else None,
    }


def resource_table(resources: Sequence[KernelResources]) -> list[dict[str, object]]:
    """A line for each kernel and architecture."""
    return [
        {
            "kernel": r.kernel,
            "architecture": r.architecture,
            "registers": r.registers,
            "spilled bytes": r.spilled,
            "shared bytes": r.shared,
            "warps": r.warps,
            "blocks by shared memory": r.blocks,
            "occupancy %": None if r.occupancy is None else 100 * r.occupancy,
        }
        for r in resources
    ]


def as_lines(table: Table) -> str:
    """A Markdown table; numbers to the right, nothing for None."""
    names = list(table[0])
    cells = [[_text(line[name]) for name in names] for line in table]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    right = [not any(isinstance(line[name], str) for line in table) for name in names]

    def joined(texts: Sequence[str]) -> str:
        padded = (t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, right, strict=True))
        return "| " + " | ".join(padded) + " |"

    rule = "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True))
    return "\n".join([joined(names), f"|{rule}|", *map(joined, cells)])


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def write_table(path: str | Path, table: Table) -> None:
    """The same as CSV, with all digits; the file appears whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]))
    writer.writeheader()
    writer.writerows(table)
    atomic_write(path, text.getvalue().encode())


def draw_roofline(rows: Sequence[Row], roofs: Roofs, path: str | Path, title: str) -> None:
    """Operations per second over operations per byte, below the roofs; the larger a point, the longer it takes.

    Rows without operations are left out. The suffix of ``path`` chooses the format.

    Raises:
        ImportError: matplotlib is not there; it comes with ``aicr_ext[train]``.
        ValueError: no row has operations to show, or the format is unknown.
    """
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.flops and row.seconds]
    if not shown:
        raise ValueError("no operator with known operations took part, so there is no roofline to draw")
    figure = Figure(figsize=(9, 6), layout="constrained")
    axis = figure.subplots()
    intensities = [row.flops / row.bytes for row in shown]
    left, right = min(*intensities, 0.5) / 2, max(*intensities, 64.0) * 2
    memory = roofs.copy[max(roofs.copy)]
    for dtype, rate in roofs.product.items():
        ridge = rate / memory
        (line,) = axis.plot(
            [left, ridge, right], [left * memory / 1e9, rate / 1e9, rate / 1e9], label=f"{dtype}, memory"
        )
        axis.plot(
            [left, right],
            [min(x * max(roofs.copy.values()), rate) / 1e9 for x in (left, right)],
            ":",
            color=line.get_color(),
            label=f"{dtype}, cache",
        )
    longest = max(row.seconds for row in shown)
    for name in sorted({row.name for row in shown}):
        ours = [(x, row) for x, row in zip(intensities, shown, strict=True) if row.name == name]
        axis.scatter(
            [x for x, _ in ours],
            [row.flops / row.seconds / 1e9 for _, row in ours],
            [12 + 240 * row.seconds / longest for _, row in ours],
            alpha=0.6,
            label=name.removeprefix("aten::").removeprefix("aicr_ext::"),
        )
    axis.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="GFLOP/s", title=title)
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize="small", ncols=2)
    file = io.BytesIO()
    figure.savefig(file, format=Path(path).suffix[1:] or "png", dpi=110)
    atomic_write(path, file.getvalue())
