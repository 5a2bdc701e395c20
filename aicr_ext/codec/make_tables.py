"""Makes the Gaussian tables again: ``python -m aicr_ext.codec.make_tables --out FILE.npz``.

Prints their SHA-256, which belongs in ``GAUSSIAN_TABLES_SHA256``. New tables mean a new format version: old
files decode only with the tables they were made with.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import BinaryIO

import numpy as np

from aicr_ext.files import appearing

from .tables import GAUSSIAN_TABLES_FILE, TableSet, make_gaussian_tables


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m aicr_ext.codec.make_tables", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help=f"those of the package are in {GAUSSIAN_TABLES_FILE}")
    out = parser.parse_args(argv).out
    if out.suffix != ".npz":
        parser.error(f"--out needs the suffix .npz, got {str(out)!r}")
    tables = make_gaussian_tables()
    with appearing(out) as temporary, open(temporary, "wb") as file:  # a path would get another suffix
        write(file, tables)
    print(f"{out}: {tables.digest().hex()}")


def write(file: BinaryIO, tables: TableSet) -> None:
    """The set as NumPy's archive, in the smallest dtypes that hold it."""
    np.savez_compressed(
        file,
        frequencies=tables.frequencies.astype(np.uint16),
        sizes=tables.sizes.astype(np.uint8),
        offsets=tables.offsets.astype(np.int16),
        shifts=tables.shifts,
    )


if __name__ == "__main__":
    main()
