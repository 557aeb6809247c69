from __future__ import annotations

import numpy as np
from diffusers import StableDiffusionPipeline

from examples.sprites.samples import draw_samples, sheet_of


def test_samples_follow_from_their_seed_and_position_alone(base_model: StableDiffusionPipeline):
    caption = "a photo of a red plain star on the snow"
    both = draw_samples(base_model, [caption] * 2, seed=3)
    first = draw_samples(base_model, [caption], seed=3)
    other_seed = draw_samples(base_model, [caption], seed=4)
    assert both.shape == (2, 32, 32, 3)
    assert both.dtype == np.uint8
    # A batch of another size may round differently.
    np.testing.assert_allclose(both[0].astype(int), first[0].astype(int), atol=2)
    for other in (both[1], other_seed[0]):
        assert np.abs(first[0].astype(int) - other.astype(int)).max() > 20


def test_sheet_puts_pictures_row_by_row():
    pictures = np.stack([np.full((32, 32, 3), value, np.uint8) for value in (10, 20, 30)])
    sheet = np.asarray(sheet_of(pictures, columns=2, scale=2, gap=3))
    assert sheet.shape == (3 + 2 * 67, 3 + 2 * 67, 3)
    corners = [sheet[3, 3], sheet[3, 70], sheet[70, 3], sheet[70, 70], sheet[0, 0]]
    assert [int(corner[0]) for corner in corners] == [10, 20, 30, 255, 255]
