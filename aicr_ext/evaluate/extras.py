"""Packages that only the evaluation needs."""

from __future__ import annotations

import importlib
from types import ModuleType

from aicr_ext.errors import MissingPackageError

__all__ = ["load"]


def load(module: str, extra: str = "eval") -> ModuleType:
    """The module, imported; :class:`MissingPackageError` with the command that installs it if it is not there."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"this needs the package {error.name or module}, which is not installed: pip install 'aicr_ext[{extra}]'"
        ) from error
