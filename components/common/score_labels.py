"""What people call the scores and what they are of: report, model card and gallery take it from here.

A score or a variant that is not listed is shown all the same, by its name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A score: its short name, and what it is in words that follow it; empty where that is not known."""

    name: str
    meaning: str


METRICS = {
    "clip_i": Metric(name="CLIP-I", meaning="likeness of the samples to the training pictures"),
    "clip_t": Metric(name="CLIP-T", meaning="likeness of each sample to its prompt"),
    "dino": Metric(name="DINO", meaning="likeness in detail"),
    "adherence": Metric(
        name="prompt left", meaning="likeness to the prompt with the initializer word in the learned word's place"
    ),
    "diversity": Metric(name="diversity", meaning="how much samples of one prompt differ"),
    "memorised": Metric(
        name="copies",
        meaning="share of samples that are as near to a training picture as a copy; lower is better",
    ),
    "flagged": Metric(
        name="flagged",
        meaning="share of samples that the safety checker objects to, shown blurred; lower is better",
    ),
}
"""The scores, in the order in which they are shown."""

HIGHER_IS_BETTER = "Higher is better where nothing else is said."

VARIANTS = {
    "before": "before training",
    "after": "learned concept",
    "champion": "the champion then",
    "true_caption": "true caption instead",
    "real": "the pictures themselves",
}
"""What was scored, in the order in which it is shown."""


def metric(name: str) -> Metric:
    """What is known of a score; of an unknown one its name alone."""
    return METRICS.get(name) or Metric(name=name.replace("_", " "), meaning="")


def variant_label(name: str) -> str:
    """What a variant is called."""
    return VARIANTS.get(name, name.replace("_", " "))


def in_order(found: Iterable[str], known: Iterable[str]) -> list[str]:
    """The names found: those that are known in their order, then the others sorted."""
    found, known = set(found), list(known)
    return [name for name in known if name in found] + sorted(found - set(known))
