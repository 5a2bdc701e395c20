"""Writes the committed Gaussian tables: ``python -m aicr_ext.codec.make_tables``.

Prints their SHA-256, which belongs in ``GAUSSIAN_TABLES_SHA256``. New tables mean a new format version: old
files decode only with the tables they were made with.
"""

from __future__ import annotations

import numpy as np

from .tables import GAUSSIAN_TABLES_FILE, make_gaussian_tables


def main() -> None:
    tables = make_gaussian_tables()
    np.savez_compressed(
        GAUSSIAN_TABLES_FILE,
        frequencies=tables.frequencies.astype(np.uint16),
        sizes=tables.sizes.astype(np.uint8),
        offsets=tables.offsets.astype(np.int16),
        shifts=tables.shifts,
    )
    print(f"{GAUSSIAN_TABLES_FILE}: {tables.digest().hex()}")


if __name__ == "__main__":
    main()
