"""What a learned concept must show before it may be published."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from components.common.artifacts import LearnedEmbedding
from components.common.drawing import is_blank
from components.evaluate.config import EvaluateOptions
from components.evaluate.scoring.scores import Scores

LARGE_NORM_RATIO = 10.0
"""From here on rows tend to drown the rest of a prompt (arXiv 2512.13672 speaks of 50 and more)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that the gate looked at, whether it is accepted, and a sentence that says why."""

    name: str
    passed: bool
    sentence: str


def run_checks(
    config: EvaluateOptions,
    *,
    learned: LearnedEmbedding,
    scores: Scores,
    samples: Sequence[np.ndarray],
    norm_ratio: float,
) -> tuple[Check, ...]:
    """Every check of the gate, those that are turned off left out.

    Args:
        config: the thresholds.
        learned: the embedding.
        scores: from `scores.summarize`.
        samples: the pictures drawn with the learned rows and with the initial ones, uint8 [H, W, 3].
        norm_ratio: the largest norm of a row over the vocabulary's mean norm.
    """
    after = scores.variants["after"]
    checks = [_finite(learned), _trained(learned), _drawn(samples), _gain(config, learned, scores)]
    if config.min_clip_i:
        checks.append(_least_clip_i(config, after["clip_i"].value))
    if config.min_clip_t:
        checks.append(_least_clip_t(config, after["clip_t"].value, norm_ratio))
    return tuple(checks)


def _finite(learned: LearnedEmbedding) -> Check:
    bad = sum(int((~np.isfinite(rows)).sum()) for rows in learned.rows.values())
    total = sum(rows.size for rows in learned.rows.values())
    if bad == 0:
        return Check(name="Rows are finite", passed=True, sentence=f"All {total} learned numbers are finite.")
    sentence = (
        f"{bad} of the {total} learned numbers are not finite: training diverged; lower learning_rate, "
        "or train with mixed_precision no."
    )
    return Check(name="Rows are finite", passed=False, sentence=sentence)


def _trained(learned: LearnedEmbedding) -> Check:
    name = "Rows were trained"
    same = all(np.array_equal(learned.rows[key], learned.initial_rows[key]) for key in learned.rows)
    if learned.steps == 0 or same:
        sentence = (
            f"The rows are still those of {learned.origin} after {learned.steps} training steps, "
            "so the concept is untrained: raise max_train_steps or learning_rate."
        )
        return Check(name=name, passed=False, sentence=sentence)
    return Check(name=name, passed=True, sentence=f"They changed in {learned.steps} training steps.")


def _drawn(samples: Sequence[np.ndarray]) -> Check:
    name = "Samples show something"
    blank = sum(is_blank(picture) for picture in samples)
    if blank == 0:
        return Check(name=name, passed=True, sentence=f"None of the {len(samples)} samples is blank.")
    sentence = (
        f"{blank} of the {len(samples)} samples are blank: the rows or the base model gave values that are not finite, "
        "in float32 too; lower learning_rate."
    )
    return Check(name=name, passed=False, sentence=sentence)


def _gain(config: EvaluateOptions, learned: LearnedEmbedding, scores: Scores) -> Check:
    before, after = (scores.variants[variant]["clip_i"].value for variant in ("before", "after"))
    gain = scores.gain["clip_i"].value
    compared = (
        f"CLIP-I {after:.2f} is {abs(gain):.2f} {'above' if gain >= 0 else 'below'} the {before:.2f} of "
        f"{learned.origin}, which it started from"
    )
    if gain >= config.min_clip_i_gain:
        return Check(name="Closer than the initializer", passed=True, sentence=f"{compared}.")
    sentence = (
        f"{compared}; a gain of {config.min_clip_i_gain:.2f} is asked for (min_clip_i_gain): "
        "train longer, choose a learning_rate that suits, or look whether the pictures show one thing."
    )
    return Check(name="Closer than the initializer", passed=False, sentence=sentence)


def _least_clip_i(config: EvaluateOptions, found: float) -> Check:
    name = "Like the pictures"
    if found >= config.min_clip_i:
        return Check(
            name=name,
            passed=True,
            sentence=f"CLIP-I {found:.2f} reaches the {config.min_clip_i:.2f} asked for.",
        )
    sentence = (
        f"CLIP-I {found:.2f} is below the {config.min_clip_i:.2f} asked for (min_clip_i): "
        "train longer, or with more vectors (num_vectors)."
    )
    return Check(name=name, passed=False, sentence=sentence)


def _least_clip_t(config: EvaluateOptions, found: float, norm_ratio: float) -> Check:
    name = "Follows the prompt"
    if found >= config.min_clip_t:
        return Check(
            name=name,
            passed=True,
            sentence=f"CLIP-T {found:.2f} reaches the {config.min_clip_t:.2f} asked for.",
        )
    reason = "train for fewer steps or with a lower learning_rate, so that the rest of the prompt is heard"
    if norm_ratio >= LARGE_NORM_RATIO:
        reason = (
            f"the rows are {norm_ratio:.0f} times as long as the vocabulary's and drown the prompt; "
            "train with max_embedding_norm, for fewer steps, or with a lower learning_rate"
        )
    sentence = f"CLIP-T {found:.2f} is below the {config.min_clip_t:.2f} asked for (min_clip_t): {reason}."
    return Check(name=name, passed=False, sentence=sentence)
