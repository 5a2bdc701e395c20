"""Freed memory is kept for the next blocks."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys

import pytest

import aicr_ext

#: Whether a block of 30 MiB gets pages of its own, before and after.
SCRIPT = """
import ctypes
import torch
from aicr_ext.codec.heap import keep_freed_blocks

class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Mallinfo2

def mapped():
    before = mallinfo2().hblks
    blocks.append(torch.empty(30 << 20, dtype=torch.uint8))  # kept: nothing is learned from it
    return mallinfo2().hblks - before

blocks = []
before = mapped()
keep_freed_blocks()
print(before, mapped())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_blocks_come_from_the_heap():
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("a glibc before 2.33")
    special = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "THP_")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(special)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=plain, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    if before == 0:
        pytest.skip("importing torch has freed a larger block already")
    assert after == 0


def test_codecs_on_a_cpu_ask_for_it(monkeypatch):
    asked = []
    monkeypatch.setattr("aicr_ext.codec.codec.keep_freed_blocks", lambda: asked.append(True))
    aicr_ext.Codec()
    assert asked
