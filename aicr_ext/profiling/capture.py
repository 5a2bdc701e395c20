"""Arguments that operators really get, kept in a file, to run them again beneath a profiler."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from aicr_ext.errors import first_line
from aicr_ext.files import appearing
from aicr_ext.profiling.costs import signature, tensors_in

__all__ = ["Call", "Capture", "load_calls"]

_FORMAT = "aicr_ext calls 1"
_DEFINITIONS = ("reference", "integer_reference", "latent_reference")


class Call(NamedTuple):
    """One operator of this package with the arguments of one call.

    Attributes:
        name: without the namespace, ``gelu_gate``.
        arguments: by position, as the schema has them: tensors, numbers, None, and lists of tensors.
    """

    name: str
    arguments: list

    @property
    def operator(self) -> torch._ops.OpOverload:
        """The registered operator."""
        importlib.import_module("aicr_ext.ops")
        return getattr(torch.ops.aicr_ext, self.name).default

    @property
    def definition(self) -> Callable | None:
        """The plain-torch definition, where the package has one (``NAME_reference``), for the same arguments."""
        names = [argument.name for argument in self.operator._schema.arguments]
        for module in _DEFINITIONS:
            found = getattr(importlib.import_module(f"aicr_ext.ops.{module}"), f"{self.name}_reference", None)
            if found is not None:
                break
        else:
            return None
        known = inspect.signature(found).parameters  # definitions compute in the dtype of their arguments

        def definition(*arguments: object) -> object:
            return found(**{n: a for n, a in zip(names, arguments, strict=False) if n in known})

        return definition

    def fresh(self) -> list:
        """The arguments, with a copy of those that the operator writes to: every run begins alike."""
        written = [a.alias_info is not None and a.alias_info.is_write for a in self.operator._schema.arguments]
        pairs = zip(self.arguments, written, strict=False)
        return [a.clone() if changes and isinstance(a, Tensor) else a for a, changes in pairs]

    def to(self, device: str | torch.device) -> Call:
        """The same with its tensors on a device."""
        return Call(self.name, [_moved(argument, device) for argument in self.arguments])

    def __str__(self) -> str:
        first = next(tensors_in(self.arguments))
        return f"{self.name} {'x'.join(map(str, first.shape))} {str(first.dtype).removeprefix('torch.')}"


def _moved(argument: object, device: str | torch.device) -> object:
    if isinstance(argument, Tensor):
        return argument.to(device)
    return [_moved(a, device) for a in argument] if isinstance(argument, list) else argument


@dataclass
class Capture:
    """Keeps the largest call of each operator of this package and kind of arguments.

    Attributes:
        calls: by operator and signature. Tensors are copies on the CPU, in the layout that they had.
    """

    calls: dict[tuple[str, str], Call] = field(default_factory=dict)

    def keep(self, operator: torch._ops.OpOverload, arguments: tuple, keywords: dict) -> None:
        """Looks at a call, and keeps a copy if it is larger than what is there."""
        namespace, name = operator._schema.name.split("::")
        if namespace != "aicr_ext" or keywords:
            return
        key = (name, signature(arguments))
        if key not in self.calls or _size(arguments) > _size(self.calls[key].arguments):
            self.calls[key] = Call(name, [_copied(argument) for argument in arguments])

    def save(self, path: str | Path) -> None:
        """Writes the calls to a file, which appears whole or not at all."""
        content = {"format": _FORMAT, "calls": [tuple(call) for call in self.calls.values()]}
        with appearing(path) as temporary, open(temporary, "wb") as file:
            torch.save(content, file)


def _size(arguments: object) -> int:
    return sum(t.numel() for t in tensors_in(arguments))


def _copied(argument: object) -> object:
    if isinstance(argument, Tensor):
        return argument.detach().to("cpu", copy=True)
    return [_copied(a) for a in argument] if isinstance(argument, (list, tuple)) else argument


def load_calls(path: str | Path) -> Iterator[Call]:
    """The calls in a file of :meth:`Capture.save`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != _FORMAT:
            raise ValueError(f"it is of the format {content['format']!r}, not {_FORMAT!r}")
        calls = [Call(name, list(arguments)) for name, arguments in content["calls"]]
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: no file of captured calls: {first_line(error)}") from error
    yield from calls
