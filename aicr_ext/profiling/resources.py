"""Registers and shared memory of the CUDA kernels, from the log of their compilation; no GPU is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ARCHITECTURES", "KernelResources", "read_build_log"]


@dataclass(frozen=True)
class Architecture:
    """Limits of one multiprocessor, from the CUDA programming guide's table of compute capabilities."""

    warps: int
    shared: int
    registers: int = 65536


#: Of the architectures this package is compiled for.
ARCHITECTURES = {
    "sm_80": Architecture(64, 164 * 1024),
    "sm_90": Architecture(64, 228 * 1024),
    "sm_100": Architecture(64, 228 * 1024),
    "sm_120": Architecture(48, 100 * 1024),
}

_WARP_REGISTERS = 256  # a warp gets registers in multiples of so many
_BLOCK_SHARED = 1024  # taken by the system for each block


@dataclass(frozen=True)
class KernelResources:
    """What one kernel takes on one architecture.

    Attributes:
        kernel: its name with template arguments, without namespaces and parameters.
        architecture: such as ``"sm_90"``.
        registers: of each thread.
        spilled: bytes that each thread stores because registers do not suffice.
        shared: static shared memory of a block in bytes; what is asked for at launch is not in it.
    """

    kernel: str
    architecture: str
    registers: int
    spilled: int
    shared: int

    @property
    def warps(self) -> int | None:
        """Warps of a multiprocessor whose registers there is room for; None for an unknown architecture."""
        limits = ARCHITECTURES.get(self.architecture)
        if limits is None:
            return None
        of_a_warp = -(-self.registers * 32 // _WARP_REGISTERS) * _WARP_REGISTERS
        return min(limits.warps, limits.registers // of_a_warp)

    @property
    def blocks(self) -> int | None:
        """Blocks of a multiprocessor whose static shared memory there is room for; None if it takes none."""
        limits = ARCHITECTURES.get(self.architecture)
        return limits.shared // (self.shared + _BLOCK_SHARED) if limits and self.shared else None

    @property
    def occupancy(self) -> float | None:
        """Share of the multiprocessor's warps that the registers allow, 0 … 1."""
        limits = ARCHITECTURES.get(self.architecture)
        return None if limits is None else self.warps / limits.warps


_ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'")
_SPILLS = re.compile(r"(\d+) bytes spill stores")
_USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")


def read_build_log(path: str | Path) -> list[KernelResources]:
    """The reports of ``ptxas -v`` in the log of a build, sorted by kernel and architecture.

    Raises:
        OSError: the log cannot be read.
        ValueError: it has no such report.
    """
    found, entry, spilled = [], None, 0
    for line in Path(path).read_text(errors="replace").splitlines():
        if match := _ENTRY.search(line):
            entry, spilled = match.groups(), 0
        elif match := _SPILLS.search(line):
            spilled = int(match[1])
        elif entry and (match := _USED.search(line)):
            found.append(KernelResources(*entry, int(match[1]), spilled, int(match[2] or 0)))
            entry = None
    if not found:
        raise ValueError(f"{path}: no report of ptxas; it should be the log of a build with CUDA ('make build')")
    names = _demangled({resources.kernel for resources in found})
    named = {KernelResources(names[r.kernel], r.architecture, r.registers, r.spilled, r.shared) for r in found}
    return sorted(named, key=lambda r: (r.kernel, int(re.sub(r"\D", "", r.architecture))))


def _demangled(symbols: Iterable[str]) -> dict[str, str]:
    """Readable names, where c++filt is there."""
    symbols = sorted(symbols)
    texts = symbols
    if program := shutil.which("c++filt"):
        done = subprocess.run([program], input="\n".join(symbols), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            texts = done.stdout.splitlines()
    return {symbol: _short(text) for symbol, text in zip(symbols, texts, strict=True)}


def _short(name: str) -> str:
    """Without return type, namespaces and parameters."""
    name = re.sub(r"\(anonymous namespace\)::|\b(aicr|\w*_GLOBAL__N_\w*)::|^void ", "", name)
    name = re.sub(r"\((int|unsigned|bool)\)", "", name)
    depth = 0
    for at, letter in enumerate(name):  # parameters begin at the first bracket outside of template arguments
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            return name[:at]
    return name
