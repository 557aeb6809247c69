"""What a UNet with time ids is told of a picture: how large it was, and where it was cut out."""

from __future__ import annotations

from components.common.artifacts import Picture

TimeIds = tuple[int, int, int, int, int, int]
"""Original height and width, top and left of the crop, height and width of the cut: all in pixels."""


def time_ids(picture: Picture, *, mirrored: bool) -> TimeIds:
    """The time ids of a prepared picture, as it is or mirrored left to right.

    The picture is mirrored before it is cut, so that what was to the right of the cut is then to the left of it.
    Reference: `_get_add_time_ids` of diffusers' `StableDiffusionXLPipeline`; arXiv 2307.01952, section 2.2.
    """
    top, left = picture.crop_top_left
    if mirrored and left:
        height, width = picture.original_size
        resized_width = round(width * picture.size[0] / height)  # only the wider than high are cut at the sides
        left = max(0, resized_width - left - picture.size[1])
    return (*picture.original_size, top, left, *picture.size)


def drawing_time_ids(height: int, width: int) -> TimeIds:
    """The time ids that pictures are drawn with by default: not cut, of that many pixels."""
    return height, width, 0, 0, height, width
