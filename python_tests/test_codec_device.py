"""The codec as a GPU would run it: all calls between hyper analysis and synthesis go to the emulated CUDA kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from emulation import emulated, requires_emulation
from golden_models import FOLDER, MODELS, SIZES, decoded_latent
from PIL import Image

import aicr_ext
from aicr_ext import _native, api, errors
from aicr_ext.codec import container, streams
from aicr_ext.codec.checkpoint import hyper_tables, load_model
from aicr_ext.codec.fixed_point import Depthwise, Linear
from aicr_ext.codec.latents import decode_latents, encode_latents
from aicr_ext.codec.priors import IntegerPriors
from aicr_ext.codec.rans import TableSet
from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.model.aicr import AICR
from aicr_ext.model.config import CONFIGS
from aicr_ext.ops import integer, latent, rans

requires_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (torch.cuda.is_available() and _native.HAS_CUDA_OPS), reason="no GPU"),
]


@pytest.fixture(scope="module")
def codec() -> aicr_ext.Codec:
    return aicr_ext.Codec()


@pytest.fixture(scope="module")
def photos(request) -> torch.Tensor:
    """Four parts of the sample photograph, uint8 (4, 3, 96, 128)."""
    whole = np.array(Image.open(request.config.rootpath / "samples" / "kodim23.png").convert("RGB"))
    return torch.from_numpy(
        np.stack([whole[y : y + 96, x : x + 128] for y, x in ((0, 0), (90, 200), (300, 500), (400, 90))])
    ).permute(0, 3, 1, 2)


@contextmanager
def on_the_device() -> Iterator[list[str]]:
    """Within it operators are the emulated ones, and nobody looks for faults before the end; gives the calls of the
    coder, and its copies of bytes to the host."""
    calls: list[str] = []

    def call(name: str, _first: object, *arguments: object) -> object:
        calls.append(name)
        return emulated(name)(*arguments)

    def look(faults: torch.Tensor, names: object = None) -> None:
        calls.append("raise_fault")
        rans.raise_fault(faults, names)

    def fetch(*arguments: object) -> object:
        calls.append("copy")
        return copy(*arguments)

    copy = streams._fetch
    operators = SimpleNamespace(ops=SimpleNamespace(aicr_ext=torch.ops.aicr_ext_emulated))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rans, "_call", call)
        patch.setattr(integer, "torch", operators)
        patch.setattr(latent, "torch", operators)
        patch.setattr(streams, "looks_early", lambda device: False)
        patch.setattr(streams, "raise_fault", look)
        patch.setattr(streams, "_fetch", fetch)
        yield calls


@requires_emulation
def test_bytes_and_pictures_are_those_of_the_cpu(codec, photos, monkeypatch):
    """One stream and several, alone and in a batch."""
    expected = codec.compress(photos, quality=50)
    pictures = codec.decompress(expected)
    sizes = sorted(len(data) for data in expected)
    with on_the_device() as calls:
        assert codec.compress(photos, quality=50) == expected
        assert calls == ["rans_encode", "copy"]
        assert codec.compress(photos[0], quality=50) == expected[0]
        calls.clear()
        decoded = codec.decompress(expected)
        assert calls == ["rans_decode_begin", *["rans_decode_step"] * 5, "rans_decode_end", *["raise_fault"] * 7]
    assert all(map(torch.equal, decoded, pictures))
    monkeypatch.setattr(streams, "STREAM_BYTES", (sizes[0] + sizes[-1]) // 2)
    several = codec.compress(photos, quality=50)
    assert {aicr_ext.read_info(data).streams for data in several} >= {1, 2}
    with on_the_device() as calls:
        assert codec.compress(photos, quality=50) == several
        assert calls == ["rans_encode", "copy"] * 2
        assert all(map(torch.equal, codec.decompress(several), pictures))
        calls.clear()
        assert [codec.compress(photo, quality=50) for photo in photos] == several
        assert calls.count("rans_encode") == 4 + sum(aicr_ext.read_info(data).streams > 1 for data in several)
        assert calls.count("copy") == 4


@requires_emulation
@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.name)
def test_golden_files_decode_to_their_symbols(config, monkeypatch):
    monkeypatch.setitem(CONFIGS, config.name, config)
    codec = aicr_ext.Codec(load_model(FOLDER / f"{config.name}.safetensors"))
    with np.load(FOLDER / f"{config.name}.npz") as arrays:
        files = [arrays[f"{w}x{h}_{q}_data"].tobytes() for w, h, q in SIZES if w in (17, 100, 250)]
    for data in files:
        expected = decoded_latent(codec, data)
        with on_the_device():
            assert torch.equal(decoded_latent(codec, data), expected)


def one_bit_for_the_checksum(codec: aicr_ext.Codec, header: container.Header, coded: list[bytes]) -> tuple[int, int]:
    """Stream and byte whose lowest bit, flipped, nothing but the checksum shows; sought from the ends of streams on."""
    for back, stream in product(range(1, 100), range(len(coded))):
        changed = [bytearray(part) for part in coded]
        changed[stream][-back] ^= 1
        try:
            codec.decompress(container.pack(header, [bytes(part) for part in changed]))
        except errors.ChecksumError:
            return stream, len(coded[stream]) - back
        except errors.BitstreamError:
            pass
    raise AssertionError("no flipped bit leads to the checksum")


@requires_emulation
def test_damage_is_the_same_error_at_the_end(codec, photos, monkeypatch):
    monkeypatch.setattr(streams, "STREAM_BYTES", 300)
    files = codec.compress(photos[:3], quality=60)
    header, coded = container.unpack(files[1])
    assert len(coded) > 1
    made = []
    codec.networks["synthesis"].register_forward_pre_hook(lambda _, args: made.append(len(args[0])))
    rng = np.random.default_rng(5)
    found = set()
    for number in range(13):
        stream = number % len(coded)
        changed = [bytearray(part) for part in coded]
        match number % 3 if number < 12 else 3:
            case 0:
                changed[stream][0] = 7
            case 1:
                changed[stream][rng.integers(len(changed[stream]))] ^= 1 << rng.integers(8)
            case 2:
                changed[stream] += b"\0"
            case 3:
                stream, byte = one_bit_for_the_checksum(codec, header, coded)
                changed[stream][byte] ^= 1
        damaged = container.pack(header, [bytes(part) for part in changed])
        texts = []
        for device in (False, True):
            made.clear()
            with on_the_device() if device else nullcontext(), pytest.raises(errors.BitstreamError) as caught:
                codec.decompress([files[0], damaged, files[2]])
            assert bool(made) == device  # there the picture was on its way already, and did not leave
            texts.append(f"{type(caught.value).__name__} {caught.value}")
        assert texts[0] == texts[1]
        assert " file 2 of 3, stream " in texts[0]
        found.add(texts[0].partition(" ")[0])
    assert len(found) >= 3


@pytest.fixture
def nowhere() -> tuple[AICR, IntegerPriors, TableSet]:
    """Model, priors and tables on a device without values: torch refuses to join tensors of two devices, and whoever
    asks for a value there fails."""
    model = load_model("aicr-t")
    priors, tables = IntegerPriors(model), hyper_tables(model)

    def move(value: object, seen: set[int]) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, (Linear, Depthwise)):
            vars(value).update({name: tensor.to("meta") for name, tensor in vars(value).items()})
        for cell in getattr(value, "__closure__", None) or ():
            move(cell.cell_contents, seen)

    for step in (*priors._hyper, *priors._fusion, *priors._spatial, *priors._detail):
        move(step, set())
    for name in ("_table", "mean_exponent", "zones"):
        setattr(priors, name, getattr(priors, name).to("meta"))
    return model.to("meta"), priors, tables


requires_ops = pytest.mark.skipif(not _native.HAS_OPS, reason="native operators not built")


@requires_ops
def test_decoding_stays_on_the_device(nowhere, monkeypatch):
    """Up to the latents; what was wrong is the first thing that the host asks for."""
    _, priors, tables = nowhere
    with monkeypatch.context() as patch:
        patch.setattr(streams.StreamsDecoder, "finish", lambda self: None)
        coded = [[bytes(100)], [bytes(50), bytes(60)]]
        y, check = decode_latents(priors, tables, coded, 6, 9, torch.device("meta"))
    assert y.is_meta
    assert y.shape == (2, priors.config.components, 6, 9)
    with pytest.raises(NotImplementedError):  # meta tensors have no values to look at
        check.__self__.finish()


@requires_ops
def test_encoding_stays_on_the_device(nowhere, monkeypatch):
    """Up to the one call of the coder, which gets all it needs there."""
    model, priors, tables = nowhere
    called = []

    def encode(*arguments):
        called.extend(arguments)
        raise InterruptedError

    monkeypatch.setattr(streams, "rans_encode", encode)
    with pytest.raises(InterruptedError), torch.no_grad():
        encode_latents(model, priors, tables, torch.empty(3, priors.config.components, 6, 9, device="meta"))
    assert [len(part) for part in called] == [5] * 4
    assert all(tensor.is_meta for part in called for tensor in part)
    assert [tuple(splits.shape) for splits in called[3]] == [(4,)] * 5


def test_where_symbols_are_coded(monkeypatch):
    cuda = torch.device("cuda", 1)
    for built in (True, False):
        monkeypatch.setattr(_native, "HAS_CUDA_OPS", built)
        assert streams.coding_device(cuda) == (cuda if built else torch.device("cpu"))
    assert not streams.looks_early(cuda)
    assert streams.coding_device(torch.device("mps")) == torch.device("cpu")


def test_tables_are_moved_once():
    tables, elsewhere = gaussian_tables(), torch.device("meta")
    assert tables.on(torch.device("cpu")) is tables.tensor
    assert tables.on(elsewhere) is tables.on(elsewhere)
    assert tables.on(elsewhere).device == elsewhere


class TestOnAGPU:
    pytestmark = requires_gpu

    @pytest.fixture(scope="class")
    def there(self) -> aicr_ext.Codec:
        return aicr_ext.Codec(device="cuda")

    def test_files_of_the_cpu_decode_there_and_back(self, codec, there, photos, monkeypatch):
        for most in (streams.STREAM_BYTES, 1000):
            monkeypatch.setattr(streams, "STREAM_BYTES", most)
            ours, theirs = (c.compress(photos, quality=50) for c in (codec, there))
            for data in (*ours, *theirs):
                assert torch.equal(decoded_latent(codec, data), decoded_latent(there, data).cpu())
            for file in (ours, theirs):
                pictures = zip(codec.decompress(file), there.decompress(file), strict=True)
                assert all(torch.allclose(a, b.cpu(), atol=0.02) for a, b in pictures)
            assert there.decompress(ours)[0].is_cuda

    def test_a_picture_there_is_compressed_there(self, codec, there, photos, monkeypatch):
        """Though nobody names the device; the files are almost those of the CPU, and decode on it."""
        asked, usual = [], api._codec
        monkeypatch.setattr(api, "_codec", lambda *arguments: asked.append(str(arguments[1])) or usual(*arguments))
        files, ours = aicr_ext.compress(photos.cuda(), quality=50), codec.compress(photos, quality=50)
        assert [torch.device(name).type for name in asked] == ["cuda"]
        for data, same, picture in zip(files, ours, aicr_ext.decompress(files), strict=True):
            assert len(data) == pytest.approx(len(same), rel=0.02)
            assert torch.equal(decoded_latent(codec, data), decoded_latent(there, data).cpu())
            torch.testing.assert_close(picture, there.decompress(data).cpu(), rtol=0, atol=0.02)
            assert (picture - codec.decompress(same)).abs().mean() < 0.005

    def test_a_search_there_is_worth_as_much(self, codec, there, photos):
        """Of pictures together; the files decode on the CPU."""
        plain, ours, theirs = (
            c.compress(photos, quality=50, effort=e) for c, e in ((codec, 0), (codec, 4), (there, 4))
        )
        for before, same, data in zip(plain, ours, theirs, strict=True):
            assert data != before
            assert len(data) == pytest.approx(len(same), rel=0.02)
            assert torch.equal(decoded_latent(codec, data), decoded_latent(there, data).cpu())
            assert (codec.decompress(data) - codec.decompress(same)).abs().mean() < 0.005

    def test_the_same_latent_gives_the_same_bytes(self, codec, there, photos, monkeypatch):
        """Symbols and table indices from z on; that alone is floating point."""
        with torch.no_grad():
            y = torch.cat([codec.latent(photo, 50) for photo in photos])
            z = torch.cat([codec.model.hyper_analysis(codec.model.y_and_detail(one)[0]) for one in y.split(1)])
            for c in (codec, there):
                monkeypatch.setattr(c.model, "hyper_analysis", lambda y: z.to(y.device)[: len(y)])
            monkeypatch.setattr("aicr_ext.codec.latents.of_each", lambda function, *inputs: function(*inputs))
            assert codec._encode_latents(y) == there._encode_latents(y.cuda())

    def test_decoding_does_not_wait(self, codec, there, photos):
        data = codec.compress(photos, quality=50)
        there.decompress(data)  # copies tables
        coded = [container.unpack(one)[1] for one in data]
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.no_grad():
                _, check = decode_latents(there._priors, there._hyper_tables, coded, 6, 8, there.device)
        finally:
            torch.cuda.set_sync_debug_mode(before)
        check()

    def test_damage_is_the_same_error(self, codec, there, photos):
        data = codec.compress(photos[0], quality=50)
        header, (coded,) = container.unpack(data)
        for changed in (b"\7" + coded[1:], bytes(coded) + b"\0", bytes(coded[:60]) + bytes(40) + bytes(coded[100:])):
            texts = []
            for c in (codec, there):
                with pytest.raises(errors.BitstreamError) as caught:
                    c.decompress([data, container.pack(header, [bytes(changed)])])
                texts.append(f"{type(caught.value).__name__} {caught.value}")
            assert texts[0] == texts[1]
