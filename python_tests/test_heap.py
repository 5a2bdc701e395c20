"""Freed memory is kept for the next blocks."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

import aicr_ext

#: Faults of pages when blocks of a few MiB are taken, written and freed, before and after.
SCRIPT = """
import resource
import torch
from aicr_ext.codec.heap import keep_freed_blocks

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        blocks = [torch.empty(5 << 20, dtype=torch.uint8).fill_(i) for i in range(3)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
keep_freed_blocks()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_pages_stay():
    plain = {
        k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "THP_"))
    }
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=plain, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 10_000  # of 4 KiB: three blocks have 3 840
    assert after < 1000


def test_codecs_on_a_cpu_ask_for_it(monkeypatch):
    asked = []
    monkeypatch.setattr("aicr_ext.codec.codec.keep_freed_blocks", lambda: asked.append(True))
    aicr_ext.Codec()
    assert asked
