"""What a UNet is told of size and crop, held against diffusers and against mirroring a picture before it is cut."""

from __future__ import annotations

import numpy as np
import pytest

from components.common.artifacts import Picture
from components.common.time_ids import drawing_time_ids, time_ids
from components.ingest_images.preparing import crop_box, crop_top_left


def prepared(width: int, height: int, side: int, *, center_crop: bool) -> Picture:
    return Picture(
        source="a.png",
        caption=None,
        original_size=(height, width),
        crop_top_left=crop_top_left(width, height, side, center_crop),
        size=(side, side),
    )


@pytest.mark.parametrize(("width", "height"), [(64, 32), (65, 32), (32, 64), (32, 32), (1920, 1080)])
def test_crop_of_the_mirrored_picture_is_where_the_same_pixels_are_in_it(width: int, height: int) -> None:
    side = min(width, height)  # nothing is resized
    picture = prepared(width, height, side, center_crop=True)
    columns = np.arange(width)
    left = time_ids(picture, mirrored=False)[3]
    cut = columns[left : left + side]
    mirrored_left = time_ids(picture, mirrored=True)[3]
    assert (columns[::-1][mirrored_left : mirrored_left + side] == cut[::-1]).all()
    assert left == crop_box(width, height)[0]


def test_coordinates_are_those_of_the_resized_picture() -> None:
    picture = prepared(1920, 1080, 512, center_crop=True)
    assert time_ids(picture, mirrored=False) == (1080, 1920, 0, 199, 512, 512)
    assert time_ids(picture, mirrored=True) == (1080, 1920, 0, 199, 512, 512)


def test_picture_that_was_not_cut_has_no_crop_either_way() -> None:
    picture = prepared(64, 32, 16, center_crop=False)
    assert time_ids(picture, mirrored=False) == time_ids(picture, mirrored=True) == (32, 64, 0, 0, 16, 16)


def test_drawing_is_told_the_size_alone() -> None:
    assert drawing_time_ids(768, 1024) == (768, 1024, 0, 0, 768, 1024)
