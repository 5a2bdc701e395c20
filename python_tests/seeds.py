"""The numbers that tests of kernels draw: the same in every run, others with ``AICR_TEST_SEED``."""

from __future__ import annotations

import os

__all__ = ["SEED"]

#: Added to the seeds of arguments; a run on a GPU takes it from the clock (``benchmarks/gpu_run.sh --seed``).
SEED = int(os.environ.get("AICR_TEST_SEED", "0"))
