from __future__ import annotations

import dataclasses

import pytest

from components.common.artifacts import Snapshot
from components.evaluate.config import EvaluateConfig
from components.evaluate.drawing.samples import chosen_snapshots, scoring_texts
from tests.evaluate.contents import learned_embedding


def learned_with_snapshots(steps: list[int], total: int):
    learned = learned_embedding(steps=total)
    snapshots = tuple(Snapshot(step=step, rows=learned.rows) for step in steps)
    return dataclasses.replace(learned, snapshots=snapshots)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], []),
        ([100], []),  # the last one is the learned embedding itself
        ([25, 50, 75, 100], [25, 50, 75]),
        (list(range(1, 101)), [1, 15, 29, 43, 57, 71, 85, 99]),
    ],
)
def test_snapshots_are_thinned_evenly(steps, expected):
    assert [found.step for found in chosen_snapshots(learned_with_snapshots(steps, 100))] == expected


def test_scoring_texts_have_a_word_in_the_placeholders_place():
    config = EvaluateConfig(prompts=("a photo of a {}", "a {} on a {}"), images_per_prompt=2)
    assert scoring_texts(config, learned_embedding()) == ("a photo of a toy",) * 2 + ("a toy on a toy",) * 2

    config = dataclasses.replace(config, reference_prompt="purple star")
    assert scoring_texts(config, learned_embedding())[0] == "a photo of a purple star"
