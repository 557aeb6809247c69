"""How a picture is to be turned, as a camera or an editor says beside its pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping

from PIL import Image

from components.ingest_images.tiff_tags import ORIENTATION, Tag, first_tags

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)
"""Orientations that exchange width and height."""
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def orientation_of(exif: bytes, xmp: bytes) -> int:
    """The orientation, 1 to 8, from EXIF or else from XMP; 1 (upright) where neither has a valid one.

    The other entries of EXIF do not matter, whatever they are. Reference: EXIF 2.3, section 4.6.4, tag 0x0112.

    Raises:
        ValueError: when there is EXIF, but damaged in its structure, and XMP does not say it either.
    """
    problem: ValueError | None = None
    tags: Mapping[int, Tag] = {}
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    if exif:
        try:
            tags = first_tags(exif)
        except ValueError as error:
            problem = error
    found: int | None = None
    if ORIENTATION in tags:
        found = tags[ORIENTATION].integer
    elif in_xmp := _IN_XMP.search(xmp):
        found = int(in_xmp[1])
    elif problem is not None:
        raise problem
    return found if found is not None and found in _TURNS else 1


def turned_upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as it is to be seen, given how it is stored."""
    return image if orientation == 1 else image.transpose(_TURNS[orientation])
