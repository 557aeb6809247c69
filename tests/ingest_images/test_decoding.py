"""What comes out of picture files of every kind, and what happens to those that are none."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.common.errors import ImageError
from components.ingest_images.decoding import Decoded, decode_picture
from tests.ingest_images.conftest import random_pixels

LOSSLESS = ("PNG", "BMP", "TIFF", "WEBP")
FORMATS = (*LOSSLESS, "JPEG", "GIF")


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    if file_format == "WEBP":
        options = {"lossless": True, "exact": True, **options}
    image.save(stream, format=file_format, **options)
    return stream.getvalue()


def pixels_of(decoded: Decoded) -> np.ndarray:
    assert decoded.picture.mode == "RGB"
    return np.asarray(decoded.picture)


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_pixels_when_lossless_are_those_saved(file_format: str) -> None:
    pixels = random_pixels(9, 13)
    decoded = decode_picture(saved(Image.fromarray(pixels), file_format))
    np.testing.assert_array_equal(pixels_of(decoded), pixels)
    assert decoded.mask is None
    assert not decoded.animated


@pytest.mark.parametrize("file_format", ["JPEG", "GIF"])
def test_pixels_when_lossy_are_nearly_those_saved(file_format: str) -> None:
    pixels = np.full((16, 16, 3), (200, 30, 60), np.uint8)
    decoded = decode_picture(saved(Image.fromarray(pixels), file_format))
    assert np.abs(pixels_of(decoded).astype(int) - pixels).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_when_exif_rotates_are_upright(orientation: int) -> None:
    upright = random_pixels(6, 10)
    # How a camera that is held in each of the eight ways stores the picture.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_picture(saved(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif))
    np.testing.assert_array_equal(pixels_of(decoded), upright)


def test_mask_when_exif_rotates_turns_with_the_picture() -> None:
    rgba = random_pixels(6, 10, 4)
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode_picture(saved(Image.fromarray(rgba), "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(decoded.mask), np.rot90(rgba[:, :, 3], -1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "RGBA", "LA", "PA", "RGBX"])
def test_colours_when_of_any_mode_become_rgb(mode: str) -> None:
    image = Image.new("RGB", (8, 6), "white").convert("RGBA" if mode == "PA" else "RGB").convert(mode)
    file_format = "PNG" if mode in ("1", "L", "P", "RGBA", "LA") else "TIFF"
    decoded = decode_picture(saved(image, file_format) if mode != "PA" else saved(image.convert("LA"), "PNG"))
    assert (pixels_of(decoded) >= 254).all()
    assert decoded.mask is None  # opaque everywhere


def test_colours_when_cmyk_jpeg_are_not_inverted() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
    assert np.abs(pixels_of(decode_picture(saved(image, "JPEG"))).astype(int) - (255, 0, 0)).max() <= 3


def test_colours_when_16_bit_grey_keep_their_range() -> None:
    values = np.array([[0, 100, 200, 257, 32768, 65535]], np.uint16)
    for file_format in ("PNG", "TIFF"):
        decoded = decode_picture(saved(Image.fromarray(values), file_format))
        np.testing.assert_array_equal(pixels_of(decoded)[0, :, 0], [0, 0, 1, 1, 128, 255])


def test_colours_when_32_bit_integers_within_16_bits_keep_their_range() -> None:
    values = np.array([[0, 65535]], np.int32)
    np.testing.assert_array_equal(pixels_of(decode_picture(saved(Image.fromarray(values), "TIFF")))[0, :, 0], [0, 255])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 65536]], np.int32), "more than 16 bits"),
        (np.array([[-1, 0]], np.int32), "more than 16 bits"),
        (np.array([[0.5]], np.float32), "mode F: save it with 8 bits"),
    ],
)
def test_colours_when_they_have_no_8_bit_meaning_are_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode_picture(saved(Image.fromarray(values), "TIFF"))


def test_alpha_when_transparent_lies_on_white_and_is_the_mask() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0] = [(10, 20, 30, 255), (10, 20, 30, 0), (0, 0, 0, 128)]
    for file_format in ("PNG", "TIFF", "WEBP"):
        decoded = decode_picture(saved(Image.fromarray(rgba), file_format))
        np.testing.assert_array_equal(pixels_of(decoded)[0], [(10, 20, 30), (255, 255, 255), (127, 127, 127)])
        np.testing.assert_array_equal(np.asarray(decoded.mask), [[255, 0, 128]])


def test_alpha_when_a_palette_has_a_transparent_colour_is_the_mask() -> None:
    image = Image.new("P", (4, 1), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 1)
    for file_format in ("PNG", "GIF"):
        decoded = decode_picture(saved(image, file_format, transparency=1))
        np.testing.assert_array_equal(np.asarray(decoded.mask), [[0, 255, 255, 255]])
        np.testing.assert_array_equal(pixels_of(decoded)[0, 0], [255, 255, 255])
        np.testing.assert_array_equal(pixels_of(decoded)[0, 1], [255, 0, 0])


def test_alpha_when_transparent_everywhere_is_refused() -> None:
    with pytest.raises(ImageError, match="transparent everywhere"):
        decode_picture(saved(Image.new("RGBA", (4, 4), (1, 2, 3, 0)), "PNG"))


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_frames_when_several_are_seen_and_the_first_shown(file_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    decoded = decode_picture(saved(frames[0], file_format, save_all=True, append_images=frames[1:]))
    assert decoded.animated
    assert (pixels_of(decoded) == [255, 0, 0]).all()


def test_frames_when_a_telephone_adds_a_preview_are_one() -> None:
    picture, preview = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (8, 8), "blue")
    decoded = decode_picture(saved(picture, "MPO", save_all=True, append_images=[preview]))
    assert not decoded.animated
    assert decoded.picture.size == (32, 32)


@pytest.mark.parametrize("file_format", FORMATS)
def test_file_when_cut_short_is_refused(file_format: str) -> None:
    whole = saved(Image.fromarray(random_pixels(40, 30)), file_format)
    decode_picture(whole)
    for kept in range(0, len(whole) - len(whole) // 20, 37):
        with pytest.raises(ImageError, match=r"empty|cut short|no picture that can be read"):
            decode_picture(whole[:kept])


def test_file_when_a_png_has_a_changed_byte_is_refused() -> None:
    whole = saved(Image.fromarray(random_pixels(20, 20)), "PNG")
    for place in range(8, whole.index(b"IEND") - 4, 11):
        with pytest.raises(ImageError):
            decode_picture(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"not a picture",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"%PDF-1.7",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n",
        b"P6 1 1 255 \0\0\0",  # what Pillow can read, but no file is named like here
    ],
)
def test_file_when_no_picture_says_how_it_begins(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"begins with b'|damaged or cut short"):
        decode_picture(data)


def test_file_when_a_bomb_is_refused() -> None:
    bomb = saved(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(ImageError, match="too large"):
        decode_picture(bomb)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd metadata
@settings(deadline=None, max_examples=150)
@given(file_format=st.sampled_from(FORMATS), data=st.data())
def test_file_when_damaged_anywhere_is_decoded_or_refused(file_format: str, data: st.DataObject) -> None:
    raw = bytearray(saved(Image.fromarray(random_pixels(12, 12)), file_format))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_picture(bytes(raw))
    except ImageError as error:
        assert "\n" not in str(error)
        return
    assert decoded.picture.mode == "RGB"
