from __future__ import annotations

import numpy as np
import pytest

from components.evaluate.scoring.scores import (
    VariantScores,
    estimate,
    paired_gain,
    score_samples,
    score_scoring_pictures,
    summarize,
    table_lines,
)


def unit(*rows: list[float]) -> np.ndarray:
    values = np.asarray(rows, np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_clip_i_is_one_when_all_pictures_are_the_same():
    same = unit([1, 2, 3])
    found = score_samples(np.repeat(same, 4, axis=0), np.repeat(same, 4, axis=0), np.repeat(same, 3, axis=0))

    np.testing.assert_allclose(found.clip_i, 1, atol=1e-6)
    np.testing.assert_allclose(found.clip_t, 1, atol=1e-6)


def test_clip_i_is_the_mean_over_all_pairs():
    rng = np.random.default_rng(0)
    samples, texts, pictures = (unit(*rng.normal(size=(n, 8)).tolist()) for n in (6, 6, 3))
    found = score_samples(samples, texts, pictures)

    assert found.clip_i.mean() == pytest.approx(np.mean([a @ b for a in samples for b in pictures]), abs=1e-6)
    assert found.clip_t.tolist() == pytest.approx([a @ b for a, b in zip(samples, texts, strict=True)], abs=1e-6)


def test_scoring_pictures_are_held_against_the_others_alone():
    pictures = unit([1, 0], [1, 0], [0, 1])
    found = score_scoring_pictures(pictures, np.array([0.0, 1.0]))

    assert found is not None
    np.testing.assert_allclose(found.clip_i, [0.5, 0.5, 0.0], atol=1e-6)
    np.testing.assert_allclose(found.clip_t, [0, 0, 1], atol=1e-6)


def test_one_scoring_picture_has_nothing_to_be_held_against():
    assert score_scoring_pictures(unit([1, 0]), np.array([1.0, 0.0])) is None


def test_interval_covers_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        found = estimate(rng.normal(0.5, 0.1, 40), seed=seed)
        assert found.low <= found.value <= found.high
        covered += found.low <= 0.5 <= found.high

    # A percentile bootstrap of 40 values covers a little less than 95%; 4 deviations of 200 draws are 6%.
    assert 0.87 <= covered / 200 <= 0.99


def test_interval_is_the_same_for_a_seed_and_as_wide_as_theory_says():
    values = np.random.default_rng(1).normal(0, 1, 400)
    found = estimate(values, seed=7)

    assert found == estimate(values, seed=7)
    assert found != estimate(values, seed=8)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_interval_of_one_value_has_no_width():
    found = estimate(np.array([0.25]))
    assert (found.low, found.value, found.high) == (0.25, 0.25, 0.25)


def test_gain_uses_that_samples_are_paired():
    rng = np.random.default_rng(0)
    before = rng.normal(0.5, 0.2, 16)  # prompts differ much
    after = before + 0.1  # but each gains the same
    gain = paired_gain(before, after)

    assert gain.value == pytest.approx(0.1)
    assert gain.high - gain.low < 1e-9


def scores_of(value: float, count: int = 4) -> VariantScores:
    values = value + np.linspace(-0.1, 0.1, count)
    return VariantScores(clip_i=values, clip_t=values / 2)


def test_summary_has_means_intervals_and_gain():
    found = summarize({"before": scores_of(0.4), "after": scores_of(0.7)})

    assert found.values() == {
        "before": {"clip_i": pytest.approx(0.4), "clip_t": pytest.approx(0.2)},
        "after": {"clip_i": pytest.approx(0.7), "clip_t": pytest.approx(0.35)},
    }
    assert found.gain["clip_i"].value == pytest.approx(0.3)
    intervals = found.intervals()
    assert set(intervals) == {"before", "after", "gain"}
    low, high = intervals["after"]["clip_i"]
    assert 0.6 <= low < 0.7 < high <= 0.8


def test_table_is_aligned():
    found = summarize({"before": scores_of(-0.4), "after": scores_of(0.7), "true_caption": scores_of(0.71)})
    lines = table_lines(found)

    assert len({len(line) for line in lines[1:]}) == 1
    assert lines[0].index("CLIP-T") == lines[1].index("-0.200") + len("-0.200") - len(" 0.200")
    assert lines[2].split()[:2] == ["after", "0.700"]
    assert lines[-1].split()[0] == "gain"
