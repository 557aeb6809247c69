from __future__ import annotations

import numpy as np

from examples.sprites.diffusion_xl import CANVAS, draw_crops
from examples.sprites.world import SIZE

MANY = 400


def canvases_of_coordinates() -> np.ndarray:
    """Pictures uint8 ``(400, 48, 48, 3)`` whose first two channels are the row and the column of each pixel."""
    rows, columns = np.indices((CANVAS, CANVAS), np.uint8)
    return np.tile(np.stack([rows, columns, rows], axis=-1), (MANY, 1, 1, 1))


def test_time_ids_say_where_a_crop_comes_from():
    crops, time_ids = draw_crops(canvases_of_coordinates(), np.random.default_rng(0))
    assert crops.shape == (MANY, SIZE, SIZE, 3)
    original, top_left, target = np.split(time_ids.numpy(), 3, axis=1)
    enlarged = original.min(axis=1, keepdims=True) / SIZE
    original_corner = (CANVAS - original / enlarged) / 2  # of a picture around the middle of the canvas
    np.testing.assert_array_equal(crops[:, 0, 0, :2], original_corner + top_left)
    assert (top_left + SIZE <= original / enlarged).all()
    assert (target == SIZE).all()


def test_half_are_whole_pictures_and_half_were_twice_as_large():
    _, time_ids = draw_crops(canvases_of_coordinates(), np.random.default_rng(1))
    height, width, top, left, _, _ = time_ids.numpy().T
    assert 0.4 < np.mean(height == width) < 0.6
    assert set(time_ids[height == width].unique().tolist()) == {0, SIZE, 2 * SIZE}
    assert {top.max(), left.max()} == {float(CANVAS - SIZE)}
    assert 0.4 < np.mean(np.minimum(height, width) == 2 * SIZE) < 0.6
