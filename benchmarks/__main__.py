"""``python -m benchmarks [NAME ...]``: the benchmarks that need no data set, one table after the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DEFAULT = ("coder", "ops", "degradations", "entropy", "framing", "feeding", "speed", "training_step", "accelerated")
KNOWN = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py") if "def main(" in path.read_text())

for name in sys.argv[1:]:
    if name not in KNOWN:
        raise SystemExit(f"unknown benchmark {name!r}; known: {', '.join(KNOWN)}")
for name in sys.argv[1:] or DEFAULT:
    print(f"\n## {name}\n", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
