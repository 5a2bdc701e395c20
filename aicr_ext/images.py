"""Image files in and out: what a photograph on disk means, turned into plain 8-bit sRGB, and back.

Reading applies what a viewer would apply (EXIF orientation, ICC profile) and refuses what the codec would
otherwise lose silently: transparency, more than 8 bits per channel, more than one frame. Writing never leaves
a half-written file under the name that was asked for.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageCms

from .errors import ImageFormatError, first_line
from .files import atomic_write

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = [
    "READ_SUFFIXES",
    "WRITE_SUFFIXES",
    "encode_image",
    "read_image",
    "refuse_depth",
    "to_rgb",
    "write_image",
]

# Pillow decoders that are offered the file. The list is closed on purpose: some of the others start external
# programs (EPS), or reduce their samples to 8 bits without a way to tell (JPEG 2000).
READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "BMP", "GIF", "PPM")

#: Suffixes that a folder is searched for (lower case). A single file is read whatever its name is.
READ_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("png", "jpg", "jpeg", "jpe", "jfif", "mpo", "webp", "tif", "tiff"),
        *("avif", "bmp", "dib", "gif", "ppm", "pgm", "pbm", "pnm"),
    )
)

#: Suffix to Pillow format and save options. Lossless wherever the format can be.
WRITE_SUFFIXES = {
    ".png": ("PNG", {}),
    ".webp": ("WEBP", {"lossless": True}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".bmp": ("BMP", {}),
    ".ppm": ("PPM", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
}

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Grid points per channel on which a profile is compared with sRGB.
_PROFILE_GRID = 6


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read a photograph as an 8-bit sRGB Pillow image (mode ``RGB``).

    PNG, JPEG (MPO included), WebP, TIFF, AVIF, BMP, GIF and PPM are accepted, in RGB, grey, palette or CMYK.
    EXIF orientation is applied; an ICC profile is converted to sRGB (a broken one is reported with a warning
    and ignored). Pillow's limit on the number of pixels (``PIL.Image.MAX_IMAGE_PIXELS``) holds.

    Raises:
        ImageFormatError: not an image, truncated, transparent, more than 8 bits per channel, or several
            frames; the message names the file.
        OSError: the file cannot be opened (missing, no permission, a folder).
    """
    path = os.fspath(path)
    with open(path, "rb") as file:
        try:
            image = Image.open(file, formats=READ_FORMATS)
        except Image.UnidentifiedImageError:
            raise ImageFormatError(f"{path}: not an image in one of the formats {', '.join(READ_FORMATS)}") from None
        except Image.DecompressionBombError as error:
            raise ImageFormatError(f"{path}: {error}") from None
        except Exception as error:  # Pillow's parsers raise whatever a damaged header leads them to
            raise ImageFormatError(f"{path}: damaged image file ({first_line(error)})") from error
        return to_rgb(image, name=path)


def to_rgb(image: Image.Image, *, name: str = "image") -> Image.Image:
    """Turn any Pillow image into upright 8-bit sRGB, or say why that would lose something.

    The same rules as in :func:`read_image`; ``name`` is put in front of messages.
    """
    try:
        _refuse_frames(image, name)
        refuse_depth(image, name)
        image.load()
    except ImageFormatError:
        raise
    except Exception as error:  # as above: decoders of damaged data raise all sorts of things
        raise ImageFormatError(f"{name}: damaged or truncated image file ({first_line(error)})") from error
    profile = image.info.get("icc_profile")
    transpose = _orientation(image, name)  # before anything makes a new image without the metadata
    image = _drop_opaque_alpha(image, name)
    if profile:
        image = _to_srgb(image, profile, name)
    if image.mode == "LAB":
        raise ImageFormatError(f"{name}: Lab colour is not supported; convert the image to RGB first")
    if image.mode != "RGB":
        image = image.convert("RGB")
    return image if transpose is None else image.transpose(transpose)


def write_image(path: str | os.PathLike[str], image: torch.Tensor | np.ndarray | Image.Image) -> None:
    """Write an image; the suffix of ``path`` chooses the format.

    ``image``: torch tensor (3, H, W), float in [0, 1] or uint8; NumPy array (H, W, 3) uint8; or Pillow image.
    ``.png``, ``.webp``, ``.tif``, ``.bmp`` and ``.ppm`` are lossless, ``.jpg`` is written at quality 95.
    The file appears complete or not at all (:func:`aicr_ext.files.atomic_write`).

    Raises:
        ImageFormatError: a suffix that is none of the above.
    """
    atomic_write(path, encode_image(image, Path(path).suffix, name=os.fspath(path)))


def encode_image(image: torch.Tensor | np.ndarray | Image.Image, suffix: str, *, name: str = "image") -> bytes:
    """The bytes that :func:`write_image` writes, for a suffix such as ``".png"``."""
    try:
        format_name, options = WRITE_SUFFIXES[suffix.lower()]
    except KeyError:
        given = f"unknown image suffix {suffix!r}" if suffix else "no suffix to choose the image format by"
        raise ImageFormatError(f"{name}: {given}; use one of {', '.join(WRITE_SUFFIXES)}") from None
    buffer = io.BytesIO()
    _to_pillow(image).save(buffer, format_name, **options)
    return buffer.getvalue()


def _to_pillow(image: torch.Tensor | np.ndarray | Image.Image) -> Image.Image:
    if isinstance(image, Image.Image):
        refuse_depth(image, "image")
        return image if image.mode == "RGB" else image.convert("RGB")
    import numpy as np

    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image: expected a uint8 array (H, W, 3), got {image.dtype} {image.shape}")
        return Image.fromarray(image)
    import torch

    if not isinstance(image, torch.Tensor):
        raise TypeError(f"image: expected a tensor, an array or a Pillow image, got {type(image).__name__}")
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image: expected a tensor (3, H, W), got shape {tuple(image.shape)}")
    if image.is_floating_point():
        image = image.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    elif image.dtype != torch.uint8:
        raise ValueError(f"image: expected float in [0, 1] or uint8, got {image.dtype}")
    return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())


def _refuse_frames(image: Image.Image, name: str) -> None:
    # The further pictures in an MPO file are previews and gain maps of the first.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageFormatError(
            f"{name}: {image.n_frames} frames or pages; this codec takes one picture, save the one you want"
        )


def refuse_depth(image: Image.Image, name: str) -> None:
    """Nothing, for a picture of at most 8 bits per channel that need not have been decoded.

    Raises:
        ImageFormatError: it has more; Pillow would cut them off, or make them black and white.
    """
    # Pillow reads 16-bit RGB as 8-bit "RGB"; only the decoder's arguments tell.
    deep = image.mode.startswith(("I", "F"))
    for tile in getattr(image, "tile", None) or ():
        args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        deep |= any(isinstance(a, str) and ";16" in a and a != "BGR;16" for a in args)  # that is 5-6-5
        deep |= tile[0].startswith("ppm") and any(type(a) is int and a > 255 for a in args)
    if deep:
        raise ImageFormatError(
            f"{name}: more than 8 bits per channel; the codec stores 8, so convert the image to 8 bits first"
        )


def _orientation(image: Image.Image, name: str) -> Image.Transpose | None:
    try:
        return _TRANSPOSE.get(image.getexif().get(_ORIENTATION_TAG))
    except Exception as error:
        warnings.warn(f"{name}: unreadable EXIF data ignored ({first_line(error)})", stacklevel=4)
        return None


def _drop_opaque_alpha(image: Image.Image, name: str) -> Image.Image:
    if not image.has_transparency_data:
        return image
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema()[0] != 255:
        raise ImageFormatError(
            f"{name}: has transparent pixels, and the codec has no alpha channel; flatten it onto a "
            "background first, for example: magick IN -background white -flatten OUT"
        )
    return rgba.convert("L" if image.mode in ("L", "LA", "La") else "RGB")


def _to_srgb(image: Image.Image, profile: bytes, name: str) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space == "RGB" and image.mode != "RGB":
            image = image.convert("RGB")
        elif space == "GRAY" and image.mode == "1":
            image = image.convert("L")
        if {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}.get(space) != image.mode:
            raise ImageCms.PyCMSError(f"it is for {space} colour, the image is {image.mode}")
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            image.mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if image.mode == "RGB" and _is_identity(transform):
            return image
        return ImageCms.applyTransform(image, transform)
    except Exception as error:  # littlecms wrappers raise PyCMSError, OSError, TypeError, ValueError
        warnings.warn(f"{name}: colour profile ignored, taken as sRGB ({first_line(error)})", stacklevel=4)
        return image


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether the profile is sRGB up to rounding, so that pixels need not change at all."""
    levels = [round(255 * i / (_PROFILE_GRID - 1)) for i in range(_PROFILE_GRID)]
    colours = bytes(v for r in levels for g in levels for b in levels for v in (r, g, b))
    grid = Image.frombytes("RGB", (_PROFILE_GRID**2, _PROFILE_GRID), colours)
    moved = ImageCms.applyTransform(grid, transform).tobytes()
    return all(abs(a - b) <= 1 for a, b in zip(colours, moved, strict=True))
