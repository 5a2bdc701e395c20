"""The operators depthwise_gram and fold_channel_attention: derivatives, registration, arguments, and their use."""

from __future__ import annotations

import pytest
import torch
from cuda_cases import DTYPES, PLACES, draw, fold_arguments, named, run, wide
from emulation import SEEDS, requires_emulation, seeded
from op_cases import LAYOUTS, assert_no_worse, requires_ops
from torch.utils.flop_counter import FlopCounterMode

from aicr_ext import _native
from aicr_ext.ops import Norm, block_paths, blocks, depthwise_gram, fold_channel_attention
from aicr_ext.ops.kernels import plain_torch
from aicr_ext.ops.reference import depthwise_gram_reference, fold_channel_attention_reference
from benchmarks import ops
from benchmarks.op_cases import depthwise_conv3x3_case, depthwise_gram_case, fold_channel_attention_case

everywhere = pytest.mark.parametrize("place", PLACES)
# Batch, groups, channels of a group and outputs: below, at and above a tile of 32, and more than a warp reads at once.
FOLDS = [(1, 1, 1, 1), (3, 2, 5, 7), (1, 4, 32, 128), (2, 3, 33, 31), (1, 1, 100, 65), (1, 2, 130, 3)]


def gram_arguments(shape=(2, 12, 5, 6), dtype=torch.float32, layout="nchw", bias=True):
    maps = draw(*shape).to(dtype).to(memory_format=LAYOUTS[layout])
    return maps, draw(shape[1], 1, 3, 3).to(dtype), draw(shape[1], seed=1).to(dtype) if bias else None, 2


def check_fold(args, place):
    (out,) = run("fold_channel_attention", args, place)
    assert_no_worse(out, fold_channel_attention_reference(*args), fold_channel_attention_reference(*wide(args)))
    return out


@everywhere
@pytest.mark.parametrize("dtype", DTYPES, ids=named)
@pytest.mark.parametrize("size", FOLDS, ids=str)
def test_fold_matches_the_definition(size, dtype, place):
    args = fold_arguments(*size, dtype, place)
    out = check_fold(args, place)
    assert out.dtype == torch.float32
    batch, groups, depth, outputs = size
    assert out.shape == (batch, outputs, groups * depth)
    check_fold((*args[:3], args[3].float(), args[4]), place)


@everywhere
def test_fold_of_views(place):
    scores, q_norm, k_norm, temperature, weight = fold_arguments(3, 2, 20, 9, place=place)
    check_fold(
        (scores.transpose(2, 3), q_norm.flip(2), k_norm[:1].expand(3, -1, -1), temperature.flatten(), weight), place
    )


@everywhere
def test_fold_of_channels_that_are_zero(place):
    """They have no direction: their scores count as 0, and those of others stay finite."""
    scores, q_norm, k_norm, temperature, weight = fold_arguments(1, 2, 6, 4, place=place)
    scores[:, :, 2], scores[:, :, :, 3], q_norm[:, :, 2], k_norm[:, :, 3] = 0, 0, 0, 0
    assert check_fold((scores, q_norm, k_norm, temperature, weight), place).isfinite().all()


@everywhere
@pytest.mark.parametrize("size", [(0, 2, 4, 4), (2, 2, 0, 4), (2, 2, 4, 0)], ids=str)
def test_fold_of_nothing(size, place):
    (out,) = run("fold_channel_attention", fold_arguments(*size, place=place), place)
    assert out.shape == (size[0], size[3], size[1] * size[2])


@requires_emulation
def test_fold_in_any_order_of_threads():
    args = fold_arguments(2, 2, 40, 50)
    results = []
    for seed in (*SEEDS, SEEDS[0]):
        with seeded(seed):
            results += run("fold_channel_attention", args, "emulated")
    assert all(torch.equal(results[0], other) for other in results[1:])


@everywhere
@pytest.mark.parametrize(
    "place_of, value, message",
    [
        (0, torch.zeros(2, 3, 4, 5), r"scores must be \(B, groups, C / groups, C / groups\), got 4 .* of other sizes"),
        (0, torch.zeros(2, 3, 4), r"scores must be \(B, groups, C / groups, C / groups\), got 3"),
        (1, torch.zeros(2, 3, 5), r"q_norm must have the shape \(2, 3, 4\), got 3 dimension\(s\) of other sizes"),
        (2, torch.zeros(2, 3, 4).half(), "k_norm must be of the dtype of scores, Float, got Half"),
        (3, torch.zeros(2), "temperature must have 3 values, one per group, got 2"),
        (3, torch.zeros(3).half(), "temperature must be float32 or of the dtype of project_out"),
        (4, torch.zeros(5, 11, 1, 1), r"project_out must have the shape \(N, 12, 1, 1\), got 4"),
        (4, torch.zeros(5, 12, 1, 1).double(), "project_out must be float32, bfloat16 or float16 on CUDA, got Double"),
    ],
)
def test_bad_arguments_of_fold(place_of, value, message, place):
    args = list(fold_arguments(place=place))
    args[place_of] = value.to(args[0].device)
    with pytest.raises(RuntimeError, match=f"fold_channel_attention: {message}"):
        run("fold_channel_attention", tuple(args), place)


@everywhere
def test_fold_refuses_what_does_not_fit(place):
    with pytest.raises(RuntimeError, match="scores must be float32 on CUDA, got Double"):
        run("fold_channel_attention", fold_arguments(dtype=torch.float64, place=place), place)
    with pytest.raises(RuntimeError, match="groups may have 2048 channels on CUDA, got 2049"):
        run("fold_channel_attention", fold_arguments(1, 1, 2049, 1, place=place), place)


# Derivatives, compilation, registration


@requires_ops
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_gram(layout, bias):
    qk, weight, offsets, groups = gram_arguments((2, 4, 3, 2), torch.float64, layout, bias)
    inputs = [t.requires_grad_() for t in (qk, weight, offsets) if t is not None]

    def run(qk, weight, offsets=None):
        return torch.ops.aicr_ext.depthwise_gram(qk, weight, offsets, groups)

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


@requires_ops
def test_gradients_of_fold():
    inputs = [t.requires_grad_() for t in fold_arguments(2, 2, 3, 2, torch.float64)]
    assert torch.autograd.gradcheck(torch.ops.aicr_ext.fold_channel_attention, inputs)
    assert torch.autograd.gradgradcheck(torch.ops.aicr_ext.fold_channel_attention, inputs)


@requires_ops
def test_gradients_have_the_dtypes_of_their_tensors():
    qk, weight, bias, groups = gram_arguments(dtype=torch.bfloat16)
    weight, bias = weight.float(), bias.float()
    inputs = [t.requires_grad_() for t in (qk, weight, bias)]
    sums = depthwise_gram(*inputs, groups=groups)
    *_, temperature, project_out = (t.requires_grad_() for t in fold_arguments(2, 2, 3, 4, torch.bfloat16))
    fold_channel_attention(*sums, temperature, project_out).sum().backward()
    for t in (*inputs, temperature, project_out):
        assert t.grad.dtype == t.dtype


@requires_ops
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=named)
def test_derivatives_agree_with_those_of_the_definitions(dtype):
    qk, weight, bias, groups = gram_arguments((2, 24, 9, 10), dtype)
    *_, temperature, project_out = fold_arguments(2, 2, 6, 8, dtype)
    leaves = (qk, weight, bias, temperature, project_out)

    def gradients(gram, fold, dtype):
        own = [t.detach().to(dtype).requires_grad_() for t in leaves]
        out = fold(*gram(*own[:3], groups), *own[3:])
        return torch.autograd.grad(out, own, draw(*out.shape).to(out.dtype))

    native = torch.ops.aicr_ext
    ours = gradients(native.depthwise_gram, native.fold_channel_attention, dtype)
    eager = gradients(depthwise_gram_reference, fold_channel_attention_reference, dtype)
    exact = gradients(depthwise_gram_reference, fold_channel_attention_reference, torch.float64)
    for triple in zip(ours, eager, exact, strict=True):
        assert_no_worse(*triple)


@requires_ops
def test_autocast_changes_neither_results_nor_gradients():
    """Where gradients are formed under it, too."""
    arguments = [*gram_arguments()[:3], *fold_arguments(2, 2, 3, 4)[3:]]

    def results(low):
        inputs = [t.clone().requires_grad_() for t in arguments]
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            sums = depthwise_gram(*inputs[:3], groups=2)
            out = fold_channel_attention(*sums, *inputs[3:])
            first = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        return [*sums, out, *first, *second]

    low, expected = results(True), results(False)
    assert all(t.dtype == torch.float32 for t in low)
    assert all(map(torch.equal, low, expected))


def test_autocast_does_not_change_the_definitions():
    gram, folding = gram_arguments(), fold_arguments()
    expected = [*depthwise_gram_reference(*gram), fold_channel_attention_reference(*folding)]
    with plain_torch(), torch.autocast("cpu", torch.bfloat16):
        found = [*depthwise_gram(*gram[:3], groups=gram[3]), fold_channel_attention(*folding)]
        names = ("scores", "q_norm", "k_norm", "temperature", "project_out")
        by_name = fold_channel_attention_reference(**dict(zip(names, folding, strict=True)))
    assert all(map(torch.equal, [*found, by_name], [*expected, expected[-1]]))


@requires_ops
@pytest.mark.parametrize("layout, bias", [("nchw", True), ("channels_last", False)])
def test_opcheck_of_gram(layout, bias):
    qk, weight, offsets, groups = gram_arguments(layout=layout, bias=bias)
    op = torch.ops.aicr_ext.depthwise_gram.default
    torch.library.opcheck(op, (qk[:, :, 1:3], weight, offsets, groups), test_utils="test_faketensor")
    torch.library.opcheck(op, (qk.requires_grad_(), weight.requires_grad_(), offsets, groups))


@requires_ops
def test_opcheck_of_fold():
    folding = tuple(t.requires_grad_() for t in fold_arguments())
    torch.library.opcheck(torch.ops.aicr_ext.fold_channel_attention.default, folding)


@requires_ops
def test_compile():
    qk, weight, _, groups = gram_arguments(layout="channels_last", bias=False)
    *_, temperature, project_out = fold_arguments(2, 2, 3, 4)

    def step(x):
        return fold_channel_attention(*depthwise_gram(x * 2, weight, groups=groups), temperature, project_out).sum()

    ours, eager = (qk.clone().requires_grad_() for _ in range(2))
    torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)(ours).backward()
    step(eager).backward()
    torch.testing.assert_close(ours.grad, eager.grad)


@requires_ops
def test_flops():
    with FlopCounterMode(display=False) as count:
        depthwise_gram(*gram_arguments((2, 12, 5, 6))[:2], groups=2)
    assert count.get_total_flops() == 2 * 5 * 6 * (2 * 9 * 12 + 2 * 6 * 3)
    folding = fold_arguments(2, 3, 4, 5)
    with FlopCounterMode(display=False) as count:
        fold_channel_attention(*folding)
    assert count.get_total_flops() == 2 * 2 * 5 * 12 * 4


def test_without_native_operators_the_definitions_run(monkeypatch):
    qk, weight, bias, groups = gram_arguments()
    sums = depthwise_gram_reference(qk, weight, bias, groups)
    folding = fold_arguments()
    folded = fold_channel_attention_reference(*folding)
    with plain_torch():
        assert all(map(torch.equal, depthwise_gram(qk, weight, bias, groups=groups), sums))
        assert torch.equal(fold_channel_attention(*folding), folded)
    monkeypatch.setattr(_native, "HAS_OPS", False)
    assert all(map(torch.equal, depthwise_gram(qk, weight, bias, groups=groups), sums))
    assert torch.equal(fold_channel_attention(*folding), folded)


# Their use


@requires_emulation
@requires_ops
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [True, False])
def test_transposed_attention_on_cuda(bias, layout, monkeypatch):
    """The branch that a GPU takes, its kernels run on the host, against that of the CPU."""
    c, groups = 12, 3
    x = draw(2, c, 9, 11).contiguous(memory_format=LAYOUTS[layout])

    def projection(*size):
        return draw(*size), draw(size[0], seed=1) if bias else None

    args = (x, projection(3 * c, c, 1, 1), projection(3 * c, 1, 3, 3), draw(groups).abs(), projection(c, c, 1, 1))
    options = {"groups": groups, "norm": Norm(draw(c)), "residual": True}
    expected = blocks.transposed_attention(*args, **options)
    asked = []

    def on_cuda(t):
        asked.append(t)
        return True

    def gram(qk, weight, bias, *, groups):
        return run("depthwise_gram", (qk, weight, bias, groups), "emulated")

    monkeypatch.setattr(block_paths, "has_channel_kernels", on_cuda)
    monkeypatch.setattr(blocks, "depthwise_gram", gram)
    monkeypatch.setattr(blocks, "fold_channel_attention", lambda *a: run("fold_channel_attention", a, "emulated")[0])
    got = blocks.transposed_attention(*args, **options)
    assert len(asked) == 1
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@requires_ops
def test_the_cpu_does_not_take_that_branch():
    assert not block_paths.has_channel_kernels(torch.zeros(1, 2, 3, 3))


@requires_ops
@pytest.mark.parametrize(
    "case",
    [depthwise_gram_case((1, 8, 5, 6), 2), fold_channel_attention_case(8, 2), depthwise_conv3x3_case((1, 3, 5, 6))],
)
def test_they_can_be_benchmarked(case):
    """On a GPU benchmarks.ops measures them; nothing else calls these cases."""
    rows = ops.run(case, torch.bfloat16, "cpu", 0, compiled=False)
    assert [row["layout"] for row in rows] == list(case.layouts)
    assert all(row["us"] > 0 and row["backward us"] > 0 for row in rows)
