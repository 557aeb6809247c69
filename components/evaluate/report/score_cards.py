"""The report's cards of scores: what each means, prompt by prompt, and samples beside the nearest training pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from components.common.artifacts import ImageSet, Sample
from components.common.champion import Gain
from components.common.pages.pictures import EmbeddedPicture
from components.common.score_labels import METRICS
from components.evaluate.report.charts import interval_scale
from components.evaluate.scoring.by_prompt import PromptScores
from components.evaluate.scoring.memorisation import Nearest
from components.evaluate.scoring.scores import Scores

_SHOWN_PAIRS = 4

_TITLES = {
    "clip_i": "Likeness to the concept (CLIP-I)",
    "clip_t": "Faithfulness to the prompt (CLIP-T)",
    "dino": "Likeness in detail (DINO)",
    "adherence": "What is left of the prompt",
    "diversity": "Diversity",
    "memorised": "Copies of training pictures",
    "flagged": "Objected to by the safety checker",
}


def score_tables(
    scores: Scores, *, described_by: str, initializer: str, copy_threshold: float, over_champion: Mapping[str, Gain]
) -> list[dict[str, Any]]:
    """For each score its table: title, what it is, the estimates, their scale and the gain.

    Args:
        scores: all of them.
        described_by: what stands in the placeholder's place for CLIP-T.
        initializer: the initializer token.
        copy_threshold: above which cosine a sample counts as a copy.
        over_champion: how much it is above the champion's, by score; empty where there is none.
    """
    about = {
        "clip_i": "Mean cosine in CLIP's space between every sample, of all prompts, and every picture of the concept. "
        "The concept's own pictures, held against each other, show what is possible.",
        "clip_t": "Mean cosine in CLIP's space between a sample and the text of its prompt, with "
        f"“{described_by}” in the placeholder's place.",
        "dino": "As CLIP-I in the space of a DINO model, which tells apart what CLIP gives one name.",
        "adherence": f"As CLIP-T with “{initializer}”, which training started from, in the placeholder's place: what "
        "the gain is below 0 was lost of the rest of the prompts.",
        "diversity": "Mean distance (1 less the cosine) in CLIP's space over all pairs of samples of one prompt, over "
        "the prompts: near 0 the seed makes no difference any more.",
        "memorised": "Share of samples whose nearest training picture has a cosine of more than "
        f"{copy_threshold:.3f} in CLIP's space: nearer than its mirrored, cropped or brightened copy that is farthest, "
        "and than any other picture of the concept. Lower is better.",
        "flagged": "Share of samples that the base model's safety checker objects to. They are shown blurred, and "
        "count in the scores. Lower is better.",
    }
    tables = []
    for metric, gain in scores.gain.items():
        estimates = {variant: row[metric] for variant, row in scores.variants.items() if metric in row}
        tables.append(
            {
                "title": _TITLES[metric],
                "explanation": about[metric],
                "estimates": estimates,
                "scale": interval_scale(estimates),
                "gain": gain,
                "over_champion": over_champion.get(metric),
            }
        )
    return tables


def prompt_table(by_prompt: Sequence[PromptScores]) -> dict[str, Any]:
    """The learned word's scores prompt by prompt: the names of the columns, and a row of cells for each prompt.

    Each cell has the mean after training, its interval, and its gain.
    """
    metrics = list(by_prompt[0].scores.gain) if by_prompt else []
    rows = [
        {
            "pieces": found.prompt.split("{}"),
            "cells": [(found.scores.variants["after"][metric], found.scores.gain[metric]) for metric in metrics],
        }
        for found in by_prompt
    ]
    return {"columns": [METRICS[metric].name for metric in metrics], "rows": rows}


def nearest_pairs(
    nearest: Mapping[str, Nearest],
    samples: Sequence[Sample],
    training_set: ImageSet | None,
    picture: Callable[[np.ndarray, str], EmbeddedPicture],
) -> list[dict[str, Any]]:
    """The learned word's samples nearest to a training picture: both pictures, their cosine, whether it is a copy."""
    if training_set is None or "after" not in nearest:
        return []
    found, pairs = nearest["after"], []
    for index in found.first(_SHOWN_PAIRS):
        sample, number = samples[index], int(found.picture[index])
        pairs.append(
            {
                "sample": picture(sample.pixels, f"near to a training picture: {sample.prompt}, seed {sample.seed}"),
                "training": picture(
                    training_set.pixels[number], f"nearest training picture: {training_set.pictures[number].source}"
                ),
                "cosine": float(found.cosine[index]),
                "is_copy": bool(found.memorised[index]),
            }
        )
    return pairs
