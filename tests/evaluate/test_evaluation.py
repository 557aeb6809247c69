from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

from components.common.artifacts import Evaluation, ImageSet, InitialEmbedding, LearnedEmbedding
from components.common.errors import ArtifactError, BaseModelError, ConfigError, ImageError
from components.evaluate.config import EvaluateConfig
from components.evaluate.evaluation import evaluate, metrics_of
from tests.evaluate.conftest import Concept, World, write_concept
from tests.evaluate.contents import image_set

FAST = EvaluateConfig(
    prompts=("a photo of a {}", "a {} on the beach"),
    images_per_prompt=2,
    num_inference_steps=2,
    seed=5,
    min_clip_i_gain=-1.0,
)


def run(world: World, concept: Concept, output: Path, config: EvaluateConfig = FAST, **changes: Path) -> Evaluation:
    folders = {
        "base_model": world.base_model,
        "scorer": world.scorer,
        "scoring_set": world.scoring_set,
        "initial_embedding": concept.initial_embedding,
        "learned_embedding": concept.learned_embedding,
        **changes,
    }
    return evaluate(config, accelerator="cpu", output=output, **folders)


def pixels_of(evaluation: Evaluation, variant: str) -> np.ndarray:
    return np.stack([sample.pixels for sample in evaluation.samples if sample.variant == variant])


@pytest.fixture(scope="module")
def concept(world, tmp_path_factory) -> Concept:
    return write_concept(world, tmp_path_factory.mktemp("concept"), vectors=2)


@pytest.fixture(scope="module")
def output(world, concept, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluations") / "evaluation"
    run(world, concept, folder, dataclasses.replace(FAST, reference_prompt="clean cat"))
    return folder


def test_evaluation_draws_the_same_shots_for_each_variant(output):
    found = Evaluation.read(output)
    shots = {
        variant: [(s.prompt, s.seed) for s in found.samples if s.variant == variant]
        for variant in ("before", "after", "true_caption", "step-2")
    }

    assert shots["after"] == [
        ("a photo of a <concept>", 5),
        ("a photo of a <concept>", 6),
        ("a <concept> on the beach", 7),
        ("a <concept> on the beach", 8),
    ]
    assert shots["before"] == shots["after"]
    assert [prompt for prompt, _ in shots["true_caption"]][1:3] == [
        "a photo of a clean cat",
        "a clean cat on the beach",
    ]
    assert shots["step-2"] == shots["after"][:1]
    assert len(found.samples) == 13
    assert all(s.pixels.shape == (64, 64, 3) for s in found.samples)
    assert (pixels_of(found, "before") != pixels_of(found, "after")).any()


def test_evaluation_has_scores_settings_and_report(output, world, concept):
    found = Evaluation.read(output)

    assert list(found.scores) == ["after", "before", "real", "true_caption"]
    drawn = {"clip_i", "clip_t", "adherence", "diversity"}
    for variant, row in found.scores.items():
        assert set(row) == ({"clip_i", "clip_t"} if variant == "real" else drawn)
        assert all(-1 <= value <= 1 for value in row.values())
    low, high = found.settings["intervals"]["after"]["clip_i"]
    assert low < found.scores["after"]["clip_i"] < high
    assert found.settings["height_and_width"] == [64, 64]
    assert found.settings["scheduler"] == "PNDMScheduler"
    assert found.settings["scoring_set_digest"] == ImageSet.read(world.scoring_set).digest
    assert found.learned_embedding_digest == LearnedEmbedding.read(concept.learned_embedding).digest
    assert found.passed and found.reasons == ()
    assert "Accepted: it may be published" in found.report_html
    assert "/unet" not in found.report_html
    assert "champion" not in found.settings and "(version" not in found.report_html


def test_metrics_are_the_scores_and_the_gain(output):
    found = Evaluation.read(output)
    metrics = metrics_of(found)

    assert metrics["clip_i_after"] == found.scores["after"]["clip_i"]
    assert metrics["clip_t_gain"] == pytest.approx(metrics["clip_t_after"] - metrics["clip_t_before"])
    assert metrics["norm_ratio"] > 1
    assert {"clip_i_before", "clip_t_before", "clip_i_true_caption", "clip_t_real", "clip_i_gain"} < set(metrics)


def test_evaluation_is_the_same_a_second_time(world, concept, output, tmp_path):
    again = run(world, concept, tmp_path / "again", dataclasses.replace(FAST, reference_prompt="clean cat"))
    first = Evaluation.read(output)

    assert again.scores == first.scores
    for sample, other in zip(again.samples, first.samples, strict=True):
        np.testing.assert_array_equal(sample.pixels, other.pixels)
    assert again.report_html == first.report_html


def test_untrained_concept_draws_the_same_before_and_after(world, tmp_path, caplog):
    concept = write_concept(world, tmp_path, steps=0, moved=0.0)
    found = run(world, concept, tmp_path / "out", dataclasses.replace(FAST, min_clip_i_gain=0.02))

    np.testing.assert_array_equal(pixels_of(found, "before"), pixels_of(found, "after"))
    assert found.scores["before"] == found.scores["after"]
    assert "true_caption" not in found.scores
    assert not found.passed
    assert any("the concept is untrained" in reason for reason in found.reasons)
    assert any("a gain of 0.02 is asked for" in reason for reason in found.reasons)
    assert Evaluation.read(tmp_path / "out").passed is False
    assert "not accepted: The rows are still those of" in caplog.text


def test_word_itself_draws_what_the_untrained_concept_draws(world, tmp_path):
    """The rows of `before` are those of the initializer, so its name in the prompt gives the same pictures."""
    concept = write_concept(world, tmp_path, steps=0, moved=0.0)
    found = run(world, concept, tmp_path / "out", dataclasses.replace(FAST, reference_prompt="toy"))

    np.testing.assert_array_equal(pixels_of(found, "before"), pixels_of(found, "true_caption"))


def test_concept_with_rows_that_are_not_finite_is_refused(world, tmp_path):
    concept = write_concept(world, tmp_path, moved=float("inf"))
    with pytest.raises(ArtifactError, match="has values that are not finite"):
        run(world, concept, tmp_path / "out")


def test_concept_with_rows_that_overflow_does_not_pass(world, tmp_path):
    concept = write_concept(world, tmp_path, moved=1e38)
    with np.errstate(over="ignore", invalid="ignore"):
        found = run(world, concept, tmp_path / "out")

    assert not found.passed
    assert any("4 of the 8 samples are blank" in reason for reason in found.reasons)
    assert pixels_of(found, "after").max() == 0 < pixels_of(found, "before").max()


def test_log_ends_with_a_table_of_the_scores(world, concept, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="components")
    run(world, concept, tmp_path / "out")
    lines = [record.message for record in caplog.records if record.name == "components.evaluate.evaluation"]

    table, further = lines[-10:-5], lines[-5:-1]
    assert [line.split()[0] for line in table] == ["CLIP-I", "before", "after", "real", "gain"]
    assert [line.split()[0] for line in further] == ["adherence", "before", "after", "gain"]
    assert further[0].split()[3] == "diversity"
    assert len({len(line) for line in (*table[1:], *further[1:])}) == 1
    assert lines[-1] == "<concept>: passed"
    assert any(record.message.startswith("sampling after 4/4") for record in caplog.records)


def test_evaluate_when_the_embeddings_do_not_belong_together(world, concept, tmp_path):
    other = write_concept(world, tmp_path / "other", vectors=1)
    with pytest.raises(ArtifactError, match="was not trained from this initial embedding"):
        run(world, concept, tmp_path / "out", initial_embedding=other.initial_embedding)


def test_evaluate_when_the_base_model_is_another(world, concept, tmp_path):
    initial = InitialEmbedding.read(concept.initial_embedding)
    dataclasses.replace(initial, base_model_digest="0" * 64).write(tmp_path / "initial")
    with pytest.raises(ArtifactError, match="was made with the base model 000000000000, this one is"):
        run(world, concept, tmp_path / "out", initial_embedding=tmp_path / "initial")


def test_evaluate_when_scorer_and_base_model_are_mixed_up(world, concept, tmp_path):
    with pytest.raises(BaseModelError, match=r"found a model of kind 'clip' .* expected 'diffusion'"):
        run(world, concept, tmp_path / "out", base_model=world.scorer)
    with pytest.raises(BaseModelError, match=r"found a model of kind 'diffusion' .* expected 'clip'"):
        run(world, concept, tmp_path / "out", scorer=world.base_model)


def test_evaluate_when_there_is_nothing_to_score_against(world, concept, tmp_path):
    dataclasses.replace(image_set(1), pictures=(), pixels=(), masks=()).write(tmp_path / "empty")
    with pytest.raises(ImageError, match="has no pictures"):
        run(world, concept, tmp_path / "out", scoring_set=tmp_path / "empty")


def test_evaluate_when_the_accelerator_is_unknown(world, concept, tmp_path):
    with pytest.raises(ConfigError, match="npu"):
        evaluate(
            FAST,
            base_model=world.base_model,
            scorer=world.scorer,
            scoring_set=world.scoring_set,
            initial_embedding=concept.initial_embedding,
            learned_embedding=concept.learned_embedding,
            accelerator="npu",
            output=tmp_path / "out",
        )


def test_concept_is_drawn_and_measured_without_the_layers_that_it_was_learned_without(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drawn, told = [], []
    for clip_skip in (0, 1):
        folder = tmp_path / str(clip_skip)
        concept = write_concept(world, folder, clip_skip=clip_skip)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            evaluation = run(world, concept, folder / "out", dataclasses.replace(FAST, prompts=("a {}",)))
        drawn.append({variant: pixels_of(evaluation, variant) for variant in ("before", "after")})
        told += [record.getMessage() for record in caplog.records if "held-out loss" in record.getMessage()]
        assert ("clip_skip=1" in evaluation.report_html) is bool(clip_skip)
    assert told[0] != told[1]
    for variant in ("before", "after"):
        assert (drawn[0][variant] != drawn[1][variant]).any(), variant
