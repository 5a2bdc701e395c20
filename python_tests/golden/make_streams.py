"""Makes the golden streams: ``python python_tests/golden/make_streams.py``. Never again once version 1 is released.

Symbols of the Gaussian tables and of tables of every kind, coded by the portable code: with 8 lanes, with 32, and as
three streams. Every later version has to read them: ``test_rans_isa.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from coder_cases import draw, encode, mixed_tables, using  # noqa: E402

from aicr_ext.codec.tables import gaussian_tables  # noqa: E402
from aicr_ext.ops.rans import even_splits  # noqa: E402

COUNT = 3000


def main() -> None:
    mixed, rng = mixed_tables(), np.random.default_rng(12)
    made = {f"mixed_{name}": getattr(mixed, name) for name in ("frequencies", "sizes", "offsets", "shifts")}
    for name, tables in (("gaussian", gaussian_tables()), ("mixed", mixed)):
        symbols, index = draw(rng, tables, COUNT, 0.005)
        made |= {f"{name}_symbols": symbols, f"{name}_index": index}
        with using("scalar"):
            for lanes in (8, 32):
                made[f"{name}_{lanes}"] = np.frombuffer(encode((symbols, index, tables), lanes=lanes), np.uint8)
            cuts = even_splits(COUNT, 3).tolist()
            for stream, own in enumerate(map(slice, cuts, cuts[1:])):
                data = encode((symbols[own], index[own], tables))
                made[f"{name}_stream_{stream}"] = np.frombuffer(data, np.uint8)
    np.savez_compressed(FOLDER / "coder.npz", **made)
    print(", ".join(f"{name} {len(array)}" for name, array in made.items()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
