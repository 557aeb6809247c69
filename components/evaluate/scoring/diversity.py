"""How much the samples of one prompt differ: a concept that draws one picture whatever the seed has learned by heart.

Legend of shapes: s samples, prompt by prompt, n of each; d width of CLIP's space.

The diversity of a prompt is the mean of 1 - cosine over all pairs of its samples; that of all samples is the mean over
the prompts. The published practice is the same with other embeddings (LPIPS in arXiv 2208.12242, section 4.2).
"""

from __future__ import annotations

import numpy as np

from components.evaluate.scoring.scores import mean_cosines_with_others


def diversity(samples: np.ndarray, per_prompt: int) -> np.ndarray | None:
    """The share of each sample in the diversity, float64 [s]: their mean is that of a prompt, and of all.

    A pair has two samples, so the mean distance m of a sample to the others of its prompt, whose mean is M, moves the
    prompt's by twice its own part: the share is 2 m - M, the jackknife's to first order (Efron & Stein 1981). By m
    itself intervals would be half as wide as other seeds make them.

    Args:
        samples: unit embeddings [s, d], prompt by prompt.
        per_prompt: samples of each prompt; of one alone there is no pair, and None is given.
    """
    if per_prompt < 2:
        return None
    distances = [
        1 - mean_cosines_with_others(samples[start : start + per_prompt])
        for start in range(0, len(samples), per_prompt)
    ]
    return np.concatenate([2 * each - each.mean() for each in distances])
