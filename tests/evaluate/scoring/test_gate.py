from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from components.evaluate.config import EvaluateConfig
from components.evaluate.scoring.gate import Check, run_checks
from components.evaluate.scoring.scores import VariantScores, summarize
from tests.evaluate.contents import learned_embedding, pattern


def scores(before: float = 0.41, after: float = 0.78, clip_t: float = 0.3):
    def constant(value: float) -> np.ndarray:
        return np.full(4, value)

    return summarize(
        {
            "before": VariantScores(clip_i=constant(before), clip_t=constant(0.25)),
            "after": VariantScores(clip_i=constant(after), clip_t=constant(clip_t)),
        }
    )


def judge(config: EvaluateConfig | None = None, **changes) -> dict[str, Check]:
    given = {
        "learned": learned_embedding(),
        "scores": scores(),
        "samples": [pattern(seed) for seed in range(4)],
        "norm_ratio": 2.0,
        **changes,
    }
    return {check.name: check for check in run_checks(config or EvaluateConfig(), **given)}


def test_good_concept_passes_every_check():
    checks = judge(EvaluateConfig(min_clip_i=0.7, min_clip_t=0.2))

    assert len(checks) == 6
    assert all(check.passed for check in checks.values())
    assert checks["Closer than the initializer"].sentence == (
        "CLIP-I 0.78 is 0.37 above the 0.41 of “toy”, which it started from."
    )


def test_checks_that_are_off_are_left_out():
    assert set(judge()) == {
        "Rows are finite",
        "Rows were trained",
        "Samples show something",
        "Closer than the initializer",
    }


@pytest.mark.parametrize(("after", "direction"), [(0.41, "0.00 above"), (0.42, "0.01 above"), (0.3, "0.11 below")])
def test_gate_when_the_gain_is_too_small(after, direction):
    check = judge(scores=scores(after=after))["Closer than the initializer"]

    assert not check.passed
    assert check.sentence.startswith(f"CLIP-I {after:.2f} is {direction} the 0.41 of “toy”, which it started from;")
    assert "a gain of 0.02 is asked for (min_clip_i_gain): train longer" in check.sentence


def test_gate_when_the_gain_is_not_asked_for():
    assert judge(EvaluateConfig(min_clip_i_gain=-1), scores=scores(after=-0.3))["Closer than the initializer"].passed


def test_gate_when_likeness_is_too_low():
    check = judge(EvaluateConfig(min_clip_i=0.8))["Like the pictures"]

    assert not check.passed
    assert check.sentence.startswith("CLIP-I 0.78 is below the 0.80 asked for (min_clip_i): train longer")


def test_gate_when_prompts_are_not_followed():
    config = EvaluateConfig(min_clip_t=0.4)
    check = judge(config)["Follows the prompt"]
    assert not check.passed
    assert "CLIP-T 0.30 is below the 0.40 asked for (min_clip_t): train for fewer steps" in check.sentence

    check = judge(config, norm_ratio=41.2)["Follows the prompt"]
    assert "the rows are 41 times as long as the vocabulary's and drown the prompt" in check.sentence


def test_gate_when_nothing_was_trained():
    check = judge(learned=learned_embedding(steps=0))["Rows were trained"]

    assert not check.passed
    assert "The rows are still those of “toy” after 0 training steps" in check.sentence
    assert "the concept is untrained" in check.sentence


def test_gate_when_training_changed_nothing():
    learned = learned_embedding()
    learned = dataclasses.replace(learned, rows=learned.initial_rows)
    check = judge(learned=learned)["Rows were trained"]

    assert not check.passed
    assert "after 200 training steps" in check.sentence


def test_gate_when_rows_are_not_finite():
    learned = learned_embedding()
    rows = learned.rows["text_encoder"].copy()
    rows[0, :3] = [np.nan, np.inf, -np.inf]
    check = judge(learned=dataclasses.replace(learned, rows={"text_encoder": rows}))["Rows are finite"]

    assert not check.passed
    assert check.sentence.startswith("3 of the 16 learned numbers are not finite: training diverged")


def test_gate_when_samples_are_blank():
    samples = [pattern(0), np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8), pattern(1)]
    check = judge(samples=samples)["Samples show something"]

    assert not check.passed
    assert check.sentence.startswith("2 of the 4 samples are blank")
