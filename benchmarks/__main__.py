"""``python -m benchmarks``: every benchmark that needs no data set, one table after the other."""

from __future__ import annotations

import subprocess
import sys

for name in sys.argv[1:] or ("coder", "ops", "degradations", "entropy", "feeding", "speed", "training_step"):
    print(f"\n## {name}\n", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
