"""The scores of samples with bootstrap intervals, from unit embeddings.

Legend of shapes: s samples, r scoring pictures, d width of an embedding.

- `clip_i`: the mean cosine over all pairs of a sample and a scoring picture in CLIP's space, over the samples of all
  prompts; `clip_t`: the mean cosine of a sample and the text of its own prompt (Ruiz et al., arXiv 2208.12242, section
  4.2; the paper of Textual Inversion, arXiv 2208.01618, section 5, calls them image and text similarity).
- `dino`: as `clip_i`, in the space of a DINO or DINOv2 model, which tells apart what CLIP gives one name
  (arXiv 2208.12242, section 4.2).
- `adherence`: as `clip_t`, with the initializer token in the placeholder's place whatever describes the concept, so
  that its gain says how much of the rest of a prompt was lost with training.
- `diversity`: the mean of 1 - cosine in CLIP's space over all pairs of samples of one prompt, over the prompts; see
  `diversity.py`.
- `memorised`: the share of samples that are as near to a training picture as a copy of it is; see `memorisation.py`.
- `flagged`: the share of samples that the base model's safety checker objects to.

All are means over the samples, so each sample keeps its own value, and intervals come from drawing samples with
replacement. The scoring pictures are held fixed: an interval tells what other seeds would give, not what other
pictures would.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

METRICS = ("clip_i", "clip_t")
"""The two that every variant has, the real pictures too."""

ALL_METRICS = (*METRICS, "dino", "adherence", "diversity", "memorised", "flagged")
"""Every score in the order in which a person reads them; those after the first two are there where they were asked
for and can be told."""

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
    """The scores of each sample of one variant, float64 [s] each, in the order of the samples; None: not measured."""

    clip_i: np.ndarray
    clip_t: np.ndarray
    dino: np.ndarray | None = None
    adherence: np.ndarray | None = None
    diversity: np.ndarray | None = None
    memorised: np.ndarray | None = None
    flagged: np.ndarray | None = None

    def by_metric(self) -> dict[str, np.ndarray]:
        """What was measured, by `ALL_METRICS`."""
        return {metric: values for metric in ALL_METRICS if (values := getattr(self, metric)) is not None}

    def part(self, samples: slice) -> VariantScores:
        """The scores of some of the samples."""
        return VariantScores(**{metric: values[samples] for metric, values in self.by_metric().items()})


def score_samples(samples: np.ndarray, texts: np.ndarray, scoring_pictures: np.ndarray) -> VariantScores:
    """The scores of each sample.

    Args:
        samples: unit embeddings of the samples, [s, d].
        texts: unit embeddings of each sample's text, [s, d].
        scoring_pictures: unit embeddings of the concept's pictures, [r, d].
    """
    return VariantScores(clip_i=mean_cosines(samples, scoring_pictures), clip_t=own_cosines(samples, texts))


def mean_cosines(samples: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """For each sample its mean cosine with all pictures, float64 [s], from unit embeddings [s, d] and [r, d]."""
    pairs: np.ndarray = np.asarray(samples, np.float64) @ np.asarray(pictures, np.float64).T
    return pairs.mean(axis=1)


def own_cosines(samples: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """For each sample its cosine with its own text, float64 [s], from unit embeddings [s, d] each."""
    found: np.ndarray = (np.asarray(samples, np.float64) * np.asarray(texts, np.float64)).sum(axis=1)
    return found


def mean_cosines_with_others(pictures: np.ndarray) -> np.ndarray:
    """For each picture its mean cosine with the others, float64 [r], from unit embeddings [r, d] of two or more."""
    pairs: np.ndarray = np.asarray(pictures, np.float64) @ np.asarray(pictures, np.float64).T
    return (pairs.sum(axis=1) - np.diag(pairs)) / (len(pairs) - 1)


def score_scoring_pictures(scoring_pictures: np.ndarray, text: np.ndarray) -> VariantScores | None:
    """What real pictures score: each against the others and against `text` [d]; None when there is only one.

    It says how alike the concept's own pictures are, which good samples come near to.
    """
    if len(scoring_pictures) < 2:
        return None
    clip_t = np.asarray(scoring_pictures, np.float64) @ np.asarray(text, np.float64)
    return VariantScores(clip_i=mean_cosines_with_others(scoring_pictures), clip_t=clip_t)


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
        variants: `{variant: {"clip_i": .., "clip_t": .., ...}}`, by what was measured of `ALL_METRICS`.
        gain: how much `after` is above `before`, by metric, sample by sample: both have the same prompt and seed.
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
    before, after = (variants[variant].by_metric() for variant in ("before", "after"))
    return Scores(
        variants={
            variant: {metric: estimate(values, seed=seed) for metric, values in found.by_metric().items()}
            for variant, found in variants.items()
        },
        gain={metric: paired_gain(before[metric], after[metric], seed=seed) for metric in after},
    )


def table_lines(scores: Scores) -> list[str]:
    """The scores as aligned lines for the log: a table for every two scores, a line for each variant."""
    rows = {**scores.variants, "gain": scores.gain}
    width = max(len(variant) for variant in rows)
    lines, measured = [], list(scores.gain)
    for metrics in (measured[start : start + 2] for start in range(0, len(measured), 2)):
        titles = (f"{_in_log(metric)}  (95% interval)" for metric in metrics)
        lines.append(f"{'':{width}}  {'  '.join(f'{title:26}' for title in titles)}".rstrip())
        lines += [
            f"{variant:{width}}  {'  '.join(_cell(row, metric) for metric in metrics)}"
            for variant, row in rows.items()
            if any(metric in row for metric in metrics)
        ]
    return lines


def _in_log(metric: str) -> str:
    return metric.upper().replace("_", "-") if metric in (*METRICS, "dino") else metric


def _cell(row: Mapping[str, Estimate], metric: str) -> str:
    found = row.get(metric)
    return f"{found.value:6.3f}  ({found.low:6.3f} .. {found.high:6.3f})" if found else " " * 26
