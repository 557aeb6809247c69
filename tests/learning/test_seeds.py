"""From the start word that is found, every seed learns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.sprites.concepts import CONCEPTS
from examples.sprites.learning import HERE, import_models
from examples.sprites.seeds import RECIPE, SeedResult, learn_seeds

TABLE = [SeedResult(**row) for row in json.loads((HERE / "seeds.json").read_text())]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """References to the tiny world's models."""
    return import_models(tmp_path_factory.mktemp("sprites"))


def test_every_seed_of_every_concept_learned_in_the_table() -> None:
    for name in CONCEPTS:
        seeds = [row.seed for row in TABLE if row.concept == name]
        assert seeds == list(range(len(seeds))) and len(seeds) >= 2
    for row in TABLE:
        assert row.start_word_loss < row.no_word_loss and row.steps == RECIPE.max_train_steps
        assert row.is_learned, f"{row.concept}, seed {row.seed}: {row.after} against {row.true_caption}"


def test_the_hardest_concept_is_learned_from_the_word_that_is_found(models: tuple[Path, Path], tmp_path: Path) -> None:
    committed = {(row.concept, row.seed): row for row in TABLE}
    for found in learn_seeds(CONCEPTS["green-dotted-triangle"], models, tmp_path, seeds=(0,)):
        assert found.is_learned
        row = committed[found.concept, found.seed]
        assert (found.start_word, found.steps) == (row.start_word, row.steps)
        assert found.after == pytest.approx(row.after, rel=0.02)
