"""The scores prompt by prompt: a mean over all prompts hides the one that a concept ruins."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluate.scoring.scores import Scores, VariantScores, summarize


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptScores:
    """The scores of one prompt's samples."""

    prompt: str
    scores: Scores

    def content(self) -> dict[str, Any]:
        """As JSON values: the prompt, `scores` and `intervals`."""
        return {"prompt": self.prompt, "scores": self.scores.values(), "intervals": self.scores.intervals()}


def scores_by_prompt(
    prompts: Sequence[str], variants: Mapping[str, VariantScores], per_prompt: int, *, seed: int = 0
) -> tuple[PromptScores, ...]:
    """The scores of each prompt; the real pictures are of no prompt and left out.

    Args:
        prompts: with {} in the placeholder's place, in the order of the samples.
        variants: the scores of each sample, prompt by prompt.
        per_prompt: samples of each prompt.
        seed: of the intervals.
    """
    drawn = {variant: found for variant, found in variants.items() if variant != "real"}
    found = []
    for number, prompt in enumerate(prompts):
        samples = slice(number * per_prompt, (number + 1) * per_prompt)
        scores = summarize({variant: each.part(samples) for variant, each in drawn.items()}, seed=seed)
        found.append(PromptScores(prompt=prompt, scores=scores))
    return tuple(found)
