"""One model, loaded once: pictures to file bytes and back."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aicr_ext.codec import container
from aicr_ext.codec.checkpoint import hyper_tables, load_model
from aicr_ext.codec.graphs import GraphCache, capture_cuda
from aicr_ext.codec.heap import keep_freed_blocks
from aicr_ext.codec.latents import decode_latents, encode_latents, of_each
from aicr_ext.codec.priors import IntegerPriors
from aicr_ext.codec.tables import gaussian_tables
from aicr_ext.errors import BitstreamError, ModelMismatchError, first_line
from aicr_ext.model.aicr import AICR
from aicr_ext.model.config import QUALITIES
from aicr_ext.model.feedback import LEAST_QUALITY
from aicr_ext.model.precision import InBfloat16, autocast, has_bfloat16, resolve_precision, with_cast_weights
from aicr_ext.model.search import Decoder, check_searchable, restored, search
from aicr_ext.ops.rans import MAX_STREAMS

__all__ = ["Codec"]

#: Most steps of a search.
MAX_EFFORT = 1000
#: Pictures of a call pass through the networks together as long as they have no more pixels than this: memory.
_BATCH_PIXELS = 1 << 22


class Codec:
    """A model kept loaded, for many pictures.

    Args:
        model: ``"aicr-t"``, the path of a weight file, or an :class:`~aicr_ext.model.aicr.AICR` module (used as it
            is, in evaluation mode; its weights must not change afterwards).
        device: where the networks run; default the module's own device, or the CPU.
        precision: of analysis and synthesis: ``"float32"``, ``"bfloat16"``, or ``"auto"``, which is bfloat16 where the
            device has instructions for it. Symbols are decoded alike in all; a picture differs by rounding. A CPU with
            such instructions also takes bfloat16 where feedback estimates what decoding will show.
        cuda_graphs: on CUDA, record analysis and synthesis for each shape, of which the last 8 are kept in
            memory, and replay them. One thread at a time may use the codec.

    A file decodes to the same symbols on every device. On a CPU the bytes of a picture, and the picture of a file, do
    not depend on others in the call; on CUDA these pass through analysis and synthesis together, whose sums may then
    have another order and differ by rounding. ``docs/cuda.md`` says where the host waits for a device.

    Raises:
        ValueError: unknown model, or one whose weights are not in this package, a device that cannot be used,
            another precision, or graphs on a device other than CUDA.

    >>> import aicr_ext, torch
    >>> codec = aicr_ext.Codec()
    >>> data = codec.compress(torch.rand(3, 40, 60), quality=20)
    >>> codec.decompress(data).shape
    torch.Size([3, 40, 60])
    """

    def __init__(
        self,
        model: str | Path | AICR = "aicr-t",
        device: str | torch.device | None = None,
        *,
        precision: str = "float32",
        cuda_graphs: bool = False,
    ) -> None:
        self.model = (model if isinstance(model, AICR) else load_model(model)).eval()
        if device is not None:
            self.model.to(check_device(device))
        self.model.to(memory_format=torch.channels_last)
        self.device = next(self.model.parameters()).device
        if self.device.type == "cpu":
            keep_freed_blocks()
        self.precision = resolve_precision(precision, self.device)
        if cuda_graphs and self.device.type != "cuda":
            raise ValueError(f"cuda_graphs needs a codec on a CUDA device, got device {str(self.device)!r}")
        #: Analysis and synthesis as pictures pass through them; for bfloat16 copies of the model's, with weights cast.
        self.networks = {
            name: with_cast_weights(getattr(self.model, name), self.precision) for name in ("analysis", "synthesis")
        }
        #: The synthesis that feedback looks at, when it encodes.
        self._seen = self.networks["synthesis"]
        estimates = self.model.analysis.feedback is not None and self.device.type == "cpu"
        if estimates and self.precision == "float32" and has_bfloat16(self.device):
            self._seen = InBfloat16(self._seen)
        self._cuda_graphs = cuda_graphs
        self._graphs = GraphCache(capture_cuda) if cuda_graphs else None
        self.name = self.model.config.name
        self._hyper_tables = hyper_tables(self.model)  # weights that have none yet get them here, and are hashed after
        self.weight_hash = _hash(self.model)
        self._priors = IntegerPriors(self.model)

    def __reduce__(self) -> tuple:
        """Copies, and pickles for other processes, hold the model, and are set up anew."""
        return partial(type(self), precision=self.precision, cuda_graphs=self._cuda_graphs), (self.model,)

    @torch.no_grad()
    def compress(
        self,
        image: Tensor | np.ndarray,
        *,
        quality: int = 32,
        streams: int | None = None,
        feedback: bool = True,
        effort: int = 0,
    ) -> bytes | list[bytes]:
        """File bytes of a picture, or a list of them for a batch; see :func:`aicr_ext.compress`."""
        quality, streams, effort = check_quality(quality), check_streams(streams), check_effort(effort)
        if effort:
            check_searchable(self.model)
        if not isinstance(feedback, bool):
            raise TypeError(f"feedback must be True or False, got {type(feedback).__name__}")
        pictures = as_batch(image)
        most = max(1, _BATCH_PIXELS // (pictures.shape[2] * pictures.shape[3]))
        batches = [few for few in pictures.split(most) if len(few)]
        coded = [data for few in batches for data in self._encode(few, quality, streams, feedback, effort)]
        return coded if isinstance(image, Tensor) and image.dim() == 4 else coded[0]

    @torch.no_grad()  # not inference_mode: its tensors cannot enter a caller's graph
    def decompress(
        self,
        data: bytes | bytearray | memoryview | list[bytes],
        *,
        max_pixels: int = container.MAX_PIXELS,
    ) -> Tensor | list[Tensor]:
        """The picture of file bytes, or a list of pictures for a list; see :func:`aicr_ext.decompress`."""
        several = isinstance(data, (list, tuple))
        pictures = self.decode_files(unpack_files(data if several else [data], max_pixels))
        return pictures if several else pictures[0]

    @torch.no_grad()
    def decode_files(self, files: Sequence[File]) -> list[Tensor]:
        """The pictures of files, those of one size together.

        Raises:
            BitstreamError: a file is damaged or needs other weights; the message begins with its name, if it has one.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for place, file in enumerate(files):
            with named(file.name):
                self._check_weights(file.header)
            groups.setdefault(file.cells, []).append(place)
        pictures: dict[int, Tensor] = {}
        for (rows, cols), places in groups.items():
            most = max(1, _BATCH_PIXELS // (256 * rows * cols))
            for first in range(0, len(places), most):
                few = places[first : first + most]
                pictures.update(zip(few, self._decode([files[place] for place in few]), strict=True))
        return [pictures[place] for place in range(len(files))]

    @torch.no_grad()
    def estimate_bits(self, image: Tensor | np.ndarray, *, quality: int = 32) -> float:
        """Bits that the entropy model assigns to a picture's symbols, before tables, coder and header.

        Raises:
            ValueError: as :meth:`compress`, or a batch of other than one picture.
        """
        pictures = as_batch(image)
        if len(pictures) != 1:
            raise ValueError(f"image must be one picture, got a batch of {len(pictures)}")
        return self.relaxed(pictures[0], check_quality(quality))[0]

    @torch.no_grad()
    def relaxed(self, picture: Tensor, quality: int) -> tuple[float, Tensor]:
        """The bits of :meth:`estimate_bits` and the picture that the network makes, neither clamped nor rounded.

        ``picture`` is (3, H, W), uint8, or floating point of any range; the result is floating point. Nothing is coded.
        """
        x = self._padded(picture[None])
        with autocast(self.device, self.precision):
            output = self.model(x, torch.tensor([quality], device=self.device))
        bits = float(output.y_bpp + output.z_bpp) * x.shape[2] * x.shape[3]
        height, width = picture.shape[1:]
        return bits, output.picture[0, :, :height, :width]

    def _encode(self, pictures: Tensor, quality: int, streams: int | None, feedback: bool, effort: int) -> list[bytes]:
        y, z = self._analysed(pictures, quality, feedback), None
        if effort:
            y, z = self._searched(pictures, y, quality, effort)
        height, width = pictures.shape[2:]
        header = container.Header(self.name, self.weight_hash, quality, width, height)
        return [container.pack(header, coded) for coded in self._encode_latents(y, streams, z)]

    def _encode_latents(self, y: Tensor, streams: int | None = None, z: Tensor | None = None) -> list[list[bytes]]:
        return encode_latents(self.model, self._priors, self._hyper_tables, y, streams, z)

    def latent(self, picture: Tensor, quality: int, *, feedback: bool = True) -> Tensor:
        """What the analysis gives of a picture (3, H, W), uint8 or float in [0, 1]: latents (1, N + E or more,
        ceil(H/16), ceil(W/16)), not rounded, and with a Wiener filter their noise (:class:`Analysis`).
        """
        return self._analysed(picture[None], quality, feedback)

    def _analysed(self, pictures: Tensor, quality: int, feedback: bool) -> Tensor:
        x = self._padded(pictures)
        # Made there: a number on its way to the device would have to be waited for.
        levels = torch.full((len(x),), quality, device=self.device)
        if feedback and self.model.analysis.feedback is not None and quality >= LEAST_QUALITY:
            return self._run("analysis", x, levels, synthesis=self._seen)
        return self._run("analysis", x, levels)

    def _searched(self, pictures: Tensor, y: Tensor, quality: int, effort: int) -> tuple[Tensor, Tensor]:
        """Latents that are worth their bits more than those of the analysis, and their z (:func:`search`)."""
        height, width = pictures.shape[2:]
        x = self._padded(pictures)
        found = []
        # On a CPU the last bits depend on how many there are.
        for few, latents in zip(*(t.split(1 if x.device.type == "cpu" else len(t)) for t in (x, y)), strict=True):
            target = restored(self.model, few, self._decoder)[:, :, :height, :width]
            levels = torch.full((len(few),), quality, device=self.device)
            found.append(search(self.model, latents, target, levels, effort, self._decoder))
        latents, z = (torch.cat(parts) for parts in zip(*found, strict=True))
        return latents, z

    @cached_property
    def _decoder(self) -> Decoder:
        """The synthesis that a search looks at, in the precision of feedback."""
        if isinstance(self._seen, InBfloat16):
            return self._seen
        if self.precision == "bfloat16":
            return InBfloat16(self.model.synthesis)
        return copy.deepcopy(self.model.synthesis).requires_grad_(False)

    def _check_weights(self, header: container.Header) -> None:
        expected = self.weight_hash[: len(header.weight_hash)]
        if header.model != self.name or header.weight_hash != expected:
            raise ModelMismatchError(
                f"the file needs model {header.model} with weights and tables {header.weight_hash.hex()}; "
                f"this codec holds {self.name} with weights and tables {expected.hex()}"
            )

    def _decode(self, files: Sequence[File]) -> list[Tensor]:
        """The pictures of files with latents of one size."""
        streams, names = [file.streams for file in files], [file.name for file in files]
        y_hat, check = decode_latents(self._priors, self._hyper_tables, streams, *files[0].cells, self.device, names)
        quality = torch.tensor([file.header.quality for file in files], device="cpu")
        pictures = self._run("synthesis", y_hat, quality.to(self.device, non_blocking=True))
        sizes = [(file.header.height, file.header.width) for file in files]
        # Copies, so that none keeps the memory of all.
        cut = [x[:, :h, :w].clamp(0, 1).contiguous() for x, (h, w) in zip(pictures, sizes, strict=True)]
        check()
        return cut

    def _run(self, network: str, x: Tensor, quality: Tensor, **others: nn.Module | InBfloat16) -> Tensor:
        """Analysis, with the help of ``others``, or synthesis of a batch, in the codec's precision."""

        def run(x: Tensor, quality: Tensor) -> Tensor:
            with autocast(self.device, self.precision):
                return self.networks[network](x, quality, **others)

        name = " with ".join((network, *others))
        return of_each(run, x, quality) if self._graphs is None else self._graphs(name, run, x, quality)

    def _padded(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) float32, uint8 scaled to [0, 1], the last row and column repeated up to multiples of 16."""
        # In one layout, whatever the picture's: sums over it have one order, and passes of the network need no copies.
        x = pictures.to(self.device).contiguous()
        x = x.float().div_(255) if x.dtype == torch.uint8 else x.float()
        height, width = x.shape[2:]
        if height % 16 or width % 16:
            x = F.pad(x, (0, -width % 16, 0, -height % 16), mode="replicate")
        return x


class File(NamedTuple):
    """A file taken apart; ``name`` begins messages about it, if it is not empty."""

    name: str
    header: container.Header
    streams: list[memoryview]

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of its latent."""
        return -(-self.header.height // 16), -(-self.header.width // 16)


def unpack_files(data: Sequence[object], max_pixels: int) -> list[File]:
    """Takes files apart; of several each is named by its place in the list.

    Raises:
        TypeError: not bytes.
        BitstreamError: a file is damaged outside its streams, or too large.
    """
    files = []
    for place, one in enumerate(data, 1):
        name = f"file {place} of {len(data)}" if len(data) > 1 else ""
        with named(name):
            files.append(File(name, *container.unpack(as_bytes(one), max_pixels)))
    return files


@contextmanager
def named(name: str) -> Iterator[None]:
    """Lets messages of errors begin with a name."""
    try:
        yield
    except (BitstreamError, TypeError) as error:
        if not name:
            raise
        raise type(error)(f"{name}: {error}") from None


def _hash(model: AICR) -> bytes:
    """SHA-256 over names, shapes and values of a model's weights, and over the digest of the Gaussian tables: all the
    numbers that decoding depends on.

    Float16 and float32 copies hash alike.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value.int()
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy())
    digest.update(gaussian_tables().digest())
    return digest.digest()


def check_device(device: str | torch.device) -> torch.device:
    """``device`` as a torch device on which a tensor can be made; ValueError otherwise."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        raise ValueError(f"device {str(device)!r} cannot be used here: {first_line(error)}") from error


def check_quality(quality: int) -> int:
    """``quality`` as an int, if it is one of 0..63; TypeError or ValueError otherwise."""
    if isinstance(quality, bool) or not isinstance(quality, (int, np.integer)):
        raise TypeError(f"quality must be an int, got {type(quality).__name__}")
    if not 0 <= quality < QUALITIES:
        raise ValueError(f"quality must be 0 to {QUALITIES - 1}, got {quality}")
    return int(quality)


def check_streams(streams: int | None) -> int | None:
    """``streams`` as an int, if it is one of 1..256, or None; TypeError or ValueError otherwise."""
    if streams is None:
        return None
    if isinstance(streams, bool) or not isinstance(streams, (int, np.integer)):
        raise TypeError(f"streams must be an int or None, got {type(streams).__name__}")
    if not 1 <= streams <= MAX_STREAMS:
        raise ValueError(f"streams must be 1 to {MAX_STREAMS}, got {streams}")
    return int(streams)


def check_effort(effort: int) -> int:
    """``effort`` as an int, if it is one of 0..1000; TypeError or ValueError otherwise."""
    if isinstance(effort, bool) or not isinstance(effort, (int, np.integer)):
        raise TypeError(f"effort must be an int, got {type(effort).__name__}")
    if not 0 <= effort <= MAX_EFFORT:
        raise ValueError(f"effort must be 0 to {MAX_EFFORT}, got {effort}")
    return int(effort)


def as_bytes(data: object) -> bytes | bytearray | memoryview:
    """``data`` unchanged, if it is bytes-like; TypeError otherwise."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data must be bytes or a list of bytes, got {type(data).__name__}")
    return data


def as_batch(image: object) -> Tensor:
    """The pictures (B, 3, H, W), uint8 or floating, of everything :func:`aicr_ext.compress` accepts.

    Raises:
        TypeError: not a tensor, array or PIL image, or a dtype other than uint8 and floating point.
        ValueError: wrong number of dimensions or channels, an empty side, a side too long, values outside [0, 1],
            NaN.
    """
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    elif not isinstance(image, Tensor):
        image = _from_pillow(image)
    if image.layout != torch.strided:
        raise TypeError(f"image must be a dense tensor, got layout {image.layout}")
    if image.dtype not in (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(f"image must be uint8 or floating point of 16 to 64 bits, got {image.dtype}")
    if image.dim() not in (3, 4) or image.shape[-3] != 3:
        raise ValueError(f"image must be (3, H, W) or (B, 3, H, W), got {tuple(image.shape)}")
    if not all(1 <= side <= container.MAX_SIDE for side in image.shape[-2:]):
        raise ValueError(f"image sides must be 1 to {container.MAX_SIDE}, got {tuple(image.shape[-2:])}")
    if image.dtype.is_floating_point and image.numel():
        low, high = torch.stack(image.detach().aminmax()).tolist()
        if not (low >= 0 and high <= 1):  # also true of NaN
            what = "NaN" if low != low or high != high else f"values from {low:g} to {high:g}"
            raise ValueError(f"a floating-point image must lie in [0, 1], got {what}")
    return image.detach() if image.dim() == 4 else image.detach()[None]


def _from_array(image: np.ndarray) -> Tensor:
    if image.dtype != np.uint8:
        raise TypeError(f"a NumPy image must be uint8, got {image.dtype}")
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"a NumPy image must be (H, W, 3), got {image.shape}")
    return torch.from_numpy(np.ascontiguousarray(image).copy()).permute(2, 0, 1)


def _from_pillow(image: object) -> Tensor:
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise TypeError(f"image must be a torch tensor, a NumPy array or a PIL image, got {type(image).__name__}")
    if image.mode not in ("RGB", "L"):
        raise ValueError(
            f"a PIL image must have mode RGB or L, got {image.mode}; aicr_ext.images.read_image converts files"
        )
    return _from_array(np.asarray(image.convert("RGB")))
