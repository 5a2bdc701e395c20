"""Loads the compiled parts and remembers why one could not be loaded.

Three libraries lie next to the Python files: ``_C`` (the entropy coder; no torch), ``_ops`` (operator schemas
and CPU kernels) and ``_cuda`` (CUDA kernels). The package imports without any of them: operators then run
through their plain-torch reference, and only the entropy coder raises
:class:`~aicr_ext.errors.NativeLibraryError` when used.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch  # before the libraries below, which use the torch libraries already in the process

from .errors import NativeLibraryError

__all__ = ["HAS_CUDA_OPS", "HAS_OPS", "coder_isa", "cpu_features", "native_status", "require_C"]


@dataclass(frozen=True)
class _Library:
    """One native library: where it lies, and why it is not loaded (``reason`` is empty if it is)."""

    path: Path | None
    reason: str

    @property
    def loaded(self) -> bool:
        return not self.reason

    def describe(self) -> dict[str, Any]:
        return {
            "loaded": self.loaded,
            "path": str(self.path) if self.path else None,
            "reason": self.reason or None,
        }


def _load_module(name: str) -> tuple[ModuleType | None, _Library]:
    spec = importlib.util.find_spec(f"{__package__}.{name}")
    if spec is None or spec.origin is None:
        return None, _Library(None, "not built: no such file next to the package")
    path = Path(spec.origin)
    try:
        return importlib.import_module(f"{__package__}.{name}"), _Library(path, "")
    except ImportError as error:
        return None, _Library(path, str(error))


def _load_ops(name: str, folder: Path) -> _Library:
    path = folder / f"{name}.so"
    if not path.exists():
        return _Library(None, "not built: no such file next to the package")
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError) as error:
        return _Library(path, str(error))
    return _Library(path, "")


_C, _c_library = _load_module("_C")
# In an editable install the libraries lie in site-packages and the Python files elsewhere: _C knows where.
_folder = _c_library.path.parent if _c_library.path else Path(__file__).parent
_ops_library = _load_ops("_ops", _folder)
_cuda_library = (
    _load_ops("_cuda", _folder)
    if _ops_library.loaded
    else _Library(None, "needs _ops, which is not loaded")  # the schemas are in _ops
)

HAS_OPS: bool = _ops_library.loaded
"""Whether the operators are registered with a CPU kernel."""

HAS_CUDA_OPS: bool = _cuda_library.loaded
"""Whether the operators are registered with a CUDA kernel (a device may still be absent)."""


def require_C() -> ModuleType:
    """The pybind11 module ``_C``, or :class:`NativeLibraryError` with the reason why it is not loaded."""
    if _C is None:
        raise NativeLibraryError(f"the entropy coder needs the native module aicr_ext._C: {_c_library.reason}")
    return _C


def native_status() -> dict[str, Any]:
    """The state of the native libraries, for ``aicr doctor`` and bug reports.

    Returns a dict with one entry per library (``_C``, ``_ops``, ``_cuda``), each ``{"loaded": bool, "path":
    str | None, "reason": str | None}``, and ``"build"``: the build facts of ``_C`` (``version``,
    ``build_type``, ``sanitizers``, ``compiler``, ``torch_headers``, ``cuda_built``, ``cuda_version``,
    ``cuda_archs``), empty if ``_C`` is not loaded.
    """
    return {
        "_C": _c_library.describe(),
        "_ops": _ops_library.describe(),
        "_cuda": _cuda_library.describe(),
        "build": _C.build_info() if _C is not None else {},
    }


def cpu_features() -> list[str]:
    """Instruction sets of this processor that kernels choose by, oldest first; empty without ``_C``."""
    return _C.cpu_features() if _C is not None else []


def coder_isa() -> str:
    """The instruction set the entropy coder uses: ``scalar``, ``avx2`` or ``avx512``; empty without ``_C``.

    The fastest this processor has, unless the environment variable ``AICR_ISA`` names another.

    Raises:
        ValueError: the variable names none that this processor has.
    """
    return _C.coder_isa() if _C is not None else ""
