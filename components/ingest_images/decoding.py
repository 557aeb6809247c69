"""What a picture file shows: RGB pixels, upright, with the transparency kept apart."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
from PIL import Image

from components.common.errors import ImageError
from components.ingest_images.containers import take_apart
from components.ingest_images.orientation import orientation_of, turned_upright

_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_WITHOUT_8_BIT_COLOURS = ("F", "LAB", "HSV")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoded:
    """A picture as it is to be seen.

    Attributes:
        picture: mode RGB, EXIF orientation applied, transparent parts on white; colour profiles left aside.
        mask: mode L, the alpha channel, or None when everything is opaque.
        frames: how many frames the file has; the first is shown.
        remark: why the orientation could not be read; empty where it could.
    """

    picture: Image.Image
    mask: Image.Image | None
    frames: int
    remark: str = ""


def decode_picture(data: bytes) -> Decoded:
    """The picture that a file's bytes hold, decoded to the last pixel; what lies beside the pixels may be damaged.

    Raises:
        ImageError: when the bytes are no picture, not all of one, or of a kind without 8-bit colours.
    """
    if not data:
        raise ImageError("the file is empty")
    parts = take_apart(data)
    try:
        with Image.open(io.BytesIO(parts.pixels)) as image:
            image.verify()  # the checksums of a PNG, which decoding does not look at
        with Image.open(io.BytesIO(parts.pixels)) as image:
            frames = getattr(image, "n_frames", 1)
            image.load()
            orientation, remark = _orientation(parts.exif, parts.xmp)
            upright = _in_8_bits(turned_upright(image, orientation))
        return dataclasses.replace(_without_transparency(upright, frames), remark=remark)
    except ImageError:
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"this is no picture that can be read: it begins with {data[:16]!r}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"the picture is too large: {error}") from error
    except Exception as error:  # Pillow's decoders raise whatever their parsing runs into
        raise ImageError(f"the picture is damaged or cut short: {error}") from error


def _orientation(exif: bytes, xmp: bytes) -> tuple[int, str]:
    try:
        return orientation_of(exif, xmp), ""
    except ValueError as error:
        return 1, f"its EXIF cannot be read ({error}), so it is taken as it is stored: check that it is upright"


def _in_8_bits(image: Image.Image) -> Image.Image:
    if image.mode in _WITHOUT_8_BIT_COLOURS:
        raise ImageError(f"the picture has colours of mode {image.mode}: save it with 8 bits a channel, as RGB")
    if image.mode not in _DEEP_MODES:
        return image
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("the picture has grey values of more than 16 bits: save it with 8 bits a channel")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 = 255 x 257


def _without_transparency(image: Image.Image, frames: int) -> Decoded:
    if not image.has_transparency_data:
        return Decoded(picture=image.convert("RGB"), mask=None, frames=frames)
    layered = image.convert("RGBA")
    alpha = layered.getchannel("A")
    lowest, highest = alpha.getextrema()
    if highest == 0:
        raise ImageError("the picture is transparent everywhere")
    white = Image.new("RGBA", layered.size, "white")
    picture = Image.alpha_composite(white, layered).convert("RGB")
    return Decoded(picture=picture, mask=None if lowest == 255 else alpha, frames=frames)
