from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.common.prompts import TEMPLATES
from examples.sprites.captions import every_word
from examples.sprites.concepts import CONCEPTS, SETS, draw_concept, write_concepts
from examples.sprites.judge import judge
from examples.sprites.world import HELD_OUT_OBJECTS, HELD_OUT_STYLE, attributes_of, is_held_out

CASES = [(name, which) for name in CONCEPTS for which in SETS]


def read_pictures(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.iterdir())])


@pytest.mark.parametrize(("name", "which"), CASES)
def test_committed_pictures_are_what_the_seed_draws(sprites: Path, name: str, which: str):
    committed = read_pictures(sprites / "concepts" / name / which)
    np.testing.assert_array_equal(committed, draw_concept(CONCEPTS[name], which))


def test_committed_folders_are_what_the_command_writes(sprites: Path, tmp_path: Path):
    write_concepts(tmp_path)
    written = {file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()}
    committed = sprites / "concepts"
    assert {file.relative_to(committed) for file in committed.rglob("*") if file.is_file()} == written
    for name, concept in CONCEPTS.items():
        described = json.loads((committed / name / "concept.json").read_text())
        assert described == dataclasses.asdict(concept) == json.loads((tmp_path / name / "concept.json").read_text())


def test_another_seed_draws_other_pictures():
    concept = CONCEPTS["purple-dotted-star"]
    assert not np.array_equal(draw_concept(concept, "training"), draw_concept(concept, "training", seed=1))


def test_concepts_are_all_that_is_held_out():
    objects = [c for c in CONCEPTS.values() if c.learnable_property == "object"]
    styles = [c for c in CONCEPTS.values() if c.learnable_property == "style"]
    assert [(c.colour, c.texture, c.shape) for c in objects] == list(HELD_OUT_OBJECTS)
    assert [(c.colour, c.texture, c.shape) for c in styles] == [(*HELD_OUT_STYLE, None)]


@pytest.mark.parametrize(("name", "which"), CASES)
def test_pictures_show_the_concept_and_nothing_that_was_trained_on(sprites: Path, name: str, which: str):
    concept = CONCEPTS[name]
    verdicts = [judge(picture) for picture in read_pictures(sprites / "concepts" / name / which)]
    assert {(v.colour, v.texture) for v in verdicts} == {(concept.colour, concept.texture)}
    assert all(is_held_out(attributes_of(v.colour, v.texture, v.shape, v.place)) for v in verdicts)
    assert len({v.place for v in verdicts}) == 4
    assert len({v.shape for v in verdicts}) == (1 if concept.shape else 5)


@pytest.mark.parametrize("name", CONCEPTS)
def test_training_and_scoring_pictures_are_ten_different_ones(sprites: Path, name: str):
    pictures = np.concatenate([read_pictures(sprites / "concepts" / name / which) for which in SETS])
    assert len({picture.tobytes() for picture in pictures}) == 10


def test_each_set_of_the_style_leaves_another_shape_out(sprites: Path):
    folder = sprites / "concepts" / "yellow-striped-style"
    shapes = [{judge(picture).shape for picture in read_pictures(folder / which)} for which in SETS]
    assert shapes[0] != shapes[1]


@pytest.mark.parametrize("name", CONCEPTS)
def test_words_of_a_concept_are_known_and_its_placeholder_is_not(name: str):
    concept = CONCEPTS[name]
    known = set(every_word())
    assert {concept.initializer_token, *concept.true_caption.split()} <= known
    assert concept.placeholder_token not in known
    assert concept.initializer_token not in concept.true_caption.split()
    assert concept.learnable_property in TEMPLATES
