from __future__ import annotations

import numpy as np
import pytest

from components.evaluate.scoring.health import Vocabulary, embedding_health, largest_norm_ratio, readable

TABLE = np.array([[2, 0, 0], [0, 2, 0], [0, 0, 2], [2, 2, 0]], np.float32)
VOCABULARY = Vocabulary(tokens=["cat</w>", "dog</w>", "toy", "<|endoftext|>"], table=TABLE)


def health_of(rows: list[list[float]], initial: list[list[float]]):
    tokens = ["<x>", "<x>_1"][: len(rows)]
    learned, before = ({"text_encoder": np.asarray(values, np.float32)} for values in (rows, initial))
    [encoder] = embedding_health(tokens, learned, before, {"text_encoder": VOCABULARY})
    return encoder


def test_norms_are_held_against_the_vocabulary():
    encoder = health_of([[0, 9, 0]], [[0, 0, 2]])
    mean = (3 * 2 + np.sqrt(8)) / 4

    assert encoder.norm_mean == pytest.approx(mean)
    assert 2 <= encoder.norm_p5 < encoder.norm_p95 <= np.sqrt(8)
    [row] = encoder.rows
    assert (row.token, row.norm, row.initial_norm) == ("<x>", 9, 2)
    assert row.norm_ratio == pytest.approx(9 / mean)
    assert row.cosine_to_initial == pytest.approx(0)
    assert largest_norm_ratio([encoder]) == row.norm_ratio


def test_nearest_words_come_by_cosine():
    [row] = health_of([[0.1, 5, 0]], [[0, 2, 0]]).rows

    assert [word for word, _ in row.nearest[:2]] == ["dog", "<|endoftext|>"]
    assert row.nearest[0][1] == pytest.approx(1, abs=1e-3)
    assert row.nearest[1][1] == pytest.approx(0.72, abs=0.01)
    assert row.cosine_to_initial == pytest.approx(1, abs=1e-3)


def test_rows_that_are_not_finite_are_left_out():
    encoder = health_of([[np.nan, 0, 0], [1, 0, 0]], [[2, 0, 0], [2, 0, 0]])
    assert [row.token for row in encoder.rows] == ["<x>_1"]

    encoder = health_of([[np.inf, 0, 0]], [[2, 0, 0]])
    assert encoder.rows == ()
    assert largest_norm_ratio([encoder]) == 0


@pytest.mark.parametrize(
    ("token", "shown"), [("cat</w>", "cat"), ("cat", "cat…"), ("<|endoftext|>", "<|endoftext|>"), ("</w>", "")]
)
def test_tokens_are_made_readable(token, shown):
    assert readable(token) == shown
