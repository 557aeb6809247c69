"""Pictures as `data:` URIs, small enough for one page."""

from __future__ import annotations

import base64
import dataclasses
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

_TINY = 96
"""Up to this edge in pixels a picture is kept as it is, losslessly, and shown with hard pixels."""


class Rung(NamedTuple):
    """How pictures are stored: their longest edge in pixels, and WebP's quality, 0 to 100."""

    edge: int
    quality: int


LADDER = (Rung(512, 86), Rung(384, 82), Rung(288, 78), Rung(192, 72), Rung(128, 65), Rung(_TINY, 50))
"""From the best to the smallest; a page takes the first one that it fits with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddedPicture:
    """A picture in the page: its URI, its size in pixels, whether it is shown with hard pixels, and its text."""

    uri: str
    width: int
    height: int
    is_tiny: bool
    alt: str


def embed_picture(pixels: np.ndarray, alt: str, rung: Rung) -> EmbeddedPicture:
    """The picture, uint8 [H, W, 3], as WebP; `alt` is what is read to those who cannot see it."""
    height, width = pixels.shape[:2]
    is_tiny = max(height, width) <= _TINY
    picture = Image.fromarray(pixels)
    picture.thumbnail((rung.edge, rung.edge), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    # Tiny pictures are smaller without loss than with it, and do not blur.
    picture.save(stream, format="WEBP", lossless=is_tiny, quality=rung.quality, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
    return EmbeddedPicture(uri=uri, width=picture.width, height=picture.height, is_tiny=is_tiny, alt=alt)
