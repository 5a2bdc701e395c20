"""Files and streams damaged at random: always a typed error, never another picture, a crash or much memory.

``make fuzz`` does the same by coverage, for as long as one likes; what it found worth keeping is replayed here.
"""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
import torch
from coder_cases import draw, mixed_tables
from file_cases import Files, tiny_files, with_crc
from fuzz_inputs import CHECKS, CORPUS, check_tables, decoded, encoded
from hypothesis import given, settings
from hypothesis import strategies as st

import aicr_ext
from aicr_ext.codec.container import MAX_PIXELS, MAX_SIDE, Header, pack, read_info, unpack
from aicr_ext.codec.rans import Encoder
from aicr_ext.errors import BitstreamError
from aicr_ext.profiling.memory import added_memory, measures_memory

ERRORS = ("TruncatedError", "ChecksumError", "FormatError")

measures_peaks = pytest.mark.skipif(not measures_memory(), reason="/proc/self/clear_refs cannot be written")


@pytest.fixture(scope="module")
def files() -> Files:
    with tiny_files() as made:
        yield made


def corpus(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def varint(value: int) -> bytes:
    groups = [value >> 7 * k & 127 for k in range(max(1, -(-value.bit_length() // 7)))]
    return bytes(group | 128 for group in groups[:-1]) + bytes(groups[-1:])


# The corpus of `make fuzz`


@pytest.mark.parametrize("target", CHECKS)
def test_corpus(target):
    outcomes = [CHECKS[target](data) for data in corpus(target)]
    if target == "tables":
        words = ("coded", "1 to 256 tables", "at most 64", "sizes", "offsets", "shifts", "at least 1", "sum to")
        assert all(any(word in outcome for outcome in outcomes) for word in words)
    else:
        assert target != "decoder" or "decoded" in outcomes
        assert all(any(outcome.startswith(error) for outcome in outcomes) for error in ERRORS)


def test_corpus_of_files(files):
    outcomes = {files.check(data) for data in corpus("container")}
    assert outcomes >= {*ERRORS, "ImageTooLargeError", "ModelMismatchError", "UnsupportedVersionError"}
    assert [files.check(data) for data in files.pictures] == ["decoded"] * len(files.pictures)


def test_the_corpus_is_small():
    assert sum(len(data) for target in (*CHECKS, "container") for data in corpus(target)) < 16_000


@pytest.mark.parametrize(
    "environment, words",
    [
        ({"CLANG": "no-such-clang++"}, "no no-such-clang++ found (Debian 12: apt-get install clang-14"),
        ({"MINUTES": "soon"}, "MINUTES must be a positive number, got 'soon'"),
        ({"MINUTES": "0"}, "MINUTES must be a positive number, got '0'"),
    ],
)
def test_what_is_missing_is_named(environment, words, request):
    script = request.config.rootpath / "csrc" / "fuzz" / "run.sh"
    arguments = [environment["MINUTES"]] if "MINUTES" in environment else []
    done = subprocess.run(
        ["bash", str(script), *arguments], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", **environment}
    )
    assert done.returncode == 2
    assert words in done.stderr


# Files


def damage(data: st.DataObject, whole: bytes, other: bytes) -> bytes:
    """``whole`` cut, extended, with bits or bytes changed, or joined with ``other``."""
    at = data.draw(st.integers(0, len(whole)))
    match data.draw(st.sampled_from(("cut", "extend", "flip", "overwrite", "remove", "splice"))):
        case "cut":
            return whole[:at]
        case "extend":
            return whole + data.draw(st.binary(min_size=1, max_size=40))
        case "flip":
            changed = bytearray(whole)
            for bit in data.draw(st.sets(st.integers(0, 8 * len(whole) - 1), min_size=1, max_size=5)):
                changed[bit // 8] ^= 1 << bit % 8
            return bytes(changed)
        case "overwrite":
            piece = data.draw(st.binary(min_size=1, max_size=40))
            return whole[:at] + piece + whole[at + len(piece) :]
        case "remove":
            return whole[:at] + whole[at + data.draw(st.integers(1, 40)) :]
    return whole[:at] + other[data.draw(st.integers(0, len(other))) :]


@given(data=st.data(), repaired=st.booleans())
@settings(max_examples=250, deadline=None)
def test_damaged_files(files, data, repaired):
    """With the checksum put right, too: the rest of the format has to see it then."""
    originals = list(files.pictures)
    changed = damage(data, *(data.draw(st.sampled_from(originals)) for _ in range(2)))
    if repaired:
        changed = with_crc(changed[:-4])
    outcome = files.check(changed)
    assert repaired or (outcome == "decoded") == (changed in originals)
    assert outcome != "forged" or repaired


def test_every_single_bit_of_a_file(files):
    """Through to the picture, of one stream and of several; ``test_container`` does it for the container alone."""
    several = [data for data in files.pictures if read_info(data).streams > 1]
    assert len(several) == 1
    for original in (min(files.pictures, key=len), *several):
        for bit in range(8 * len(original)):
            changed = bytearray(original)
            changed[bit // 8] ^= 1 << bit % 8
            assert files.check(bytes(changed)).endswith("Error")
            files.check(with_crc(bytes(changed[:-4])))


@given(
    numbers=st.lists(
        st.integers(0, 2**35 - 1) | st.sampled_from((0, 1, MAX_SIDE, MAX_SIDE + 1)), min_size=3, max_size=3
    ),
    payload=st.binary(max_size=20),
    honest=st.booleans(),
)
def test_headers_that_lie(numbers, payload, honest):
    """Any sides and length behind a right checksum: an error, or they were the truth."""
    width, height, size = numbers[0], numbers[1], len(payload) if honest else numbers[2]
    body = pack(Header("aicr-t", b"abcd", 7, 1, 1), [b""])[:12]
    data = with_crc(body + varint(width) + varint(height) + varint(size) + payload)
    try:
        header, (section,) = unpack(data)
    except BitstreamError:
        assert not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and size == len(payload)) or (
            width * height > MAX_PIXELS
        )
        return
    assert (header.width, header.height, bytes(section)) == (width, height, payload)
    assert read_info(data).total_bytes == len(data)


@measures_peaks
def test_memory_is_seen_after_a_higher_peak():
    """To a few pages, which the kernel counts late."""
    torch.zeros(96 << 18)
    assert 60 < added_memory(lambda: torch.zeros(64 << 18).sum().item())[1] / 2**20 < 90
    assert added_memory(lambda: None)[1] < 8 << 20


@measures_peaks
@pytest.mark.parametrize("payload", [b"", Encoder().finish(), bytes(1000)], ids=["empty", "no symbols", "zeros"])
def test_a_large_picture_of_few_bytes_takes_little_memory(payload):
    """The largest that ``max_pixels`` lets pass: what the networks would need must not be made before the symbols."""
    codec = aicr_ext.Codec()
    data = pack(Header(codec.name, codec.weight_hash, 32, 1 << 14, 1 << 13), [payload])

    def refused() -> None:
        with pytest.raises(BitstreamError):
            codec.decompress(data)

    assert added_memory(refused)[1] < 32 << 20


# Streams


@pytest.fixture(scope="module")
def streams():
    """Two segments each, of the same tables: bytes, symbols, indices."""
    made, tables = [], mixed_tables()
    for seed, lanes in ((1, 8), (2, 8), (3, 32)):
        rng = np.random.default_rng(seed)
        symbols, indices = zip(*(draw(rng, tables, count, 0.05) for count in (90, 140)), strict=True)
        made.append((encoded(symbols, indices, tables, lanes), symbols, indices))
    return tables, made


@given(data=st.data())
@settings(max_examples=250, deadline=None)
def test_damaged_streams(streams, data):
    tables, made = streams
    whole, symbols, indices = data.draw(st.sampled_from(made))
    changed = damage(data, whole, data.draw(st.sampled_from(made))[0])
    outcome = decoded(changed, indices, tables)
    if changed == whole:
        assert outcome == [part.tobytes() for part in symbols]
    else:
        assert isinstance(outcome, str)
        assert outcome.startswith(ERRORS)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_lengths_that_lie(streams, data):
    """Sections of other lengths, most of which fit, so that one is read as part of another."""
    tables, made = streams
    whole, _, indices = data.draw(st.sampled_from(made))
    lanes, rest = whole[0], whole[1:]
    lengths = []
    for _ in range(2):
        size = next(k for k, byte in enumerate(rest) if byte < 128) + 1
        lengths.append(sum((byte & 127) << 7 * k for k, byte in enumerate(rest[:size])))
        rest = rest[size:]
    total = len(rest) - 4 * lanes
    assert total >= 2 * lengths[0] + lengths[1]
    words = data.draw(st.integers(0, total // 2))
    lies = [words, data.draw(st.integers(0, total - 2 * words))]
    if data.draw(st.integers(0, 4)) == 0:
        lies[data.draw(st.integers(0, 1))] = data.draw(st.integers(0, 2**35 - 1))
    outcome = decoded(bytes([lanes]) + b"".join(map(varint, lies)) + rest, indices, tables)
    assert isinstance(outcome, str) == (lies != lengths)
    assert lies == lengths or outcome.startswith(ERRORS)


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_segments_of_other_lengths(streams, data):
    """A stream says nothing of its segments: asked for others, it gives an error or, by luck, the right symbols."""
    tables, made = streams
    whole, symbols, indices = data.draw(st.sampled_from(made))
    index = np.concatenate(indices)
    more = data.draw(st.integers(-5, 5))
    index = np.concatenate([index, np.full(more, 3, np.uint8)]) if more > 0 else index[: len(index) + more]
    cut = data.draw(st.integers(0, len(index)))
    outcome = decoded(whole, [index[:cut], index[cut:]], tables)
    if more == 0 and cut == len(indices[0]):
        assert isinstance(outcome, list)
    if isinstance(outcome, list):
        assert b"".join(outcome) == b"".join(part.tobytes() for part in symbols)
    else:
        assert outcome.startswith(ERRORS)


@given(st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_tables(data):
    check_tables(data)
