"""The ``aicr`` command for tests, with one codec kept over all calls: loading it is most of a call's time."""

from __future__ import annotations

from functools import lru_cache
from unittest import mock

import aicr_ext
from aicr_ext.cli import main

_real_codec = aicr_ext.Codec


@lru_cache(maxsize=4)
def _kept_codec(model: str, device: str | None = None, precision: str = "float32") -> aicr_ext.Codec:
    return _real_codec(model, device, precision=precision)


def aicr(*argv: str) -> int:
    """The exit code of ``aicr argv...``."""
    with mock.patch.object(aicr_ext, "Codec", _kept_codec):
        return main([*argv])
