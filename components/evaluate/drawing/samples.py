"""The pictures of an evaluation: before and after training from the same seeds, and on the way between."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.common.artifacts import LEARNED_EMBEDS, LearnedEmbedding, Sample, Snapshot
from components.evaluate.config import EvaluateOptions
from components.evaluate.drawing.painter import Painter

MAX_PROGRESS = 10
"""Pictures of the way from the first to the last step, the two ends counted in."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawnSamples:
    """What was drawn.

    Attributes:
        variants: the samples of `before`, `after` and, where there are such, `champion` and `true_caption`: by prompt,
            then by seed, in the same order for each variant.
        progress: the first prompt at the first seed by the number of steps taken; its ends are samples of
            `before` and `after`.
    """

    variants: dict[str, tuple[Sample, ...]]
    progress: tuple[tuple[int, Sample], ...]

    def all(self) -> tuple[Sample, ...]:
        """Every sample once."""
        between = [found for _, found in self.progress[1:-1]]
        return (*(found for variant in self.variants.values() for found in variant), *between)


def draw_samples(painter: Painter, config: EvaluateOptions, learned: LearnedEmbedding, folder: Path) -> DrawnSamples:
    """Draws every sample of the evaluation; the concept enters as its users load it, from the artifact's file.

    Args:
        painter: of the base model, without the concept.
        config: prompts, seeds and how to draw.
        learned: the embedding.
        folder: the artifact that it was read from.
    """
    shots = _shots(config, learned)
    painter.load_concept(folder / LEARNED_EMBEDS)
    variants = {"after": _draw(painter, config, shots, "after", learned.placeholder_token)}
    between = []
    for snapshot in chosen_snapshots(learned):
        painter.write_rows(snapshot.rows)
        [found] = _draw(painter, config, shots[:1], f"step-{snapshot.step}", learned.placeholder_token)
        between.append((snapshot.step, found))
    painter.write_rows(learned.initial_rows)
    variants["before"] = _draw(painter, config, shots, "before", learned.placeholder_token)
    if config.reference_prompt:
        variants["true_caption"] = _draw(painter, config, shots, "true_caption", config.reference_prompt)
    start, end = (0, variants["before"][0]), (learned.steps, variants["after"][0])
    return DrawnSamples(
        variants={name: variants[name] for name in ("before", "after", "true_caption") if name in variants},
        progress=(start, *between, end),
    )


def draw_variant(
    painter: Painter, config: EvaluateOptions, learned: LearnedEmbedding, variant: str, word: str
) -> tuple[Sample, ...]:
    """The samples of every prompt and seed of the evaluation of `learned`, with `word` in the placeholder's place."""
    return _draw(painter, config, _shots(config, learned), variant, word)


def chosen_snapshots(learned: LearnedEmbedding) -> tuple[Snapshot, ...]:
    """The snapshots strictly between the first and the last step, evenly thinned to what is shown."""
    between = [found for found in learned.snapshots if 0 < found.step < learned.steps]
    kept = min(len(between), MAX_PROGRESS - 2)
    return tuple(between[round(i)] for i in np.linspace(0, len(between) - 1, kept))


def scoring_texts(config: EvaluateOptions, learned: LearnedEmbedding) -> tuple[str, ...]:
    """For each sample of a variant the text that CLIP-T holds it against.

    The scorer does not know the placeholder: in its place stand the reference prompt, which describes the concept
    exactly, or else the initializer token, a word for the kind of thing that it is.
    """
    return _texts(config, learned, config.reference_prompt or learned.initializer_token)


def initializer_texts(config: EvaluateOptions, learned: LearnedEmbedding) -> tuple[str, ...]:
    """For each sample of a variant its prompt with the initializer token in the placeholder's place."""
    return _texts(config, learned, learned.initializer_token)


def _texts(config: EvaluateOptions, learned: LearnedEmbedding, word: str) -> tuple[str, ...]:
    prompts = config.prompts_for(learned.learnable_property)
    return tuple(prompt.replace("{}", word) for prompt in prompts for _ in range(config.images_per_prompt))


def _shots(config: EvaluateOptions, learned: LearnedEmbedding) -> list[tuple[str, int]]:
    """Every prompt as many times as it is drawn, each with its seed."""
    prompts = config.prompts_for(learned.learnable_property)
    repeated = (prompt for prompt in prompts for _ in range(config.images_per_prompt))
    return [(prompt, config.seed + number) for number, prompt in enumerate(repeated)]


def _draw(
    painter: Painter,
    config: EvaluateOptions,
    shots: Sequence[tuple[str, int]],
    variant: str,
    word: str,
) -> tuple[Sample, ...]:
    prompts = [prompt.replace("{}", word) for prompt, _ in shots]
    seeds = [seed for _, seed in shots]
    pictures = painter.draw(prompts, seeds, config, label=f"sampling {variant}" if len(shots) > 1 else "")
    return tuple(
        Sample(variant=variant, prompt=prompt, seed=seed, pixels=pixels)
        for prompt, seed, pixels in zip(prompts, seeds, pictures, strict=True)
    )
