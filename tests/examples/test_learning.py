"""Textual Inversion learns: every held-out concept, two seeds, by the project's own steps on the tiny world.

The bars are what a stranger would call learned, not what the best run reached. Shape, colour and texture are told by a
judge that learns nothing; CLIP scores come from pictures that were not trained on. `REACHED` are the concepts that
come to mean just what their true caption says; the others end half-way, as the page of the tiny world tells.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from examples.sprites.concepts import CONCEPTS
from examples.sprites.learning import TRAINING, Learned, import_models, learn

REACHED = ("purple-dotted-star", "yellow-striped-style")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """References to the tiny world's models."""
    return import_models(tmp_path_factory.mktemp("sprites"))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", REACHED)
def test_concept_is_learned(models: tuple[Path, Path], tmp_path: Path, name: str, seed: int) -> None:
    concept = CONCEPTS[name]
    learned = learn(concept, models, tmp_path, config=dataclasses.replace(TRAINING, seed=seed))

    assert_better_than_before(learned)
    assert learned.held_out_loss["after"] < 1.05 * learned.held_out_loss["true_caption"]
    assert learned.clip_i["after"] > learned.clip_i["true_caption"] - 0.08
    assert learned.clip_t["after"] >= 0.7
    assert_judged(learned)


@pytest.mark.parametrize("name", [name for name in CONCEPTS if name not in REACHED])
def test_concept_is_better_known_than_before(models: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    assert_better_than_before(learn(CONCEPTS[name], models, tmp_path))


def assert_better_than_before(learned: Learned) -> None:
    assert learned.held_out_loss["after"] < 0.6 * learned.held_out_loss["before"]
    assert learned.clip_i["after"] > learned.clip_i["before"] + 0.3
    assert learned.judged["before"]["colour"] < learned.judged["after"]["colour"] >= 0.9
    assert learned.passed


def assert_judged(learned: Learned) -> None:
    after = learned.judged["after"]
    assert after["shape"] >= 0.9
    assert after["texture"] >= 0.8
    if "place" in after:
        assert after["place"] >= 0.9
