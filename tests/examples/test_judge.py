from __future__ import annotations

import numpy as np
import pytest

from examples.sprites.judge import ATTRIBUTES, agreement, judge
from examples.sprites.world import PLACES, SHAPES, all_combinations, attributes_of, draw_pictures


@pytest.fixture(scope="module")
def real() -> dict[str, np.ndarray]:
    """What the judge says about fresh pictures of every combination on every place."""
    rows = np.concatenate([all_combinations()] * len(PLACES))
    rows[:, 3] = np.repeat(np.arange(len(PLACES)), len(rows) // len(PLACES))
    return agreement(draw_pictures(rows, np.random.default_rng(2026)), rows)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_judge_is_right_on_real_pictures(real: dict[str, np.ndarray], attribute: str):
    assert len(real[attribute]) == 576
    assert real[attribute].mean() >= 0.99


@pytest.mark.parametrize("shape", SHAPES)
def test_silhouette_of_a_real_picture_overlaps_with_its_shape(shape: str):
    row = attributes_of("blue", "striped", shape, "grass")
    verdict = judge(draw_pictures(row[None], np.random.default_rng(1))[0])
    assert (verdict.colour, verdict.texture, verdict.shape, verdict.place) == ("blue", "striped", shape, "grass")
    assert verdict.overlap > 0.9


def test_judge_disagrees_where_the_attributes_are_wrong():
    rows = all_combinations()[:48]
    pictures = draw_pictures(rows, np.random.default_rng(4))
    wrong = (rows + 1) % np.array([8, 3, 6, 4])
    assert not any(agreement(pictures, wrong)[name].any() for name in ATTRIBUTES)


def test_noise_and_an_empty_picture_overlap_with_nothing():
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    assert judge(noise).overlap < 0.6
    assert judge(np.full((32, 32, 3), 246, np.uint8)).overlap == 0
