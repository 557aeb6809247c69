"""What a picture file shows: RGB pixels, upright, with the transparency kept apart.

What a file says about itself is bounded before anything is decoded, so that whatever comes fits into the step's memory.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from components.common.errors import ImageError
from components.ingest_images.containers import is_webp, take_apart, webp_size
from components.ingest_images.orientation import SIDEWAYS, orientation_of, turned_upright

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""The decoders that are asked, whatever the file's name; others of Pillow's start programs or are hardly used."""
LARGEST_SIDE = 65_535
"""Pixels; resizing takes memory for each of a row's or a column's, however thin the picture is."""
LARGEST_MEMORY = 2 * 2**30
"""Bytes that decoding and resizing a picture may take, by its header."""
DRAFTED_PIXELS = 2**26
"""A JPEG of more pixels, as hardly a camera makes, is decoded at a half, a quarter or an eighth of its sides."""

Image.MAX_IMAGE_PIXELS = None  # memory is what counts, and JPEGs of telephones have 200 megapixels

_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_WITHOUT_8_BIT_COLOURS = ("F", "LAB", "HSV")
_BAND_PIXELS = 2**18
_PIXEL_BYTES = 10
"""Of a decoded picture with what is made of it here: at most two copies of 4 bytes a pixel, and its mask."""
_WEBP_BYTES = 24
"""That libwebp takes for a pixel, as measured: canvas, frame, packed colours, and what it hands over."""
_WEBP_COPIES = 3
"""Of the file, which Pillow and libwebp make beside the two that `decode_picture` holds."""
_TILES_AREA = 8
"""How often the parts of a file may cover the picture; a TIFF that keeps channels apart does so once for each."""
_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH, _TIFF_ROWS, _TIFF_BITS, _TIFF_SAMPLES = 322, 323, 278, 258, 277


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoded:
    """A picture as it is to be seen.

    Attributes:
        picture: mode RGB, EXIF orientation applied, transparent parts on white; colour profiles left aside.
        mask: mode L, the alpha channel, or None when everything is opaque.
        size: width and height in pixels of the whole picture, of which `picture` is a smaller draft if it is huge.
        animated: whether the file has several frames; the first is shown.
        remark: why the orientation could not be read; empty where it could.
    """

    picture: Image.Image
    mask: Image.Image | None
    size: tuple[int, int]
    animated: bool
    remark: str = ""


def decode_picture(data: bytes, *, side: int = 1, reserve: Callable[[int], object] = lambda size: None) -> Decoded:
    """The picture that a file's bytes hold, decoded to the last pixel; what lies beside the pixels may be damaged.

    Args:
        data: the file.
        side: pixels of the square that it is to become; a draft has at least twice as many each way.
        reserve: called once with the bytes that decoding and resizing take, before they are taken; it may wait.

    Raises:
        ImageError: when the bytes are no picture, not all of one, of a kind without 8-bit colours, or too many pixels.
        MemoryError: when there is no memory for it after all.
    """
    if not data:
        raise ImageError("the file is empty")
    try:
        parts = take_apart(data)
        header = _checked_header(parts.pixels, side, reserve)
        orientation, remark = _orientation(parts.exif, parts.xmp)
        picture, mask = _without_transparency(_in_8_bits(_upright(parts.pixels, header, orientation)))
    except (ImageError, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError(
            f"this is no picture that can be read: it begins with {data[:16]!r}, expected {', '.join(FORMATS)}"
        ) from error
    except Exception as error:  # Pillow's decoders raise whatever their parsing runs into
        raise ImageError(f"the picture is damaged or cut short: {error}") from error
    size = header.size[::-1] if orientation in SIDEWAYS else header.size
    return Decoded(picture=picture, mask=mask, size=size, animated=header.animated, remark=remark)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Header:
    """What is known before decoding: width and height as stored, by how much a draft is smaller, several frames."""

    size: tuple[int, int]
    scale: int
    animated: bool


def _opened(data: bytes) -> ImageFile:
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _checked_header(data: bytes, side: int, reserve: Callable[[int], object]) -> _Header:
    if is_webp(data):  # before its decoder is there, which takes memory at once
        size = webp_size(data)
        _reserve(size, _WEBP_BYTES * size[0] * size[1] + _WEBP_COPIES * len(data), side, reserve)
    with _opened(data) as image:
        scale = _draft_scale(image, side)
        if not is_webp(data):
            _reserve(image.size, _bytes_to_decode(image, scale), side, reserve)
        _check_tiles(image)
        header = _Header(size=image.size, scale=scale, animated=getattr(image, "is_animated", False))
        image.verify()  # the checksums of a PNG, which decoding does not look at
    return header


def _draft_scale(image: ImageFile, side: int) -> int:
    (width, height), scale = image.size, 1
    if isinstance(image, JpegImageFile):
        while scale < 8 and width * height > DRAFTED_PIXELS * scale**2 and min(width, height) >= 4 * scale * side:
            scale *= 2
    return scale


def _bytes_to_decode(image: ImageFile, scale: int) -> int:
    width, height = image.size
    pixels, channels = -(-width // scale) * -(-height // scale), len(image.getbands())
    if isinstance(image, JpegImageFile):  # one of several scans is kept as coefficients of 2 bytes
        return max(2 * channels * width * height + 4 * pixels, _PIXEL_BYTES * pixels)
    if isinstance(image, TiffImageFile):
        return max(2 * _tiff_tile_bytes(image) + 4 * pixels, _PIXEL_BYTES * pixels)
    return _PIXEL_BYTES * pixels


def _tiff_tile_bytes(image: TiffImageFile) -> int:
    """Bytes of the largest part that is unpacked at once: a strip, or a tile, which may be larger than the picture."""
    tags = image.tag_v2
    width, rows = image.width, min(int(tags.get(_TIFF_ROWS, image.height)), image.height)
    if _TIFF_TILE_WIDTH in tags:
        width, rows = int(tags[_TIFF_TILE_WIDTH]), int(tags[_TIFF_TILE_LENGTH])
    bits = max(tags.get(_TIFF_BITS, (1,))) * int(tags.get(_TIFF_SAMPLES, 1))
    return width * rows * max(4, -(-bits // 8))


def _reserve(size: tuple[int, int], decoding: int, side: int, reserve: Callable[[int], object]) -> None:
    """Refuses a picture that is too large, given the bytes that its decoding takes; reserves what it takes in all."""
    (width, height), longest = size, max(size)
    if longest > LARGEST_SIDE:
        found = f"the picture is too large: {width} x {height} pixels"
        raise ImageError(f"{found}, expected sides of at most {LARGEST_SIDE}: scale it down")
    needed = decoding + 4 * side * (longest + 3 * side)
    if needed > LARGEST_MEMORY:
        raise ImageError(
            f"the picture is too large: {width} x {height} pixels take {needed / 2**30:.1f} GiB of memory to decode and"
            f" resize, expected at most {LARGEST_MEMORY / 2**30:.1f} GiB: scale it down"
        )
    reserve(needed)


def _check_tiles(image: ImageFile) -> None:
    boxes = (tile.extents or (0, 0, 0, 0) for tile in image.tile)
    area = sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)
    if area > _TILES_AREA * image.width * image.height:
        raise ImageError("the picture is stored in parts that lie over each other: save it again")


def _orientation(exif: bytes, xmp: bytes) -> tuple[int, str]:
    try:
        return orientation_of(exif, xmp), ""
    except ValueError as error:
        return 1, f"its EXIF cannot be read ({error}), so it is taken as it is stored: check that it is upright"


def _upright(data: bytes, header: _Header, orientation: int) -> Image.Image:
    with _opened(data) as image:
        if header.scale > 1:
            image.draft(None, (header.size[0] // header.scale, header.size[1] // header.scale))
        image.load()
        return turned_upright(image, orientation)


def _in_8_bits(image: Image.Image) -> Image.Image:
    if image.mode in _WITHOUT_8_BIT_COLOURS:
        raise ImageError(f"the picture has colours of mode {image.mode}: save it with 8 bits a channel, as RGB")
    if image.mode not in _DEEP_MODES:
        return image
    grey = Image.new("L", image.size)
    for box in bands(image.size):
        values = np.asarray(image.crop(box)).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError("the picture has grey values of more than 16 bits: save it with 8 bits a channel")
        grey.paste(Image.fromarray(((values + 128) // 257).astype(np.uint8)), box)  # 65535 = 255 x 257
    return grey


def _without_transparency(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    if not image.has_transparency_data:
        return image.convert("RGB"), None
    picture, alpha = Image.new("RGB", image.size), Image.new("L", image.size)
    for box in bands(image.size):
        layered = image.crop(box).convert("RGBA")
        alpha.paste(layered.getchannel("A"), box)
        white = Image.new("RGBA", layered.size, "white")
        picture.paste(Image.alpha_composite(white, layered).convert("RGB"), box)
    lowest, highest = alpha.getextrema()
    if highest == 0:
        raise ImageError("the picture is transparent everywhere")
    return picture, None if lowest == 255 else alpha


def bands(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of strips of a picture, from top to bottom, to work on without a copy of it all."""
    width, height = size
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(top + rows, height)
