"""One page about a run of ``gpu_run.sh``: ``python benchmarks/gpu_summary.py RESULTS`` writes ``RESULTS/summary.md``.

What ran and for how long, and the main numbers of the tables in that folder, as far as they are there. Needs nothing
but Python, because it must work where nothing was built.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

__all__ = ["summary"]

Rows = list[dict[str, str]]


def rows_of(path: Path) -> Rows:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def table(names: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """Markdown."""
    return ["| " + " | ".join(line) + " |" for line in (names, ["---"] * len(names), *lines)]


def number(text: str) -> str:
    """Three digits; what is no number as it is."""
    try:
        value = float(text)
    except ValueError:
        return text
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def span(rows: Rows, column: str) -> str:
    """From the least to the most."""
    values = [float(row[column]) for row in rows if row.get(column)]
    return f"{number(str(min(values)))} to {number(str(max(values)))}" if values else ""


def of_kernels(rows: Rows) -> list[str]:
    groups = {(row["kernel"], row["precision"]): [] for row in rows}
    for row in rows:
        groups[row["kernel"], row["precision"]].append(row)
    names = ["kernel", "precision", "us", "time over expectation"]
    return table(names, ([*key, span(group, "us"), span(group, "x expected")] for key, group in groups.items()))


def of_operators(rows: Rows) -> list[str]:
    columns = [c for c in ("us", "% of roof", "x eager", "x compiled", "backward x eager") if c in rows[0]]
    groups: dict[tuple[str, str], Rows] = {}
    for row in rows:
        groups.setdefault((row["op"], row["dtype"]), []).append(row)
    lines = ([*key, *(span(group, column) for column in columns)] for key, group in groups.items())
    return table(["operator", "dtype", *columns], lines)


def of_coder(rows: Rows) -> list[str]:
    """The best number of streams of each device."""
    best: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        key = row["workload"], row["device"]
        if key not in best or float(row["decode Gsym/s"]) > float(best[key]["decode Gsym/s"]):
            best[key] = row
    names = ["workload", "device", "streams", "encode Gsym/s", "decode Gsym/s"]
    return table(names, ([number(row[name]) for name in names] for row in best.values()))


def of_crossing(rows: Rows) -> list[str]:
    counts = {name: sum(int(row[name]) for row in rows) for name in rows[0] if name.startswith(("files", "latents"))}
    return [", ".join(f"{name}: {count}" for name, count in counts.items())]


def whole(*names: str) -> Callable[[Rows], list[str]]:
    """The columns of these names, of every line."""

    def lines(rows: Rows) -> list[str]:
        there = [name for name in names if name in rows[0]]
        return table(there, ([number(row[name]) for name in there] for row in rows))

    return lines


#: Names of files, and what to say of each.
PARTS: list[tuple[str, str, Callable[[Rows], list[str]]]] = [
    ("cross-device.csv", "Files between devices", of_crossing),
    (
        "speed-*.csv",
        "Codec",
        whole("model", "size", "precision", "batch", "path", "encode s", "decode s", "decode pictures/s", "peak GiB"),
    ),
    ("kernels.csv", "Kernels beside their predictions", of_kernels),
    ("ops-c[pu]*.csv", "Operators beside eager PyTorch", of_operators),
    ("ops-compiled-*.csv", "Blocks beside torch.compile", of_operators),
    ("coder-streams.csv", "Coder", of_coder),
]


def summary(results: Path) -> str:
    """The page, from what lies in the folder of results."""
    facts = json.loads((results / "summary.json").read_text()) if (results / "summary.json").exists() else {}
    lines = ["# What ran", ""]
    about = {"GPU": facts.get("gpu"), "torch": facts.get("torch"), "commit": facts.get("commit")}
    lines += [", ".join(f"{name} {value}" for name, value in about.items() if value), ""]
    steps = facts.get("steps", {})
    if steps:
        said = (
            (name, step["status"], str(step["seconds"]), found(results, name, step)) for name, step in steps.items()
        )
        lines += [*table(("step", "status", "seconds", "found"), said), ""]
    for pattern, title, describe in PARTS:
        for path in sorted(results.glob(pattern)):
            try:
                lines += [f"## {title}", "", *describe(rows_of(path)), ""]
            except (KeyError, ValueError, IndexError) as error:  # a table of another version
                lines += [f"{path.name} cannot be read: {type(error).__name__} {error}", ""]
    return "\n".join(lines)


def found(results: Path, name: str, step: dict[str, object]) -> str:
    """As one cell of a table: the counts of a step that tests, else the last line of one that did not go well."""
    log, verdicts = results / f"{name}.log", results / "sanitize.txt"
    if name == "sanitize" and verdicts.exists():
        return "; ".join(verdicts.read_text().split("\n")).strip("; ")
    lines = [line.strip("= ") for line in log.read_text(errors="replace").splitlines()] if log.exists() else []
    said = [line for line in lines if re.search(r"\d+ (passed|failed|skipped)", line)]
    if not said and step["status"] != "ok":
        said = [line for line in lines if line]
    return said[-1].replace("|", "/")[:120] if said else ""


def main(arguments: Sequence[str]) -> None:
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        raise SystemExit("usage: gpu_summary.py RESULTS, a folder that gpu_run.sh has filled")
    results = Path(arguments[0])
    temporary = results / "summary.md.tmp"
    temporary.write_text(summary(results), encoding="utf-8")
    os.replace(temporary, results / "summary.md")


if __name__ == "__main__":
    main(sys.argv[1:])
