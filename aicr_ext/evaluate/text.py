"""Codecs, restorers and degradations written as text: ``name``, ``name:key=value,key=value``, ``module:object``."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["check_options", "parse_call"]

_CALL = re.compile(r"(?P<name>[\w./\-]+(?::[A-Za-z_]\w*)?)(?::(?P<options>[^=,]+=.*))?")

Value = int | float | bool | str | tuple


def parse_call(text: str) -> tuple[str, dict[str, Value]]:
    """Name and options of ``name:key=value,...``.

    A value is a whole number, a number, ``true``, ``false``, several numbers with ``/`` between them, or a word.

    >>> parse_call("haze:beta=1.2,seed=3")
    ('haze', {'beta': 1.2, 'seed': 3})
    >>> parse_call("package.module:function:strength=2")
    ('package.module:function', {'strength': 2})
    """
    match = _CALL.fullmatch(text)
    if match is None:
        raise ValueError(f"expected NAME, NAME:KEY=VALUE,KEY=VALUE or MODULE:OBJECT, got {text!r}")
    options = {}
    for part in (match["options"] or "").split(",") if match["options"] else ():
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise ValueError(f"expected KEY=VALUE, got {part!r}")
        options[key] = _value(value)
    return match["name"], options


def check_options(options: Iterable[str], accepted: Iterable[str]) -> None:
    """Raise ``ValueError`` for options that are not among the accepted ones."""
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise ValueError(f"unknown option {', '.join(unknown)}; accepted: {', '.join(accepted)}")


def _value(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    if "/" in text:
        parts = tuple(_value(part) for part in text.split("/"))
        return parts if all(isinstance(part, (int, float)) for part in parts) else text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
