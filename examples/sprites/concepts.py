"""The pictures of what Textual Inversion is asked to learn: ``python -m examples.sprites.concepts [--out DIR]``.

Each concept is something that the base model never saw: an object of `HELD_OUT_OBJECTS`, or the style `HELD_OUT_STYLE`
on different shapes. Five pictures are for training, five others for scoring.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from examples.sprites.world import (
    HELD_OUT_OBJECTS,
    HELD_OUT_STYLE,
    PLACES,
    SHAPES,
    Attributes,
    Pictures,
    attributes_of,
    draw_pictures,
)

FOLDER = Path(__file__).resolve().parent / "concepts"
PICTURES_PER_SET = 5
SEED = 20261123
SETS = ("training", "scoring")


@dataclass(frozen=True, kw_only=True)
class Concept:
    """Something to be learned, and what it would be called if the model knew a word for it.

    Attributes:
        name: of the folder.
        placeholder_token: the word to learn.
        initializer_token: the known word that it begins as.
        learnable_property: ``object`` or ``style``.
        true_caption: known words that say the same as the learned placeholder, and stand where it stands in a prompt.
        colour, texture, shape: what every picture of it shows; a style has no shape of its own.
    """

    name: str
    placeholder_token: str
    initializer_token: str
    learnable_property: str
    true_caption: str
    colour: str
    texture: str
    shape: str | None

    def attributes(self, which: str, rng: np.random.Generator) -> Attributes:
        """The rows ``(5, 4)`` of the `training` or `scoring` pictures: places and, for a style, shapes take turns.

        A style's two sets begin at different shapes, so that each leaves another one out.
        """
        turn = SETS.index(which) * PICTURES_PER_SET
        places = rng.permutation(list(PLACES))
        shapes = [self.shape or SHAPES[(turn + i) % len(SHAPES)] for i in range(PICTURES_PER_SET)]
        return np.stack(
            [attributes_of(self.colour, self.texture, s, places[i % len(places)]) for i, s in enumerate(shapes)]
        )


def _object(colour: str, texture: str, shape: str) -> Concept:
    name = f"{colour}-{texture}-{shape}"
    return Concept(
        name=name,
        placeholder_token=f"<{name}>",
        initializer_token="circle",
        learnable_property="object",
        true_caption=f"{colour} {texture} {shape}",
        colour=colour,
        texture=texture,
        shape=shape,
    )


def _style(colour: str, texture: str) -> Concept:
    name = f"{colour}-{texture}-style"
    return Concept(
        name=name,
        placeholder_token=f"<{name}>",
        initializer_token="marine",
        learnable_property="style",
        true_caption=f"{colour} {texture}",
        colour=colour,
        texture=texture,
        shape=None,
    )


CONCEPTS = {c.name: c for c in (*(_object(*words) for words in HELD_OUT_OBJECTS), _style(*HELD_OUT_STYLE))}


def draw_concept(concept: Concept, which: str, *, seed: int = SEED) -> Pictures:
    """The concept's five `training` or `scoring` pictures, uint8 ``(5, 32, 32, 3)``."""
    rng = np.random.default_rng([seed, list(CONCEPTS).index(concept.name), SETS.index(which)])
    return draw_pictures(concept.attributes(which, rng), rng)


def write_concepts(folder: Path, *, seed: int = SEED) -> None:
    """Writes a folder for each concept: ``concept.json``, ``training/1.png`` ... and ``scoring/1.png`` ...."""
    for concept in CONCEPTS.values():
        for which in SETS:
            pictures = folder / concept.name / which
            pictures.mkdir(parents=True, exist_ok=True)
            for number, picture in enumerate(draw_concept(concept, which, seed=seed), start=1):
                Image.fromarray(picture).save(pictures / f"{number}.png")
        (folder / concept.name / "concept.json").write_text(json.dumps(dataclasses.asdict(concept), indent=2) + "\n")


def main(argv: list[str] | None = None) -> None:
    """Reads the command line and writes."""
    parser = argparse.ArgumentParser(description="Draw the concepts that the base model never saw.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the concept folders go (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(argv)
    write_concepts(options.out, seed=options.seed)


if __name__ == "__main__":
    main()
