"""The blocks as functions and as registered operators, against their plain-torch definitions."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from op_cases import LAYOUTS, assert_no_worse, cut_into_strips, requires_ops, with_threads
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from training import TINY, TONED

from aicr_ext import _native, ops
from aicr_ext.codec.checkpoint import untrained
from aicr_ext.model.config import ModelConfig
from aicr_ext.ops import blocks, reference
from aicr_ext.ops.kernels import plain_torch

NAMES = ("transposed_attention", "spatial_attention", "gated_convolutions")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]

requires_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (torch.cuda.is_available() and _native.HAS_CUDA_OPS), reason="no CUDA device"),
]
everywhere = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=requires_gpu)])


class Drawn:
    """Draws tensors, the same for every object and on every device."""

    def __init__(self, dtype: torch.dtype, layout: str = "channels_last", device: str = "cpu") -> None:
        self.generator, self.layout = torch.Generator().manual_seed(0), LAYOUTS[layout]
        self.dtype, self.device = dtype, device

    def __call__(self, *size: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(size, generator=self.generator) * scale).to(self.device, self.dtype)

    def map(self, *size: int) -> Tensor:
        return self(*size).contiguous(memory_format=self.layout)

    def projection(self, out: int, channels: int, biased: bool) -> tuple[Tensor, Tensor | None]:
        weight = self(out, channels, 1, 1, scale=channels**-0.5)
        return weight, self(out, scale=0.3) if biased else None

    def depthwise(self, channels: int, biased: bool) -> tuple[Tensor, Tensor | None]:
        return self(channels, 1, 3, 3, scale=0.3), self(channels, scale=0.3) if biased else None


#: (residual or norm, biases, depthwise, context, scale, subtract the mean)
ATTENTION = {
    "AICR": (True, False, True, False, None, False),
    "Restormer": (False, True, True, False, None, False),
    "with a whole norm": (True, True, True, False, None, True),
    "from another map": (True, False, True, True, None, True),
    "plain products": (False, False, True, False, 0.25, False),
    "without depthwise": (True, True, False, False, 0.5, True),
    "plain products from another map": (False, True, False, True, 0.25, False),
}
#: (residual or norm, biases, GELU, subtract the mean)
GATED = {
    "AICR": (True, False, True, False),
    "Restormer": (False, True, True, False),
    "plain gate": (True, True, False, True),
}
VARIANTS = [
    *(("transposed_attention", name) for name in ATTENTION),
    ("spatial_attention", "AICR"),
    *(("gated_convolutions", name) for name in GATED),
]


def arguments(
    op: str, variant: str, shape=(2, 8, 7, 9), dtype=torch.float32, layout="channels_last", device="cpu"
) -> list:
    """Those of the operator, but for the last."""
    draw, (b, c, h, w) = Drawn(dtype, layout, device), shape
    x = draw.map(b, c, h, w)
    if op == "spatial_attention":
        first, value, out = (draw.projection(c, c, True) for _ in range(3))
        return [x, draw(c), *first, draw(c, 1, 1, 5), draw(c, 1, 5, 1), *value, *out, 1e-5]
    if op == "gated_convolutions":
        residual, biased, gelu, subtract_mean = GATED[variant]
        norm = [draw(c) if residual else None, draw(c) if residual and biased else None]
        out = c if residual else c + 2
        parts = [*draw.projection(12, c, biased), *draw.depthwise(12, biased), *draw.projection(out, 6, biased)]
        return [x, *norm, *parts, gelu, subtract_mean, 1e-5, residual]
    residual, biased, depthwise, context, scale, subtract_mean = ATTENTION[variant]
    norm = [draw(c) if residual else None, draw(c) if residual and biased else None]
    dwconv = draw.depthwise(3 * c, biased) if depthwise else (None, None)
    temperature = draw(2).abs().view(2, 1, 1) if scale != 0.25 else None
    out = draw.projection(c if residual else c + 2, c, biased)
    maps = [x, draw.map(b, c, h, w) if context else None]
    qkv = draw.projection(3 * c, c, biased)
    return [*maps, *norm, *qkv, *dwconv, temperature, *out, 2, scale, subtract_mean, 1e-5, residual]


def composed(op: str, args: list, compute: torch.dtype | None = None) -> Tensor:
    return getattr(blocks, f"composed_{op}")(*args, compute)


def registered(op: str, args: list, compute: torch.dtype | None = None) -> Tensor:
    return getattr(torch.ops.aicr_ext, op)(*args, compute)


def defined(op: str, args: list) -> Tensor:
    return getattr(reference, f"{op}_reference")(*args)


def wide(args: list) -> list:
    return [a.double() if isinstance(a, Tensor) else a for a in args]


def leaves(args: list) -> list[Tensor]:
    return [a.requires_grad_() for a in args if isinstance(a, Tensor)]


@everywhere
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op, variant", VARIANTS)
@torch.no_grad()
def test_matches_the_definition(op, variant, dtype, layout, device):
    for shape in ((2, 8, 7, 9), (1, 16, 33, 18), (3, 4, 1, 5), (1, 4, 6, 1)):
        args = arguments(op, variant, shape, dtype, layout, device)
        results = registered(op, args), composed(op, args)
        assert device == "cuda" or torch.equal(*results)  # libraries of NVIDIA promise no bits
        eager, exact = defined(op, args), defined(op, wide(args))
        for out in results:
            assert out.dtype == dtype
            assert_no_worse(out, eager, exact)


@pytest.mark.parametrize("op, variant", VARIANTS)
@torch.no_grad()
def test_strips(op, variant, monkeypatch):
    args = arguments(op, variant, (2, 8, 37, 9))
    cut_into_strips(monkeypatch)
    torch.testing.assert_close(registered(op, args), defined(op, args), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("values", [1, 1 << 20], ids=["strips", "whole"])
@pytest.mark.parametrize("op, variant", VARIANTS)
@torch.no_grad()
def test_overwriting_gives_the_same_bits(op, variant, values, monkeypatch):
    """In the memory of x where a residual of its dtype is asked for, and nowhere else."""
    cut_into_strips(monkeypatch, values)
    args = arguments(op, variant, (2, 8, 37, 9))
    x, before = args[0], args[0].clone()
    expected = composed(op, args)
    assert torch.equal(x, before)
    out = getattr(blocks, f"composed_{op}")(*args, None, overwrite=True)
    assert torch.equal(out, expected)
    residual = op == "spatial_attention" or args[-1]
    from_another_map = op == "transposed_attention" and args[1] is not None
    in_place = bool(residual and not from_another_map)
    assert (out.data_ptr() == x.data_ptr()) is in_place
    assert torch.equal(x, before) is not in_place


@pytest.mark.parametrize("values", [1, 1 << 20], ids=["strips", "whole"])
def test_overwriting_needs_the_same_dtype_and_no_gradients(values, monkeypatch):
    cut_into_strips(monkeypatch, values)
    wide_x, *weights = arguments("gated_convolutions", "AICR", (1, 8, 20, 6))[:8]
    x, parts = wide_x.bfloat16(), [weight for weight in weights if weight is not None]
    with torch.no_grad():
        for t in (x.clone(), wide_x.clone()):
            assert ops.gated_feed_forward(t, *parts, overwrite=True).data_ptr() == t.data_ptr()
        kept = x.clone()
        with torch.autocast("cpu", torch.float16):  # the sum of bfloat16 and float16 is float32
            assert ops.gated_feed_forward(kept, *parts, overwrite=True).dtype == torch.float32
        assert torch.equal(kept, x)
    ops.gated_feed_forward(kept.requires_grad_(), *parts, overwrite=True).sum().backward()
    assert torch.equal(kept, x)


def test_maps_that_cannot_be_written_to_are_not_overwritten():
    x, *weights = arguments("gated_convolutions", "AICR", (1, 8, 20, 6))[:8]
    parts = [weight for weight in weights if weight is not None]
    with torch.inference_mode():
        of_inference = x.clone()
    with torch.no_grad():
        for t in (of_inference, x[:, :, :1].expand(-1, -1, 5, -1)):
            expected = ops.gated_feed_forward(t.clone(), *parts)
            assert torch.equal(ops.gated_feed_forward(t, *parts, overwrite=True), expected)


@everywhere
@pytest.mark.parametrize("op, variant", VARIANTS)
def test_gradients(op, variant, device):
    """In float64; on CUDA, whose kernels have no such, in float32."""
    dtype, tolerance = (torch.float64, 1e-9) if device == "cpu" else (torch.float32, 1e-4)
    args = arguments(op, variant, (2, 4, 3, 4), dtype, device=device)
    exact_args = wide(args)
    exact_inputs, inputs = leaves(exact_args), leaves(args)
    if device == "cpu":
        assert torch.autograd.gradcheck(lambda *_: registered(op, args), inputs, fast_mode=True)
    exact = defined(op, exact_args)
    grad = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1)).to(device)
    expected = torch.autograd.grad(exact, exact_inputs, grad.double())
    for way in (composed, registered):
        found = torch.autograd.grad(way(op, args), inputs, grad.to(dtype))
        for ours, true in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.double(), true, rtol=tolerance, atol=tolerance * true.abs().max().item())


@pytest.mark.parametrize("size", [1.1e-12, 1e-12, 0.9e-12, 0.0])
def test_gradients_where_queries_and_keys_have_no_length(size):
    """The smallest norm, 1e-24, which is the square of 1e-12, and its neighbours; two pixels of two channels."""
    draw = Drawn(torch.float64)
    x, qkv, out = torch.eye(2).view(1, 2, 1, 2).double(), draw(6, 2, 1, 1), draw(2, 2, 1, 1)
    qkv[0], qkv[3] = (torch.tensor(pair, dtype=torch.float64).view(2, 1, 1) for pair in ((size, 0), (0, size)))
    args = [x, None, None, None, qkv, None, None, None, None, out, None, 1, None, False, 1e-5, False]
    inputs = leaves(args)
    found, composition, definition = (
        torch.autograd.grad((way("transposed_attention", args) * x.roll(1, 1)).sum(), inputs)
        for way in (registered, composed, defined)
    )
    for ours, *others in zip(found, composition, definition, strict=True):
        for other in others:
            torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-9 * other.abs().max().item())


@everywhere
@pytest.mark.parametrize("op, variant", VARIANTS)
def test_gradients_in_low_precision(op, variant, device):
    """Of float32 arguments that are computed with in bfloat16: no worse than autograd through the composition, which
    is no worse than with the definitions of what it consists of."""
    args = arguments(op, variant, (2, 8, 12, 9), device=device)
    exact_args = wide(args)
    exact_inputs, inputs = leaves(exact_args), leaves(args)
    exact = torch.autograd.grad(defined(op, exact_args).square().sum(), exact_inputs)

    def gradients(way):
        return torch.autograd.grad(way(op, args, torch.bfloat16).float().square().sum(), inputs)

    with plain_torch():
        plain = gradients(composed)
    for tensor, *three, true in zip(inputs, plain, gradients(composed), gradients(registered), exact, strict=True):
        assert {g.dtype for g in three} == {tensor.dtype}
        of_plain, of_composed, error = ((g.double() - true).norm() for g in three)
        assert of_composed <= 2 * of_plain + 0.01 * true.norm()
        assert error <= 2 * of_composed + 0.01 * true.norm()


@pytest.mark.parametrize("op", NAMES)
def test_second_derivatives(op):
    args = arguments(op, "AICR", (1, 4, 3, 2), torch.float64)
    assert torch.autograd.gradgradcheck(lambda *_: registered(op, args), leaves(args), fast_mode=True)


@pytest.mark.parametrize("op, variant", VARIANTS)
def test_opcheck(op, variant):
    args = arguments(op, variant, (2, 4, 5, 6), layout="nchw" if variant == "AICR" else "channels_last")
    leaves(args)
    torch.library.opcheck(getattr(torch.ops.aicr_ext, op).default, (*args, None))
    torch.library.opcheck(
        getattr(torch.ops.aicr_ext, op).default, (*args, torch.bfloat16), test_utils="test_faketensor"
    )
    with torch.no_grad():
        grad = torch.ones_like(registered(op, args))
        args = [a.detach() if isinstance(a, Tensor) else a for a in args]
        backward = getattr(torch.ops.aicr_ext, f"{op}_backward").default
        torch.library.opcheck(backward, (grad, *args, None))


@pytest.mark.parametrize("op", NAMES)
def test_compile(op):
    args = arguments(op, "AICR", (1, 4, 6, 5), torch.float64)
    inputs = leaves(args)
    compiled = torch.compile(lambda: registered(op, args).square().sum(), fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(), inputs)
    torch.testing.assert_close(found, torch.autograd.grad(composed(op, args).square().sum(), inputs))


@requires_ops
@torch.no_grad()
def test_compiled_graphs_hold_the_block_and_exported_ones_its_operations():
    class Feed(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            _, norm, _, project_in, _, dwconv, _, project_out, *_ = args
            return ops.gated_feed_forward(x, norm, project_in, dwconv, project_out)

    def keep(graph: torch.fx.GraphModule, _: list) -> torch.fx.GraphModule:
        seen.extend(str(node.target) for node in graph.graph.nodes if "aicr_ext" in str(node.target))
        return graph

    args, seen = arguments("gated_convolutions", "AICR"), []
    torch.testing.assert_close(torch.compile(Feed(), fullgraph=True, backend=keep)(args[0]), Feed()(args[0]))
    assert seen == ["aicr_ext.gated_convolutions"]
    nodes = torch.export.export(Feed(), (args[0],)).graph.nodes
    assert not any("gated_convolutions" in str(node.target) for node in nodes)


@pytest.mark.parametrize("op", NAMES)
def test_autocast(op):
    """The residual stays in float32, and the operator has autocast's dtype inside, as the composition has."""
    args = arguments(op, "AICR", (1, 8, 6, 5))
    expected = registered(op, args, torch.bfloat16)
    assert expected.dtype == torch.float32
    assert not torch.equal(expected, registered(op, args))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(registered(op, args), expected)
        assert registered(op, wide(args)).dtype == torch.float64
    leaves(args)
    with torch.autocast("cpu", torch.bfloat16):
        out = registered(op, args)
    out.sum().backward()
    assert args[0].grad.dtype == torch.float32


@pytest.mark.parametrize("op, variant", VARIANTS)
def test_gradients_under_autocast(op, variant):
    """They are those of the dtype that the forward pass had, wherever the backward pass begins."""
    args = arguments(op, variant, (1, 8, 6, 5))
    inputs = leaves(args)

    def gradients(forward_low, backward_low):
        with torch.autocast("cpu", torch.bfloat16, enabled=forward_low):
            out = registered(op, args)
        with torch.autocast("cpu", torch.bfloat16, enabled=backward_low):
            found = torch.autograd.grad(out.square().sum(), inputs, retain_graph=True)
            differentiable = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        return *found, *differentiable

    for forward_low in (False, True):
        assert all(map(torch.equal, gradients(forward_low, True), gradients(forward_low, False)))
    with torch.no_grad():
        backward = getattr(torch.ops.aicr_ext, f"{op}_backward")
        call = (torch.ones_like(registered(op, args)), *args)
        expected = backward(*call)
        with torch.autocast("cpu", torch.bfloat16):
            assert all(map(torch.equal, backward(*call), expected))


@pytest.mark.parametrize("op", NAMES)
def test_every_device_has_the_operators(op):
    """``recompute`` takes them without asking for a kernel."""
    for device in ("CPU", "CUDA", "MPS", "XPU", "PrivateUse1"):
        for name in (op, f"{op}_backward"):
            assert torch._C._dispatch_has_computed_kernel_for_dispatch_key(f"aicr_ext::{name}", device), device


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op, variant", VARIANTS)
@requires_ops
def test_two_runs_and_any_number_of_threads_give_the_same_bits(op, variant, layout):
    args = arguments(op, variant, (2, 16, 40, 33), layout=layout)
    backward = getattr(torch.ops.aicr_ext, f"{op}_backward")
    with torch.no_grad():
        grad = torch.ones_like(registered(op, args))
        results = with_threads(lambda: [registered(op, args), *backward(grad, *args)])
    # The weight of a depthwise convolution alone: oneDNN shares the sum of its gradient among threads.
    shared = {1 + 6, 1 + 7} if op == "transposed_attention" else set()
    for number, other in enumerate(results[1:]):
        same = [torch.equal(a, b) for a, b in zip(results[0], other, strict=True)]
        assert all(equal or (number > 0 and i in shared) for i, equal in enumerate(same)), same


@pytest.mark.parametrize("op, variant", VARIANTS)
def test_empty(op, variant):
    args = arguments(op, variant, (0, 8, 5, 4))
    out = registered(op, args)
    assert out.shape[0] == 0
    inputs = leaves(args)
    assert all(not g.any() for g in torch.autograd.grad(registered(op, args).sum(), inputs))


def kept(call) -> int:
    """Values that a forward pass keeps for the backward pass."""
    total = [0]

    def note(t: Tensor) -> Tensor:
        total[0] += t.numel()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        call()
    return total[0]


@pytest.mark.parametrize("recompute", [False, True])
def test_recomputing_keeps_the_arguments_only(recompute):
    args = arguments("gated_convolutions", "AICR", (1, 8, 40, 40))
    inputs = leaves(args)
    x, norm, _, project_in, _, dwconv, _, project_out, *_ = args
    count = kept(lambda: ops.gated_feed_forward(x, norm, project_in, dwconv, project_out, recompute=recompute))
    assert (count == sum(t.numel() for t in inputs)) == recompute


def test_what_operators_keep_can_be_checkpointed():
    """A checkpoint hands out what was kept one time only."""
    for op in NAMES:
        args = arguments(op, "AICR", (1, 4, 6, 5))
        inputs = leaves(args)
        for way in (composed, registered):
            out = checkpoint(lambda way=way, op=op, args=args: way(op, args), use_reentrant=False)
            found = torch.autograd.grad(out.sum(), inputs)
            torch.testing.assert_close(found, torch.autograd.grad(way(op, args).sum(), inputs))


@pytest.mark.parametrize("op", NAMES)
def test_operations_are_counted(op):
    args = arguments(op, "AICR", (2, 8, 7, 9))
    inputs = leaves(args)
    with FlopCounterMode(display=False) as counter:
        out = registered(op, args)
    forward, pixels = counter.get_total_flops(), 2 * 7 * 9
    expected = {
        "transposed_attention": pixels * (24 * 8 + 9 * 24 + 8 * 4 + 8 * 8) + 2 * 8 * 8 * 4,
        "spatial_attention": pixels * (3 * 8 * 8 + 2 * 5 * 8),
        "gated_convolutions": pixels * (12 * 8 + 9 * 12 + 6 * 8),
    }[op]
    assert forward == 2 * expected
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(out.sum(), inputs)
    assert counter.get_total_flops() == 3 * forward


@pytest.mark.parametrize(
    "op, place, value, message",
    [
        ("transposed_attention", 0, torch.zeros(8, 7, 9), r"x must be \(B, C, H, W\), got \(8, 7, 9\)"),
        ("transposed_attention", 4, torch.zeros(8, 8, 1, 1), r"qkv must have the shape \(24, 8, 1, 1\), got \(8, 8, 1"),
        ("transposed_attention", 6, torch.zeros(24, 1, 5, 5), r"qkv_dwconv must have the shape \(24, 1, 3, 3\)"),
        ("transposed_attention", 1, torch.zeros(2, 8, 7, 8), r"context must have the shape \(2, 8, 7, 9\)"),
        ("transposed_attention", 8, torch.ones(3), "temperature must have 2 values, one for each group, got 3"),
        ("transposed_attention", 9, torch.zeros(4, 8, 1, 1), r"project_out must have the shape \(8, 8, 1, 1\)"),
        ("transposed_attention", 11, 3, "groups must divide the 8 channels of x, got 3"),
        ("spatial_attention", 2, torch.zeros(4, 8, 1, 1), r"project_attn must have the shape \(8, 8, 1, 1\)"),
        ("gated_convolutions", 3, torch.zeros(12, 4, 1, 1), r"project_in must have the shape \(12, 8, 1, 1\)"),
        ("gated_convolutions", 5, torch.zeros(6, 1, 3, 3), r"dwconv must have the shape \(12, 1, 3, 3\)"),
        ("gated_convolutions", 7, torch.zeros(5, 6, 1, 1), r"project_out must have the shape \(8, 6, 1, 1\)"),
    ],
)
def test_bad_arguments(op, place, value, message):
    args = arguments(op, "AICR")
    args[place] = value
    for way in (composed, registered):
        with pytest.raises(ValueError, match=message):
            way(op, args)


@everywhere
def test_all_ways_agree_through_the_public_functions(device):
    for recompute, low in product((False, True), (False, True)):
        args = arguments("transposed_attention", "with a whole norm", device=device)
        leaves(args)
        x, _, norm, norm_bias, qkv, qkv_bias, dwconv, dwconv_bias, temperature, out, out_bias, *_ = args
        parts = ((qkv, qkv_bias), (dwconv, dwconv_bias), temperature, (out, out_bias))
        with torch.autocast(device, torch.bfloat16, enabled=low):
            found = ops.transposed_attention(
                x, *parts, groups=2, norm=ops.Norm(norm, norm_bias, True), residual=True, recompute=recompute
            )
        expected = registered("transposed_attention", args, torch.bfloat16 if low else None)
        if device == "cpu":
            torch.testing.assert_close(found, expected)
        else:  # norm and convolution are one kernel where no gradients are recorded, as in the operator
            tolerance = 0.05 if low else 1e-4
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def gradients_of_a_step(config: ModelConfig, device: str, recompute: bool = False) -> dict[str, Tensor]:
    """Of the parameters of a network in training, by their names; the noise is the same on every device."""
    model = untrained(config).requires_grad_(True).train().to(device, memory_format=torch.channels_last)
    for module in model.modules():
        if hasattr(module, "recompute"):
            module.recompute = recompute
    generator = torch.Generator().manual_seed(1)

    def noise(t: Tensor) -> Tensor:
        return torch.rand(t.shape, generator=generator).to(t.device)

    x, quality = torch.rand(2, 3, 48, 64, generator=generator).to(device), torch.tensor([10, 50], device=device)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand_like", noise)
        out = model(x, quality)
    loss = out.y_bpp.sum() + out.z_bpp.sum() + 100 * (out.picture - x).square().mean()
    loss.backward()
    return {name: parameter.grad.cpu() for name, parameter in model.named_parameters()}


@everywhere
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("config", [TINY, TONED], ids=lambda config: config.name)
def test_a_network_learns_by_the_gradients_of_the_definitions(config, recompute, device):
    """Wherever it is, they are those of plain torch on the CPU."""
    with plain_torch():
        expected = gradients_of_a_step(config, "cpu")
    for name, found in gradients_of_a_step(config, device, recompute).items():
        error, scale = ((found - expected[name]).abs().max().item(), expected[name].abs().max().item())
        assert error <= 1e-3 * scale + 1e-7, f"{name}: {error}, where the largest value is {scale}"
