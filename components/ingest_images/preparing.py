"""Cropping and resizing, with the mathematics of the reference script."""

from __future__ import annotations

from PIL import Image

RESAMPLING = {
    "linear": Image.Resampling.BILINEAR,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


def crop_box(width: int, height: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the largest square in the middle, in pixels.

    Reference: `TextualInversionDataset.__getitem__` of diffusers' examples/textual_inversion.
    """
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def to_square(image: Image.Image, side: int, interpolation: str, center_crop: bool) -> Image.Image:
    """The picture as a square of `side` pixels, any mode.

    With `center_crop` from its middle, otherwise the whole of it, squeezed, as the reference script does.
    Reference: `TextualInversionDataset.__getitem__` of diffusers' examples/textual_inversion.
    """
    if center_crop:
        image = image.crop(crop_box(*image.size))
    return image.resize((side, side), resample=RESAMPLING[interpolation])


def crop_top_left(width: int, height: int, side: int, center_crop: bool) -> tuple[int, int]:
    """(top, left) of the crop in pixels of the resized picture; (0, 0) without a crop."""
    if not center_crop:
        return 0, 0
    left, top, right, _ = crop_box(width, height)
    scale = side / (right - left)
    return round(top * scale), round(left * scale)
