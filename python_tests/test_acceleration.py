"""accelerate and restore_modules: what they recognise, what they leave, and that results stay what they were."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from op_cases import cut_into_strips
from torch import nn

import aicr_ext
from aicr_ext.ops import blocks
from benchmarks.restormer import Attention, Block, FeedForward, LayerNorm, Restormer


def tiny() -> Restormer:
    torch.manual_seed(0)
    return Restormer(dim=16, blocks=(1, 1, 1, 1), heads=(1, 2, 4, 8), refinement=1).eval()


def picture(side: int = 48) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))


class BiasFreeNorm(nn.Module):
    """Restormer's other norm, which does not subtract the mean."""

    class Body(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(dim))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt() * self.weight

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = self.Body(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


class LayerNorm2d(nn.Module):
    """NAFNet's, with parameters of its own and an eps."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim)), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(1, keepdim=True)
        scale = (centred.square().mean(1, keepdim=True) + self.eps).sqrt()
        return centred / scale * self.weight[:, None, None] + self.bias[:, None, None]


class PlainGate(FeedForward):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.dwconv(self.project_in(x)).chunk(2, 1)
        return self.project_out(a * b)


class Tanh(FeedForward):
    """The parameters of a known kind, another gate."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.dwconv(self.project_in(x)).chunk(2, 1)
        return self.project_out(a.tanh() * b)


def test_a_whole_network_gives_the_same_picture_and_back():
    model, x = tiny(), picture()
    keys = list(model.state_dict())
    with torch.no_grad():
        expected = model(x)
        report = aicr_ext.accelerate(model)
        found = model(x)
    assert report.left == {}
    assert sorted(report.replaced.values()) == 8 * ["attention"] + 8 * ["feed-forward"] + 16 * ["norm"]
    assert str(report) == "32 modules run through aicr_ext: 8 attention, 8 feed-forward, 16 norm"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == keys
    with torch.no_grad():
        assert aicr_ext.restore_modules(model) == 32
        assert aicr_ext.restore_modules(model) == 0
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_the_operators_of_this_package_run(monkeypatch):
    model = tiny()
    aicr_ext.accelerate(model)
    calls = []
    monkeypatch.setattr(
        blocks, "gated_depthwise_conv3x3", lambda x, *_, **__: calls.append(x.shape) or x.chunk(2, 1)[0]
    )
    with torch.no_grad():
        model(picture())
    assert len(calls) == 8


def test_strips_may_have_other_channels_and_another_dtype(monkeypatch):
    """What comes out is that of the map as a whole: nothing of the input but its size decides."""
    torch.manual_seed(0)
    narrower = FeedForward(16, 2.0)
    narrower.project_out = nn.Conv2d(32, 6, 1, bias=False)
    x = torch.rand(2, 16, 40, 24)
    for module in (narrower, Attention(16, 2)):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            expected = module(x)
            assert list(aicr_ext.accelerate(module).replaced) == [""]
            whole = module(x)
            cut_into_strips(monkeypatch)
            found = module(x)
            monkeypatch.undo()
        assert found.dtype == whole.dtype == expected.dtype == torch.bfloat16
        assert found.shape == expected.shape
        assert F.mse_loss(found.float(), expected.float()) < 1e-4


def test_large_maps_pass_in_strips(monkeypatch):
    cut_into_strips(monkeypatch)
    model, x = tiny(), picture(64)
    with torch.no_grad():
        expected = model(x)
        aicr_ext.accelerate(model)
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_stay_the_same(recompute):
    model, x = tiny().double(), picture().double()

    def gradients(network: nn.Module) -> list[torch.Tensor]:
        return torch.autograd.grad(network(x).square().sum(), list(network.parameters()))

    accelerated = copy.deepcopy(model)
    aicr_ext.accelerate(accelerated, recompute=recompute)
    torch.testing.assert_close(gradients(accelerated), gradients(model), rtol=1e-7, atol=1e-7)


def kept_by(module: nn.Module, x: torch.Tensor) -> int:
    """Values that a forward pass keeps for the backward pass."""
    total = [0]

    def note(t: torch.Tensor) -> torch.Tensor:
        total[0] += t.numel()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        module(x.requires_grad_())
    return total[0]


def test_recomputing_keeps_less_and_a_second_call_takes_its_own_options():
    module, x = FeedForward(32, 2.66), torch.rand(1, 32, 32, 32)
    aicr_ext.accelerate(module)
    before = kept_by(module, x)
    aicr_ext.accelerate(module, recompute=True)
    assert kept_by(module, x) < before / 3


@pytest.mark.parametrize(
    "make, kind",
    [
        (lambda: Attention(24, 3, bias=True), "attention"),
        (lambda: FeedForward(16, 2.66, bias=True), "feed-forward"),
        (lambda: PlainGate(16, 2.0), "feed-forward"),
        (lambda: LayerNorm(16), "norm"),
        (lambda: BiasFreeNorm(16), "norm"),
        (lambda: LayerNorm2d(16), "norm"),
        (lambda: LayerNorm2d(16, eps=1e-3), "norm"),
    ],
)
def test_variants_are_recognised(make, kind):
    torch.manual_seed(0)
    module = make()
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    channels = next(iter(module.parameters())).shape[0] if kind == "norm" else module.project_out.out_channels
    x = torch.randn(2, channels, 9, 12)
    with torch.no_grad():
        expected = module(x)
        report = aicr_ext.accelerate(module)
        assert (report.replaced, report.left) == ({"": kind}, {})
        torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


def test_what_computes_something_else_is_left_with_a_reason():
    model = nn.Sequential(Tanh(16, 2.0), FeedForward(16, 2.0))
    report = aicr_ext.accelerate(model)
    assert report.replaced == {"1": "feed-forward"}
    assert report.left["0"].startswith("its parameters are those of a known feed-forward, its results are not")
    assert str(report).splitlines()[1].startswith("left 0: its parameters")
    assert "forward" not in vars(model[0])


def test_other_modules_are_nobodys_business():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.LayerNorm(8), nn.GELU())
    report = aicr_ext.accelerate(model)
    assert (report.replaced, report.left) == ({}, {})
    assert str(report) == "0 modules run through aicr_ext"


def test_hooks_and_strange_forwards_are_respected():
    hooked, patched = FeedForward(16, 2.0), FeedForward(16, 2.0)
    hooked.dwconv.register_forward_hook(lambda *_: None)
    patched.forward = lambda x: x
    report = aicr_ext.accelerate(nn.ModuleList([hooked, patched]))
    assert report.left == {
        "0": "its part dwconv has hooks, which would no longer run",
        "1": "its forward method was replaced by somebody else",
    }


def test_hooks_on_the_module_itself_run():
    module, seen = FeedForward(16, 2.0), []
    module.register_forward_hook(lambda *_: seen.append(1))
    aicr_ext.accelerate(module)
    module(torch.rand(1, 16, 8, 8))
    assert seen == [1]


def test_twice_is_once_and_copies_stay_accelerated():
    model = Block(16, 2, 2.0)
    first, second = aicr_ext.accelerate(model), aicr_ext.accelerate(model)
    assert first.replaced == second.replaced
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.ffn.project_out.weight.zero_()
        x = torch.rand(1, 16, 8, 8)
        assert not twin.ffn(x).any()
        assert model.ffn(x).any()
    assert aicr_ext.restore_modules(twin) == 4
    assert aicr_ext.restore_modules(model) == 4


def test_other_calls_reach_the_module_itself():
    norm = LayerNorm2d(4)
    aicr_ext.accelerate(norm)
    with pytest.raises(TypeError, match="forward"):
        norm(torch.rand(1, 4, 2, 2), "more")
    assert norm(torch.rand(4, 2, 2)[None].expand(1, 1, 4, 2, 2)[0]).shape == (1, 4, 2, 2)


def test_dropout_is_left_to_the_module():
    module = FeedForward(16, 2.0)
    module.drop = nn.Dropout(0.0)
    assert aicr_ext.accelerate(module).replaced == {"": "feed-forward"}
    module.drop.p = 0.1
    assert aicr_ext.accelerate(module).left == {"": "it has dropout, which would no longer run in training"}
    assert "forward" not in vars(module)


def test_parameters_without_values_are_left():
    with torch.device("meta"):
        module = FeedForward(16, 2.0)
    assert aicr_ext.accelerate(module).left == {"": "its parameters are on the meta device"}


def test_compile():
    model, x = Block(16, 2, 2.0).eval(), torch.rand(1, 16, 16, 16)
    with torch.no_grad():
        expected = model(x)
        aicr_ext.accelerate(model)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)


def test_export_for_every_size():
    model, size = Block(16, 2, 2.0).eval(), torch.export.Dim("size", min=2, max=4096)
    aicr_ext.accelerate(model)
    with torch.no_grad():
        shapes = ({0: torch.export.Dim("batch"), 2: size, 3: torch.export.Dim("width", min=2, max=4096)},)
        program = torch.export.export(model, (torch.rand(2, 16, 8, 10),), dynamic_shapes=shapes)
        for x in (torch.rand(1, 16, 13, 15), torch.rand(3, 16, 40, 8)):
            torch.testing.assert_close(program.module()(x), model(x), rtol=1e-5, atol=1e-6)
    assert any("gated_depthwise_conv3x3" in str(node.target) for node in program.graph.nodes)


def test_autocast_and_low_precision():
    model, x = Block(16, 2, 2.0).eval(), torch.rand(1, 16, 16, 16)
    with torch.no_grad():
        exact = model(x)
        aicr_ext.accelerate(model)
        with torch.autocast("cpu", torch.bfloat16):
            low = model(x)
        half = model.bfloat16()(x.bfloat16())
    assert F.mse_loss(low.float(), exact) < 1e-3
    assert F.mse_loss(half.float(), exact) < 1e-3


def test_not_a_module():
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
        aicr_ext.accelerate("restormer")


class Windowed(Attention):
    """Attention within windows, which a small map does not tell from attention over the whole of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = [torch.cat([super(Windowed, self).forward(w) for w in r.split(24, 3)], 3) for r in x.split(24, 2)]
        return torch.cat(rows, 2)


def test_attention_in_windows_is_left():
    report = aicr_ext.accelerate(nn.ModuleList([Windowed(16, 2), Attention(16, 2)]))
    assert report.replaced == {"1": "attention"}
    assert report.left["0"].startswith("its parameters are those of a known attention, its results are not")
    sized = Attention(16, 2)
    sized.base_size = (384, 384)
    assert aicr_ext.accelerate(sized).left == {"": "it has a base_size, so it may work in windows"}


def test_copies_compute_with_what_they_hold():
    """As DataParallel makes them: a module of the same class, with other parameters in it."""
    module, x = FeedForward(16, 2.0).eval(), torch.randn(1, 16, 8, 8)
    aicr_ext.accelerate(module)
    replica = module._replicate_for_data_parallel()
    replica._modules = dict(module._modules)
    replica.project_out = nn.Conv2d(module.project_out.in_channels, 16, 1, bias=False)
    nn.init.zeros_(replica.project_out.weight)
    with torch.no_grad():
        assert not replica(x).any()
        assert module(x).any()


def test_pickles_stay_accelerated():
    module, x = FeedForward(16, 2.0).eval(), torch.randn(1, 16, 8, 8)
    plain = copy.deepcopy(module)
    aicr_ext.accelerate(module)
    for other in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert type(other) is type(module)
        assert isinstance(other, FeedForward)
        with torch.no_grad():
            assert torch.equal(other(x), module(x))
        assert aicr_ext.restore_modules(other) == 1
        assert type(other) is FeedForward
        with torch.no_grad():
            torch.testing.assert_close(other(x), plain(x))


class Counted(FeedForward):
    """Says itself how it is copied."""

    def __reduce__(self) -> tuple:
        return Counted, ()

    def __init__(self) -> None:
        super().__init__(16, 2.0)


def test_modules_that_copy_themselves_say_so():
    module = Counted()
    assert aicr_ext.accelerate(module).replaced == {"": "feed-forward"}
    with pytest.raises(pickle.PicklingError, match=r"Counted says itself .*call aicr_ext\.restore_modules before"):
        copy.deepcopy(module)
