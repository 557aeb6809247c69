"""CLIP-I and CLIP-T with bootstrap intervals, from unit embeddings.

Legend of shapes: s samples, r scoring pictures, d width of the shared CLIP space.

CLIP-I is the mean cosine over all pairs of a sample and a scoring picture, over the samples of all prompts;
CLIP-T is the mean cosine of a sample and the text of its own prompt (Ruiz et al., arXiv 2208.12242, section
4.2; the paper of Textual Inversion, arXiv 2208.01618, section 5, calls them image and text similarity). Both
are means over the samples, so each sample keeps its own value, and intervals come from drawing samples with
replacement. The scoring pictures are held fixed: an interval tells what other seeds would give, not what other
pictures would.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

METRICS = ("clip_i", "clip_t")
RESAMPLES = 2000
_LEVEL = 0.95


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over samples with its 95% bootstrap interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantScores:
    """The scores of each sample of one variant, float64 [s] each, in the order of the samples."""

    clip_i: np.ndarray
    clip_t: np.ndarray


def score_samples(samples: np.ndarray, texts: np.ndarray, scoring_pictures: np.ndarray) -> VariantScores:
    """The scores of each sample.

    Args:
        samples: unit embeddings of the samples, [s, d].
        texts: unit embeddings of each sample's text, [s, d].
        scoring_pictures: unit embeddings of the concept's pictures, [r, d].
    """
    samples, texts = np.asarray(samples, np.float64), np.asarray(texts, np.float64)
    pairs = samples @ np.asarray(scoring_pictures, np.float64).T
    return VariantScores(clip_i=pairs.mean(axis=1), clip_t=(samples * texts).sum(axis=1))


def score_scoring_pictures(scoring_pictures: np.ndarray, text: np.ndarray) -> VariantScores | None:
    """What real pictures score: each against the others and against `text` [d]; None when there is only one.

    It says how alike the concept's own pictures are, which good samples come near to.
    """
    count = len(scoring_pictures)
    if count < 2:
        return None
    pictures = np.asarray(scoring_pictures, np.float64)
    pairs = pictures @ pictures.T
    others = (pairs.sum(axis=1) - np.diag(pairs)) / (count - 1)
    return VariantScores(clip_i=others, clip_t=pictures @ np.asarray(text, np.float64))


def estimate(values: np.ndarray, *, seed: int = 0) -> Estimate:
    """The mean of `values` [s] with its 95% percentile bootstrap interval (Efron 1979), the same for a seed.

    One value alone has an interval of no width: there is nothing to draw from.
    """
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(np.asarray(values)[drawn].mean(axis=1), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Estimate(value=float(np.mean(values)), low=float(low), high=float(high))


def paired_gain(before: np.ndarray, after: np.ndarray, *, seed: int = 0) -> Estimate:
    """How much `after` is above `before`, float [s] each: sample i of both has the same prompt and seed."""
    return estimate(np.asarray(after) - np.asarray(before), seed=seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """All scores of an evaluation.

    Attributes:
        variants: `{variant: {"clip_i": .., "clip_t": ..}}`.
        gain: how much `after` is above `before`, by metric.
    """

    variants: Mapping[str, Mapping[str, Estimate]]
    gain: Mapping[str, Estimate]

    def values(self) -> dict[str, dict[str, float]]:
        """The means alone, by variant and metric."""
        return {
            variant: {metric: found.value for metric, found in row.items()} for variant, row in self.variants.items()
        }

    def intervals(self) -> dict[str, dict[str, list[float]]]:
        """`[low, high]` by variant and metric, with the variant `gain`."""
        return {
            variant: {metric: [found.low, found.high] for metric, found in row.items()}
            for variant, row in {**self.variants, "gain": self.gain}.items()
        }


def summarize(variants: Mapping[str, VariantScores], *, seed: int = 0) -> Scores:
    """The mean of every variant and metric with its interval; `before` and `after` must be among them."""
    before, after = variants["before"], variants["after"]
    return Scores(
        variants={
            variant: {metric: estimate(getattr(found, metric), seed=seed) for metric in METRICS}
            for variant, found in variants.items()
        },
        gain={metric: paired_gain(getattr(before, metric), getattr(after, metric), seed=seed) for metric in METRICS},
    )


def table_lines(scores: Scores) -> list[str]:
    """The scores as aligned lines for the log, one for each variant."""
    rows = {**scores.variants, "gain": scores.gain}
    width = max(len(variant) for variant in rows)
    lines = [f"{'':{width}}  {'CLIP-I  (95% interval)':26}  CLIP-T  (95% interval)"]
    for variant, row in rows.items():
        cells = [f"{row[m].value:6.3f}  ({row[m].low:6.3f} .. {row[m].high:6.3f})" for m in METRICS]
        lines.append(f"{variant:{width}}  {'  '.join(cells)}")
    return lines
