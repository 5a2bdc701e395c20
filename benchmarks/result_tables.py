"""The tables of docs/results.md, from what ``aicr eval`` wrote: ``python -m benchmarks.result_tables [--write]``.

Each is made of the files in one folder of ``benchmarks/results``. ``--write`` puts them into the page, in the place of
those with the same head.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from aicr_ext.files import atomic_write

__all__ = ["in_place", "tables"]

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"

#: In the order of the table: what the codecs of the evaluation are called in it.
AGAINST = {
    "clean": "aicr-t-clean",
    "jpeg": "JPEG, Pillow, optimised, 4:2:0",
    "webp": "WebP, Pillow, method 6",
    "avif": "AVIF, Pillow, speed 6",
    "bmshj2018-factorized (published)": "factorized prior (2018), published",
    "bmshj2018-hyperprior (published)": "hyperprior (2018), published",
    "mbt2018-mean (published)": "mean-scale hyperprior (2018), published",
    "evc-S (published)": "EVC-S (2023), published",
    "elic2022 (published)": "ELIC (2022), published",
    "vtm (published)": "VTM, published",
}
#: Strengths of noise that training shows.
SEEN = (15, 25, 50)
RIVALS = ("clean", "jpeg", "webp", "avif", "nlm+avif")
VERSUS = ("vs clean", "vs JPEG", "vs WebP", "vs AVIF", "vs nlm+avif")
KINDS = {
    "": "none",
    "haze": "haze",
    "rain": "rain",
    "snow": "snow",
    "low_light": "low light",
    "motion_blur": "motion blur",
    "defocus": "defocus",
    "raw_noise": "raw noise",
    "gaussian_noise": "Gaussian noise",
    "jpeg": "JPEG",
}
#: What aicr-t with a search of ten steps is called.
SEARCHED = "aicr-t:effort=10"
#: Whose points stand in the tables of noise, and that of pictures that others degraded.
QUALITIES, QUALITY = ("0", "31", "63"), "48"

Row = dict[str, str]


class Evaluation:
    """The files that ``aicr eval --out`` left in a folder."""

    def __init__(self, folder: Path) -> None:
        self.means, self.differences, self.sizes = (_read(folder / f"{n}.csv") for n in ("means", "bd", "sizes"))

    def points(self, **wanted: str) -> list[Row]:
        return _where(self.means, wanted)

    def difference(self, column: str, **wanted: str) -> float | None:
        """Of the one comparison that is so; None where there is no such number."""
        rows = _where(self.differences, wanted)
        return float(rows[0][column]) if rows and rows[0][column] else None

    def values(self, column: str) -> list[str]:
        """Data sets or degradations, in their order."""
        return list(dict.fromkeys(row[column] for row in self.means))


def _read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _where(rows: Sequence[Row], wanted: Row) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """A Markdown table; the columns that ``left`` names to the left."""
    rule = "|".join("---" if i in left else "---:" for i in range(len(head)))
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)])


def _signed(value: float | None, digits: int, unit: str = "") -> str:
    return "" if value is None else f"{value:+.{digits}f}{unit}"


def _both(row: Row) -> str:
    return f"{float(row['psnr']):.2f} / {float(row['ms_ssim']):.3f}"


def clean_points(results: Path) -> str:
    of = Evaluation(results / "kodak")
    head = ("quality", "bpp", "of which the model promised", "PSNR dB", "MS-SSIM", "MS-SSIM dB")
    rows = []
    for ours, clean in zip(of.points(codec="aicr-t"), of.points(codec="clean"), strict=True):
        first = [ours["quality"], *(f"{float(ours[name]):.3f}" for name in ("bpp", "estimated_bpp"))]
        first += [f"{float(ours[name]):.{n}f}" for name, n in (("psnr", 2), ("ms_ssim", 4), ("ms_ssim_db", 2))]
        first += [f"{float(clean[name]):.{n}f}" for name, n in (("bpp", 3), ("psnr", 2), ("ms_ssim_db", 2))]
        rows.append(first)
    return _lines((*head, "clean: bpp", "PSNR dB", "MS-SSIM dB"), rows, left=())


def clean_differences(results: Path) -> str:
    of = Evaluation(results / "kodak")
    rows = []
    for name, called in AGAINST.items():
        ours = {"codec": "aicr-t", "against": name}
        rows.append(
            [
                called,
                _signed(of.difference("bd_rate", **ours), 1, " %"),
                _signed(of.difference("bd_psnr", **ours), 2, " dB"),
                _signed(of.difference("bd_rate_ms_ssim", **ours), 1, " %"),
                _signed(of.difference("bd_rate", codec="clean", against=name), 1, " %"),
            ]
        )
    return _lines(("against", "aicr-t: BD-rate", "BD-PSNR", "BD-rate by MS-SSIM", "aicr-t-clean: BD-rate"), rows)


def searched(results: Path) -> str:
    of = Evaluation(results / "kodak")
    names = (("bpp", 3), ("psnr", 2), ("ms_ssim_db", 2))
    rows = []
    for plain, found in zip(of.points(codec="aicr-t"), of.points(codec=SEARCHED), strict=True):
        row = [plain["quality"]]
        for point in (plain, found):
            row += [f"{float(point[name]):.{digits}f}" for name, digits in names]
        rows.append([*row, f"{100 * (float(found['bpp']) / float(plain['bpp']) - 1):+.1f} %"])
    points = ("bpp", "PSNR dB", "MS-SSIM dB")
    return _lines(("quality", *points, *(f"effort 10: {points[0]}", *points[1:]), "size"), rows, left=())


def searched_differences(results: Path) -> str:
    of = Evaluation(results / "kodak")
    rows = []
    for name, called in {"aicr-t": "aicr-t, effort 0", **AGAINST}.items():
        ours = {"codec": SEARCHED, "against": name}
        rate, psnr, similarity = (of.difference(c, **ours) for c in ("bd_rate", "bd_psnr", "bd_rate_ms_ssim"))
        rows.append([called, _signed(rate, 1, " %"), _signed(psnr, 2, " dB"), _signed(similarity, 1, " %")])
    return _lines(("against", "effort 10: BD-rate", "BD-PSNR", "BD-rate by MS-SSIM"), rows)


def searched_noise(results: Path) -> str:
    of = Evaluation(results / "noise-searched")
    rows = [
        [name, *rest[1:]] for name, *rest in _noise_rows(of, (SEARCHED,), ("aicr-t", *RIVALS[1:]), str, codec=SEARCHED)
    ]
    rows.sort(key=lambda row: int(row[0]))
    head = ("\N{GREEK SMALL LETTER SIGMA}", "effort 10", "vs effort 0", *VERSUS[1:])
    return _lines(head, rows, left=(0, 1))


def _noise_rows(
    of: Evaluation, shown: Sequence[str], rivals: Sequence[str], called: Callable[[str], str], codec: str = "aicr-t"
) -> list:
    """The table's row of each degradation: the input, points of the codecs shown, differences of one to the rivals."""
    rows = []
    for degradation in of.values("degradation"):
        (given,) = of.points(degradation=degradation, codec="input")
        row = [called(degradation.partition("=")[2]), f"{float(given['psnr']):.2f}"]
        for name in shown:
            points = [p for p in of.points(degradation=degradation, codec=name) if p["quality"] in QUALITIES]
            row.append(", ".join(f"{float(p['bpp']):.2f}/{float(p['psnr']):.2f}" for p in points))
        ours = {"degradation": degradation, "codec": codec}
        row += [_signed(of.difference("bd_psnr", **ours, against=rival), 2) for rival in rivals]
        rows.append(row)
    return rows


def noise(results: Path) -> str:
    def called(sigma: str) -> str:
        return sigma if int(sigma) in SEEN else f"{sigma} (unseen)"

    rows = _noise_rows(Evaluation(results / "noise"), ("aicr-t", "clean"), RIVALS, called)
    rows.sort(key=lambda row: int(row[0].split()[0]) + 100 * ("unseen" in row[0]))
    return _lines(("\N{GREEK SMALL LETTER SIGMA}", "input", "aicr-t", "clean", *VERSUS), rows, left=(0, 2, 3))


def raw_noise(results: Path) -> str:
    of = Evaluation(results / "raw-noise")
    rows = _noise_rows(of, ("aicr-t",), RIVALS, str)
    for degradation, row in zip(of.values("degradation"), rows, strict=True):
        published = [
            r for r in of.differences if r["degradation"] == degradation and r["against"].endswith("(published)")
        ]
        row.append(_signed(float(next(r for r in published if r["codec"] == "aicr-t")["bd_psnr"]), 2))
    head = ("gain", "input", "aicr-t", *VERSUS, "vs ECCV 2022, published")
    return _lines(head, rows, left=(0, 2))


def kinds(results: Path) -> str:
    of = Evaluation(results / "kinds")
    rows = []
    for kind, called in KINDS.items():
        row = [called, "".join(map(_both, of.points(degradation=kind, codec="input")))]
        for codec in ("aicr-t", "clean"):
            (point,) = of.points(degradation=kind, codec=codec)
            row += [_both(point), f"{float(point['bpp']):.2f}"]
        rows.append(row)
    return _lines(("degradation", "input", "aicr-t", "bpp", "aicr-t-clean", "bpp"), rows)


def pairs(results: Path) -> str:
    of = Evaluation(results / "degraded")
    rows = []
    for name in of.values("dataset"):
        (given,) = of.points(dataset=name, codec="input")
        row = [name, given["pictures"], _both(given)]
        for codec in ("aicr-t", "clean"):
            (point,) = of.points(dataset=name, codec=codec, quality=QUALITY)
            row += [_both(point), f"{float(point['bpp']):.2f}"]
        (size,) = _where(of.sizes, {"dataset": name, "codec": "aicr-t", "against": "clean"})
        rows.append([*row, f"{float(size['bytes_mean']):+.0f} %"])
    return _lines(("set", "pairs", "input", "aicr-t", "bpp", "aicr-t-clean", "bpp", "size"), rows)


def tables(results: Path = RESULTS) -> list[str]:
    """In the order of the page."""
    made = (
        clean_points,
        clean_differences,
        searched,
        searched_differences,
        searched_noise,
        noise,
        raw_noise,
        kinds,
        pairs,
    )
    return [table(results) for table in made]


def in_place(page: str, new: Sequence[str]) -> str:
    """The page with these tables instead of those that begin with the same line.

    Raises:
        ValueError: there is no such table.
    """
    parts = list(_parts(page.split("\n")))
    for table in new:
        head = table.split("\n", 1)[0]
        places = [i for i, lines in enumerate(parts) if lines[0] == head]
        if len(places) != 1:
            raise ValueError(f"expected one table that begins with {head!r}, found {len(places)}")
        parts[places[0]] = table.split("\n")
    return "\n".join(line for lines in parts for line in lines)


def _parts(lines: Sequence[str]) -> Iterator[list[str]]:
    """Tables, and what is between them."""
    for _, group in groupby(lines, lambda line: line.startswith("|")):
        yield list(group)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.result_tables", description="tables of docs/results.md")
    parser.add_argument("--write", action="store_true", help="put them into the page")
    made = tables()
    if parser.parse_args(argv).write:
        atomic_write(PAGE, in_place(PAGE.read_text(encoding="utf-8"), made).encode())
    else:
        print("\n\n".join(made))


if __name__ == "__main__":
    main()
