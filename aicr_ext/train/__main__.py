"""``python -m aicr_ext.train`` is ``aicr train``; with ``torchrun -m`` it trains in several processes."""

import sys

from aicr_ext.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
