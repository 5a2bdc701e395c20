"""Image files: what a reader sees must be what the codec gets, and a writer never leaves half a file."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import pixels, smooth, write_png16
from PIL import Image, ImageCms, ImageOps

from aicr_ext.errors import ImageFormatError, first_line
from aicr_ext.images import read_image, to_rgb, write_image

ORIENTATION = 0x0112


def read_quietly(path: Path) -> Image.Image:
    """Read a file that must not give rise to a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".PNG"])
def test_lossless_round_trip(tmp_path: Path, suffix: str) -> None:
    picture = smooth()
    write_image(tmp_path / f"a{suffix}", picture)
    back = read_quietly(tmp_path / f"a{suffix}")
    assert back.mode == "RGB"
    assert np.array_equal(pixels(back), pixels(picture))


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg_is_close(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", smooth())
    error = pixels(read_quietly(tmp_path / f"a{suffix}")) - pixels(smooth())
    assert np.abs(error).mean() < 1.5


def test_avif_is_read(tmp_path: Path) -> None:
    smooth().save(tmp_path / "a.avif", quality=95)
    assert np.abs(pixels(read_quietly(tmp_path / "a.avif")) - pixels(smooth())).mean() < 3


def test_every_kind_of_picture_is_written_alike(tmp_path: Path) -> None:
    array = np.asarray(smooth())
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for index, image in enumerate([smooth(), array, tensor, tensor.float() / 255, tensor.double() / 255]):
        write_image(tmp_path / f"{index}.png", image)
        assert np.array_equal(pixels(read_image(tmp_path / f"{index}.png")), array), index


def test_floats_are_rounded_and_clamped(tmp_path: Path) -> None:
    values = torch.tensor([-0.5, 0.4 / 255, 0.6 / 255, 254.6 / 255, 2.0]).expand(3, 1, 5)
    write_image(tmp_path / "a.png", values)
    assert pixels(read_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 0, 1, 255, 255]


@pytest.mark.parametrize(
    "bad, kind",
    [
        (torch.zeros(1, 3, 4, 4), ValueError),
        (torch.zeros(4, 4, 3), ValueError),
        (torch.zeros(3, 4, 4, dtype=torch.int32), ValueError),
        (np.zeros((4, 4, 3)), ValueError),
        (np.zeros((3, 4, 4), np.uint8), ValueError),
        ([[1, 2, 3]], TypeError),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, bad: object, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="image: expected"):
        write_image(tmp_path / "a.png", bad)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.gif", "a.xyz", "a"])
def test_unknown_suffix_names_the_known(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageFormatError, match=r"a.*\.png.*\.webp"):
        write_image(tmp_path / name, smooth())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"a{suffix}"
    options = {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
    smooth().save(path, exif=exif, **(options | ({"lossless": True} if suffix == ".webp" else {})))
    expected = ImageOps.exif_transpose(Image.open(path))
    back = read_quietly(path)
    assert back.size == ((48, 64) if orientation >= 5 else (64, 48))
    assert np.array_equal(pixels(back), pixels(expected))
    if orientation == 6:  # stored lying on its left side: the first row becomes the last column
        assert np.abs(pixels(back)[:, -1] - pixels(smooth())[0]).max() <= 6


def test_unreadable_exif_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smooth().save(tmp_path / "a.png")

    def broken(self: Image.Image) -> None:
        raise SyntaxError("not a TIFF header")

    monkeypatch.setattr(Image.Image, "getexif", broken)
    with pytest.warns(UserWarning, match=r"a\.png: unreadable EXIF"):
        assert read_image(tmp_path / "a.png").size == (64, 48)


def test_grey_palette_and_bilevel_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "P", "1"):
        converted = smooth().convert(mode)
        converted.save(tmp_path / f"{mode}.png")
        back = read_quietly(tmp_path / f"{mode}.png")
        assert back.mode == "RGB"
        assert np.array_equal(pixels(back), pixels(converted.convert("RGB"))), mode


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    smooth().convert("CMYK").save(tmp_path / "a.tif")
    back = read_quietly(tmp_path / "a.tif")
    assert np.abs(pixels(back) - pixels(smooth())).max() <= 2


def swapped_profile() -> bytes:
    """An RGB profile that no screen has: sRGB with the colourants of red and blue exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = data.index(b"rXYZ", 128), data.index(b"bXYZ", 128)
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


def test_icc_profile_is_converted(tmp_path: Path) -> None:
    smooth().save(tmp_path / "a.png", icc_profile=swapped_profile())
    back = pixels(read_quietly(tmp_path / "a.png"))
    assert np.abs(back - pixels(smooth())[..., ::-1]).max() <= 2


def test_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for mode in ("RGB", "L"):  # grey pictures with an RGB profile are common
        picture = smooth().convert(mode)
        picture.save(tmp_path / "a.png", icc_profile=profile)
        assert np.array_equal(pixels(read_quietly(tmp_path / "a.png")), pixels(picture.convert("RGB")))


def test_icc_and_orientation_together(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    smooth().save(tmp_path / "a.png", exif=exif, icc_profile=swapped_profile())
    back = pixels(read_quietly(tmp_path / "a.png"))
    assert np.abs(back - pixels(smooth())[::-1, ::-1, ::-1]).max() <= 2


@pytest.mark.parametrize("profile", [b"not a profile", swapped_profile()[:200]])
def test_broken_icc_profile_is_a_warning(tmp_path: Path, profile: bytes) -> None:
    smooth().save(tmp_path / "a.png", icc_profile=profile)
    with pytest.warns(UserWarning, match=r"a\.png: colour profile ignored"):
        back = read_image(tmp_path / "a.png")
    assert np.array_equal(pixels(back), pixels(smooth()))


def test_profile_of_another_kind_is_a_warning(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    smooth().save(tmp_path / "a.png", icc_profile=lab)
    with pytest.warns(UserWarning, match="for Lab colour, the image is RGB"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "key"])
def test_transparency_is_refused_and_opaque_alpha_is_not(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    if mode == "P":
        # Palette entry 3 is used by no pixel, then by all of them.
        picture = Image.new("P", (8, 6), 0)
        picture.putpalette([10, 20, 30] * 4)
        picture.save(path, transparency=3)
        expected = (10, 20, 30)
    elif mode == "key":
        picture = Image.new("RGB", (8, 6), (10, 20, 30))
        picture.save(path, transparency=(1, 2, 3))
        expected = (10, 20, 30)
    else:
        picture = Image.new(mode, (8, 6), (10, 20, 30, 255) if mode == "RGBA" else (10, 255))
        picture.save(path)
        expected = (10, 20, 30) if mode == "RGBA" else (10, 10, 10)
    back = read_quietly(path)
    assert back.mode == "RGB"
    assert back.getpixel((3, 3)) == expected

    if mode == "P":
        picture.save(path, transparency=0)
    elif mode == "key":
        picture.save(path, transparency=(10, 20, 30))
    else:
        picture.putpixel((2, 2), (10, 20, 30, 254) if mode == "RGBA" else (10, 254))
        picture.save(path)
    with pytest.raises(ImageFormatError, match=r"a\.png: has transparent pixels.*flatten"):
        read_image(path)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_png_is_refused(tmp_path: Path, channels: int) -> None:
    write_png16(tmp_path / "a.png", channels)
    with pytest.raises(ImageFormatError, match=r"a\.png: more than 8 bits per channel"):
        read_image(tmp_path / "a.png")


def test_other_deep_formats_are_refused(tmp_path: Path) -> None:
    Image.new("I;16", (8, 6)).save(tmp_path / "grey16.tif")
    Image.new("F", (8, 6)).save(tmp_path / "float.tif")
    Image.new("I", (8, 6)).save(tmp_path / "int.tif")
    (tmp_path / "colour16.ppm").write_bytes(b"P6 2 1 65535\n" + bytes(12))
    (tmp_path / "grey16.pgm").write_bytes(b"P5 2 1 65535\n" + bytes(4))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ImageFormatError, match=f"{path.name}: more than 8 bits"):
            read_image(path)
    (tmp_path / "colour7.ppm").write_bytes(b"P6 2 1 127\n" + bytes(6))
    assert read_image(tmp_path / "colour7.ppm").size == (2, 1)


def test_deep_pictures_are_not_written(tmp_path: Path) -> None:
    """Pillow would make them black and white."""
    with pytest.raises(ImageFormatError, match="image: more than 8 bits"):
        write_image(tmp_path / "a.png", Image.new("I;16", (8, 6), 1000))
    assert not list(tmp_path.iterdir())


def test_a_bitmap_of_16_bits_per_pixel_is_read(tmp_path: Path) -> None:
    """5, 6 and 5 bits per channel are no more than 8."""
    masks = b"".join(mask.to_bytes(4, "little") for mask in (0xF800, 0x07E0, 0x001F))
    pixels = b"".join(value.to_bytes(2, "little") for value in (0xF800, 0x07E0))
    header = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, len(pixels), 0, 0, 0, 0)
    start = 14 + len(header) + len(masks)
    data = b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + masks + pixels
    (tmp_path / "a.bmp").write_bytes(data)
    image = read_image(tmp_path / "a.bmp")
    assert [image.getpixel((x, 0)) for x in range(2)] == [(255, 0, 0), (0, 255, 0)]


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_several_frames_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    second = smooth().transpose(Image.Transpose.ROTATE_180)
    smooth().save(path, save_all=True, append_images=[second])
    with pytest.raises(ImageFormatError, match=r"a\.\w+: 2 frames or pages"):
        read_image(path)
    smooth().save(path)
    assert read_quietly(path).size == (64, 48)


def test_camera_jpeg_with_preview_is_one_picture(tmp_path: Path) -> None:
    smooth().save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[smooth(16, 12)], quality=95)
    assert read_quietly(tmp_path / "a.jpg").size == (64, 48)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's own remark on a TIFF cut in half
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp", ".gif", ".avif", ".ppm"])
def test_truncated_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    smooth().save(path)
    whole = path.read_bytes()
    assert read_image(path).size == (64, 48)
    for length in (0, 1, 8, 30, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageFormatError, match=rf"a\{suffix}"):
            read_image(path)


def test_other_content_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("just text")
    with pytest.raises(ImageFormatError, match=r"a\.png: not an image"):
        read_image(path)
    # Pillow would hand this one to an external program.
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
    with pytest.raises(ImageFormatError, match=r"a\.png: not an image"):
        read_image(path)


def test_missing_file_and_folder_are_os_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path)


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smooth().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 // 3)
    with pytest.raises(ImageFormatError, match=r"a\.png: .*exceeds limit"):
        read_image(tmp_path / "a.png")


def test_pillow_images_follow_the_same_rules(tmp_path: Path) -> None:
    assert np.array_equal(pixels(to_rgb(smooth())), pixels(smooth()))
    with pytest.raises(ImageFormatError, match="sky: has transparent pixels"):
        to_rgb(Image.new("RGBA", (4, 4)), name="sky")
    with pytest.raises(ImageFormatError, match="image: more than 8 bits"):
        to_rgb(Image.new("F", (4, 4)))
    with pytest.raises(ImageFormatError, match="Lab colour"):
        to_rgb(Image.new("LAB", (4, 4)))


def test_first_line_of_an_error() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
