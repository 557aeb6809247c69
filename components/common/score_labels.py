"""What people call the scores and what they are of: report, model card and gallery take it from here.

A score or a variant that is not listed is shown all the same, by its name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A score.

    Attributes:
        name: its short name, in tables.
        title: what it tells, as a heading.
        meaning: what it is, in words that follow its name.
        explanation: how it is measured, in sentences; `{word}` is what stands in the placeholder's place for it.
    """

    name: str
    title: str
    meaning: str
    explanation: str = ""


METRICS = {
    "clip_i": Metric(
        name="CLIP-I",
        title="Likeness to the concept",
        meaning="likeness of the samples to the training pictures",
        explanation="Mean cosine between every sample, of all prompts, and every picture of the concept. "
        "The concept's own pictures, held against each other, show what is possible.",
    ),
    "clip_t": Metric(
        name="CLIP-T",
        title="Faithfulness to the prompt",
        meaning="likeness of each sample to its prompt",
        explanation="Mean cosine between a sample and the text of its prompt, with “{word}” in the placeholder's "
        "place.",
    ),
}
"""The scores, in the order in which they are shown."""

VARIANTS = {
    "before": "before training",
    "after": "learned concept",
    "true_caption": "true caption instead",
    "real": "the pictures themselves",
}
"""What was scored, in the order in which it is shown."""


def metric(name: str) -> Metric:
    """What is known of a score; of an unknown one its name alone."""
    shown = name.replace("_", "-").upper()
    return METRICS.get(name) or Metric(name=shown, title=shown, meaning="")


def variant_label(name: str) -> str:
    """What a variant is called."""
    return VARIANTS.get(name, name.replace("_", " "))


def in_order(found: Iterable[str], known: Iterable[str]) -> list[str]:
    """The names found: those that are known in their order, then the others sorted."""
    found, known = set(found), list(known)
    return [name for name in known if name in found] + sorted(found - set(known))
