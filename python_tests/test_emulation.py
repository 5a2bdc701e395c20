"""The host execution of CUDA kernels itself: what kernels can do there, and which mistakes it finds."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from emulation import LIBRARY, SEEDS, launches, requires_emulation, seeded, self_test

pytestmark = requires_emulation

GARBAGE = -0x32323233  # 0xcdcdcdcd
SANITIZED = LIBRARY is not None and b"__asan_init" in LIBRARY.read_bytes()


def ints(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int32)


@pytest.mark.parametrize("memory", ["static_memory", "dynamic_memory"])
def test_a_barrier_keeps_order(memory):
    for seed in range(6):
        out = ints(96)
        with seeded(seed):
            assert self_test(memory, 1, out=out) == ""
        assert out.tolist() == [*range(2, 97), 1]


@pytest.mark.parametrize("memory", ["static_memory", "dynamic_memory"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_missing_barrier_shows(memory, seed):
    """Whatever is read too early is garbage, not what an earlier block or launch has left."""
    if SANITIZED and memory == "static_memory":
        pytest.skip("AddressSanitizer guards static shared memory, which then keeps what was in it")
    out = ints(96)
    with seeded(seed):
        assert self_test(memory, 1, out=out) == ""
        assert self_test(memory, 0, out=out) == ""
    assert (out == GARBAGE + 1).any()


def test_blocks_find_garbage():
    out = ints(2, 2)
    assert self_test("garbage", 4, out=out) == ""
    assert out[:, 1].tolist() == [GARBAGE] * 2
    if not SANITIZED:
        assert out[:, 0].tolist() == [GARBAGE] * 2


@pytest.mark.parametrize(
    "variant, message",
    [
        (0, r"thread \(.*\) waits at __syncthreads, self_test.cu:\d+, while thread \(40, 0, 0\) has ended"),
        (1, r"thread \(0, 0, 0\) waits at __syncthreads, .*, while thread \(40, 0, 0\) waits at __syncthreads"),
        (2, r"__syncwarp, self_test.cu:\d+, (while|with lane \d+ in the mask, which waits at __syncthreads)"),
    ],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_divergent_barriers(variant, message, seed):
    with seeded(seed):
        found = self_test("divergent", variant, out=ints(96))
    assert found.startswith("kernel divergent_kernel, block (0, 0, 0): thread (")
    assert re.search(message, found), found


@pytest.mark.parametrize(
    "variant, message",
    [
        (0, "a mask that lacks its own lane"),
        (1, r"(lane 3 in the mask, which has ended|while thread \(3, 0, 0\) has ended)"),
        (2, "names lane 8, which the block has not"),
        (3, "in the mask, which waits at __any_sync, .* with another mask"),
        (4, "in the mask, which waits at __shfl_sync"),
        (5, "lane [0-7] reads from lane 9, which is not in the mask"),
        (6, r"__syncwarp, .*(while thread \(3, 0, 0\)|lane 3 in the mask, which) waits at __syncthreads"),
    ],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_wrong_masks(variant, message, seed):
    with seeded(seed):
        found = self_test("mask", variant, out=ints(32))
    assert re.search(message, found), found


def test_after_an_error_kernels_run_again():
    out = ints(96)
    for _ in range(3):
        assert self_test("divergent", 0, out=out)
        assert self_test("dynamic_memory", 1, out=out) == ""
        assert out.tolist() == [*range(2, 97), 1]


def test_shared_memory_is_limited():
    limit = 227 * 1024
    assert self_test("garbage", limit, out=ints(2, 2)) == ""
    assert self_test("garbage", limit + 1, out=ints(2, 2)) == (
        f"kernel garbage_kernel: a block has {limit} bytes of shared memory at most, got {limit + 1}"
    )


@pytest.mark.skipif(SANITIZED, reason="AddressSanitizer ends the program there")
def test_writing_behind_shared_memory():
    assert self_test("overrun", 3) == ""
    assert self_test("overrun", 4).endswith("wrote behind the end of its dynamic shared memory")


@pytest.mark.skipif(not SANITIZED, reason="built without AddressSanitizer")
@pytest.mark.parametrize("memory", ["overrun", "static_overrun"])
def test_the_sanitizer_watches_shared_memory(memory):
    program = f"from emulation import self_test; assert not self_test('{memory}', 3); self_test('{memory}', 4)"
    folder = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"{memory}_kernel" in done.stderr
    assert re.search("ERROR: AddressSanitizer|runtime error", done.stderr)


def test_grids_and_blocks_are_limited():
    assert "1 to 1024 threads" in self_test("threads", 1025, out=ints(2))
    assert "1 to 1024 threads" in self_test("threads", 0, out=ints(2))
    assert "must have 1 to 2^31 - 1 blocks" in self_test("blocks", 0)
    assert self_test("blocks", 3) == ""


@pytest.mark.parametrize("seed", SEEDS)
def test_warps(seed):
    out = ints(96, 16)
    with seeded(seed):
        assert self_test("warp", out=out) == ""
    for t in range(96):
        warp, lane = t // 32, t % 32
        lanes = range(32 * warp, 32 * warp + 32)
        thirds = sum(1 << i for i, u in enumerate(lanes) if u % 3 == 0)
        expected = [
            sum(lanes),
            lane + 1,
            t + 5 if t % 16 < 11 else t,
            t // 8 * 8 + 2,
            thirds,
            warp == 1,
            warp < 2,
            0xAA if lane < 8 else 0xAAAAAA00,
            20,
            1,
            0,
            sum(range(96)) if t == 0 else 0,
            sum(lanes),
            2**32 - 1,
            100 - lanes[-1],
            100 - lanes[0],
        ]
        assert [number % 2**32 for number in out[t].tolist()] == expected, t


def test_coordinates():
    out = ints(12, 24)
    assert self_test("coordinates", out=out) == ""
    assert (out == 1).all()


def test_copies_are_there_once_waited_for():
    given, out = torch.arange(1, 129).int(), ints(32, 8)
    assert self_test("copy", 0, given, out) == ""
    assert torch.equal(out[:, :4], given.view(32, 4))
    assert (out[:, 4:] == 0).all()


def test_copies_not_waited_for_show():
    given, out = torch.arange(1, 129).int(), ints(32, 8)
    assert self_test("copy", 1, given, out) == ""
    assert (out == GARBAGE).all()
    assert self_test("copy", 2, given, out) == ""  # waits for the first group only
    assert torch.equal(out[:, :4], given.view(32, 4))
    assert (out[:, 4:] == GARBAGE).all()
    assert "ends with copies to shared memory that it did not wait for" in self_test("copy", 3, given, out)


@pytest.mark.parametrize("variant, dtype", [(0, torch.bfloat16), (1, torch.float16), (2, torch.float16)])
def test_matrix_products(variant, dtype):
    """Rows and columns told apart, and 16-bit factors whose products float32 holds exactly."""
    generator = torch.Generator().manual_seed(variant)
    a, b = torch.randn(16, 16, generator=generator), torch.randn(16, 8, generator=generator)
    out = torch.zeros(16, 8)
    given = torch.cat([a.flatten(), (b.T if variant == 2 else b).flatten()])
    assert self_test("product", variant, given, out) == ""
    exact = a.to(dtype).double() @ b.to(dtype).double()
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant, signed", list(enumerate(itertools.product((True, False), repeat=2))))
def test_matrix_products_of_bytes(variant, signed):
    """Exact, of signed and unsigned bytes, and modulo 2**32."""
    generator = torch.Generator().manual_seed(variant)
    given = torch.randint(0, 256, (24, 32), generator=generator, dtype=torch.uint8)
    given[:2] = given[16:18] = 0x80
    start = torch.randint(-(2**31), 2**31, (16, 8), generator=generator).int()
    out = start.clone()
    assert self_test("byte_product", variant, given, out) == ""
    a, b = (part.view(torch.int8) if s else part for part, s in zip((given[:16], given[16:]), signed, strict=True))
    assert torch.equal(out, (start.long() + a.long() @ b.long().T).int())


def test_addresses_of_matrices():
    assert "no multiple of 16" in self_test("address", 0, ints(4))
    if not SANITIZED:
        assert "not in shared memory" in self_test("address", 1, ints(4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding(dtype):
    """Every number of the type, what lies halfway to the next and beside that, and what float32 has besides."""
    every = torch.arange(-(2**15), 2**15).short().view(dtype).float()
    every = every[every.isfinite()].unique()
    halfway = (every[1:] + every[:-1]) / 2
    special = torch.tensor([65519.9, 65520.0, 65536.0, 1e-30, 1e-45, 3e38, float("inf"), float("nan")])
    generator = torch.Generator().manual_seed(0)
    anything = torch.randint(-(2**31), 2**31, (50_000,), generator=generator).int().view(torch.float32)
    parts = [every, halfway, halfway.nextafter(every[1:]), halfway.nextafter(every[:-1]), special, -special, anything]
    given = torch.cat(parts)
    out = torch.empty_like(given)
    assert self_test(f"round_{str(dtype).rpartition('.')[2]}", given.numel(), given, out) == ""
    expected = given.to(dtype).float()
    assert torch.equal(out.isnan(), expected.isnan())
    assert torch.equal(out.nan_to_num(0), expected.nan_to_num(0))
    assert torch.equal(out.signbit()[~out.isnan()], expected.signbit()[~out.isnan()])


def test_launches_are_counted():
    before = launches().get("warp_kernel", 0)
    assert self_test("warp", out=ints(96, 16)) == ""
    assert launches()["warp_kernel"] == before + 1
