"""The operators of this package inside other people's restoration networks, by changing one line.

>>> import torch
>>> from torch import nn
>>> import aicr_ext
>>> class FeedForward(nn.Module):  # as in Restormer and the many networks that descend from it
...     def __init__(self, dim, hidden):
...         super().__init__()
...         self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=False)
...         self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
...         self.project_out = nn.Conv2d(hidden, dim, 1, bias=False)
...     def forward(self, x):
...         a, b = self.dwconv(self.project_in(x)).chunk(2, dim=1)
...         return self.project_out(nn.functional.gelu(a) * b)
>>> model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), FeedForward(16, 42))
>>> print(aicr_ext.accelerate(model))
1 module runs through aicr_ext: 1 feed-forward
>>> aicr_ext.restore_modules(model)
1
"""

from __future__ import annotations

import copy
import copyreg
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn

from aicr_ext.ops import gated_convolutions, layer_norm2d, transposed_attention

__all__ = ["Acceleration", "accelerate", "restore_modules"]

#: Relative to the largest output; in float64, where other settings of a norm or a gate differ by far more.
_TOLERANCE = 1e-9
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

#: Batch, height and width of the maps that a module is tried with. Attention in windows differs on the large one.
_MAPS = {"attention": ((2, 7, 9), (1, 32, 36)), "feed-forward": ((2, 7, 9),), "norm": ((2, 7, 9),)}

#: Attributes of attentions that work in windows, of any size.
_WINDOWS = ("window_size", "base_size", "train_size", "kernel_size")

#: Module, map, and whether to keep only that for the backward pass.
Function = Callable[[nn.Module, Tensor, bool], Tensor]


@dataclass
class Acceleration:
    """What :func:`accelerate` did.

    Attributes:
        replaced: kind of each module that now runs through this package, by its name in the model: ``"attention"``,
            ``"feed-forward"`` or ``"norm"``.
        left: why a module that looks like one of these was left as it is, by its name.
    """

    replaced: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(self.replaced.values()).items()))
        plural = "module runs" if len(self.replaced) == 1 else "modules run"
        lines = [f"{len(self.replaced)} {plural} through aicr_ext" + (f": {kinds}" if kinds else "")]
        return "\n".join(lines + [f"left {name}: {reason}" for name, reason in self.left.items()])


def accelerate(model: nn.Module, *, recompute: bool = False, channels_last: bool = True) -> Acceleration:
    """Lets the attention, feed-forward and norm modules of a restoration network run through this package.

    Recognised, by the names and shapes of their parameters, wherever they are in the model:

    * *attention* between channels: ``qkv``, ``qkv_dwconv``, ``temperature``, ``project_out`` (MDTA of Restormer,
      PromptIR, AdaIR, MONAI, ...);
    * *feed-forward*: ``project_in``, ``dwconv``, ``project_out`` with a GELU gate or a plain product (GDFN);
    * *norm* over the channels of a map, with bias or without: a module with such parameters, itself (NAFNet) or in its
      only child (Restormer's ``body``).

    A copy of each, with parameters moved at random, is compared with the replacement on a small random map in float64,
    an attention also on one of 32 x 36 pixels; only if they agree does the module get a subclass of its class with
    another forward method. Parameters, buffers, ``state_dict`` keys, hooks on the module and everything else stay. What
    does not agree is left and reported, and so is an attention that has a ``window_size`` or the like.

    Works for inference and for training. Without gradients, maps go through in strips of rows, so that the wide maps in
    between never exist as a whole. Copies and pickles of the model stay accelerated; a pickle needs this package where
    it is loaded (a ``state_dict`` does not).

    Args:
        model: any module; changed in place. One that was accelerated before is restored first.
        recompute: in training, keep only the input of each attention and feed-forward and compute them again in the
            backward pass: less memory, more time.
        channels_last: convert the model's weights to that memory format, which the operators prefer.

    Returns:
        what was replaced, what was left, and why; printing it says so.

    Raises:
        TypeError: ``model`` is not a module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    restore_modules(model)
    report = Acceleration()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    inside: list[str] = []  # children of a replaced module never run
    for name, module in model.named_modules():
        kind = _kind_of(module)
        if kind is None or any(name.startswith(f"{outer}.") for outer in inside):
            continue
        reason = _obstacle(module) or _replace(module, kind, recompute)
        if reason:
            report.left[name] = reason
            continue
        report.replaced[name] = kind
        inside.append(name)
    return report


def restore_modules(model: nn.Module) -> int:
    """Gives all modules that :func:`accelerate` changed their own forward method again, and says how many there were.

    The memory format of weights stays as it is; it changes no result but by rounding.
    """
    count = 0
    for module in model.modules():
        if issubclass(type(module), _Accelerated):
            module.__class__ = type(module)._aicr_own
            count += 1
    return count


class _Accelerated:
    """A base of the classes that accelerated modules have instead of their own."""

    _aicr_own: type[nn.Module]
    _aicr_function: Function
    _aicr_recompute: bool

    def __reduce_ex__(self, protocol: int) -> tuple:
        """For copies and pickles, which cannot find a class that no module holds by its name."""
        made, arguments, *state = super().__reduce_ex__(max(protocol, 2))
        if made is not copyreg.__newobj__ or len(arguments) > 1:
            raise pickle.PicklingError(
                f"{type(self).__name__} says itself how it is copied; call aicr_ext.restore_modules before"
            )
        return (_made, (self._aicr_own, type(self)._aicr_function, self._aicr_recompute), *state)


def _made(own: type[nn.Module], function: Function, recompute: bool) -> nn.Module:
    """A module of such a class, still empty."""
    accelerated = _accelerated(own, function, recompute)
    return accelerated.__new__(accelerated)


@cache
def _accelerated(own: type[nn.Module], function: Function, recompute: bool) -> type[nn.Module]:
    """The class of a module, with a forward method that is the function for one map, its own for all other calls.

    A class and no attribute of the module: copies that share what a module holds, such as those of
    :class:`torch.nn.DataParallel`, would call that one with the module it was made for.
    """

    def forward(self: nn.Module, *args: object, **named: object) -> object:
        x = args[0] if len(args) == 1 and not named else None
        if not isinstance(x, Tensor) or x.dim() != 4:
            return own.forward(self, *args, **named)
        return function(self, x, recompute)

    names = {
        "forward": forward,
        "_aicr_own": own,
        "_aicr_function": staticmethod(function),
        "_aicr_recompute": recompute,
    }
    names |= {"__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
    return type(own.__name__, (_Accelerated, own), names)


def _replace(module: nn.Module, kind: str, recompute: bool) -> str | None:
    """Replaces the forward method by the first candidate that does the same; else the reason why there is none."""
    closest = float("inf")
    for function in _CANDIDATES[kind](module):
        try:
            difference = _difference(module, kind, function)
        except Exception as error:
            return f"cannot be tried: {type(error).__name__}: {error}"
        if difference <= _TOLERANCE:
            module.__class__ = _accelerated(type(module), function, recompute)
            return None
        closest = min(closest, difference)
    return f"its parameters are those of a known {kind}, its results are not (they differ by {closest:.1e})"


@torch.no_grad()
def _difference(module: nn.Module, kind: str, function: Function) -> float:
    """Largest difference of a module and its replacement on random maps, relative to the largest value."""
    generator = torch.Generator().manual_seed(0)
    twin = copy.deepcopy(module).cpu().double().eval()
    for parameter in twin.parameters():  # fresh ones are often 0 or 1, which would hide what they are for
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    largest = 0.0
    for batch, height, width in _MAPS[kind]:
        x = torch.randn((batch, _channels(module), height, width), generator=generator, dtype=torch.float64)
        expected, found = type(twin).forward(twin, x), function(twin, x, False)
        if not isinstance(expected, Tensor) or expected.shape != found.shape:
            return float("inf")
        difference = float((expected - found).abs().max() / expected.abs().max())
        if not difference <= _TOLERANCE:  # nor if it is no number
            return difference
        largest = max(largest, difference)
    return largest


def _obstacle(module: nn.Module) -> str | None:
    """Why a module must be left alone although it is of a known kind."""
    if "forward" in module.__dict__:
        return "its forward method was replaced by somebody else"
    for name, child in module.named_modules():
        if child is not module and any(getattr(child, hooks) for hooks in _HOOKS):
            return f"its part {name} has hooks, which would no longer run"
    if any(isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0 for part in module.modules()):
        return "it has dropout, which would no longer run in training"
    for name in _WINDOWS:
        if _kind_of(module) == "attention" and getattr(module, name, None) is not None:
            return f"it has a {name}, so it may work in windows"
    if any(parameter.is_meta for parameter in module.parameters()):
        return "its parameters are on the meta device"
    return None


def _kind_of(module: nn.Module) -> str | None:
    if type(module).__module__.startswith("aicr_ext."):
        return None  # runs through this package already
    if _is_pointwise(module, "qkv") and _is_depthwise(module, "qkv_dwconv") and _is_pointwise(module, "project_out"):
        fits = module.qkv.out_channels == 3 * module.qkv.in_channels == module.qkv_dwconv.in_channels
        return "attention" if fits and isinstance(getattr(module, "temperature", None), Tensor) else None
    if _is_pointwise(module, "project_in") and _is_depthwise(module, "dwconv") and _is_pointwise(module, "project_out"):
        fits = module.project_in.out_channels == module.dwconv.in_channels == 2 * module.project_out.in_channels
        return "feed-forward" if fits else None
    return "norm" if _norm_parameters(module) is not None else None


def _is_conv(module: nn.Module, name: str) -> bool:
    conv = getattr(module, name, None)
    return type(conv) is nn.Conv2d and conv.stride == conv.dilation == (1, 1)


def _is_pointwise(module: nn.Module, name: str) -> bool:
    return _is_conv(module, name) and getattr(module, name).kernel_size == (1, 1) and getattr(module, name).groups == 1


def _is_depthwise(module: nn.Module, name: str) -> bool:
    if not _is_conv(module, name):
        return False
    conv = getattr(module, name)
    return (conv.kernel_size, conv.padding, conv.padding_mode) == ((3, 3), (1, 1), "zeros") and (
        conv.groups == conv.in_channels == conv.out_channels
    )


def _norm_parameters(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of something that may be a norm over channels of a map, else None."""
    if type(module).__module__.startswith("torch.nn.") or "norm" not in type(module).__name__.lower():
        return None
    children = list(module.children())
    holder = children[0] if len(children) == 1 and hasattr(module, "body") else module
    own = dict(holder.named_parameters())
    weight, bias = own.pop("weight", None), own.pop("bias", None)
    if weight is None or weight.dim() != 1 or own or sum(1 for _ in module.parameters()) != 1 + (bias is not None):
        return None
    return weight, bias


def _channels(module: nn.Module) -> int:
    parameters = _norm_parameters(module)
    if parameters is not None:
        return len(parameters[0])
    return (module.qkv if hasattr(module, "qkv") else module.project_in).in_channels


def _projection(conv: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
    return conv.weight, conv.bias


def _attention(module: nn.Module, x: Tensor, recompute: bool) -> Tensor:
    return transposed_attention(
        x,
        _projection(module.qkv),
        _projection(module.qkv_dwconv),
        module.temperature,
        _projection(module.project_out),
        groups=module.temperature.numel(),
        recompute=recompute,
    )


@dataclass(frozen=True)
class _FeedForward:
    activation: str | None

    def __call__(self, module: nn.Module, x: Tensor, recompute: bool) -> Tensor:
        parts = (_projection(conv) for conv in (module.project_in, module.dwconv, module.project_out))
        return gated_convolutions(x, *parts, activation=self.activation, recompute=recompute)


@dataclass(frozen=True)
class _Norm:
    subtract_mean: bool
    eps: float

    def __call__(self, module: nn.Module, x: Tensor, recompute: bool) -> Tensor:
        weight, bias = _norm_parameters(module)
        return layer_norm2d(x, weight, self.eps, bias=bias, subtract_mean=self.subtract_mean)


def _norms(module: nn.Module) -> Iterator[Function]:
    known = [getattr(part, "eps", None) for part in module.modules()]
    for eps in dict.fromkeys([*(e for e in known if isinstance(e, float)), 1e-5, 1e-6]):
        yield _Norm(True, eps)
        yield _Norm(False, eps)


_CANDIDATES: dict[str, Callable[[nn.Module], Iterator[Function]]] = {
    "attention": lambda _: iter([_attention]),
    "feed-forward": lambda _: iter([_FeedForward("gelu"), _FeedForward(None)]),
    "norm": _norms,
}
