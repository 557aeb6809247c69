"""The evaluation from artifacts to artifact: draws, scores, judges, and writes the report."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.common.artifacts import Evaluation, ImageSet, InitialEmbedding, LearnedEmbedding, Sample
from components.common.base_model import ModelReference, materialize, read_reference
from components.common.champion import SETTING, Judged, judged_in
from components.common.errors import ArtifactError, BaseModelError, ImageError
from components.common.logs import log_config
from components.common.start_word import StartWord
from components.evaluate.config import EvaluateConfig
from components.evaluate.drawing.painter import Painter, painter_for
from components.evaluate.drawing.samples import draw_samples, scoring_texts
from components.evaluate.opponent import Opponent, find_opponent, with_champion
from components.evaluate.report.page import render_report
from components.evaluate.report.view import ReportContent
from components.evaluate.scoring.gate import run_checks
from components.evaluate.scoring.health import embedding_health, largest_norm_ratio
from components.evaluate.scoring.held_out import HeldOutLosses, measure_held_out_losses
from components.evaluate.scoring.scores import (
    Scores,
    VariantScores,
    score_samples,
    score_scoring_pictures,
    summarize,
    table_lines,
)
from components.torch_models.clip_scorer import ClipScorer
from components.torch_models.loading import device_for

logger = logging.getLogger(__name__)

_SAMPLING_PARTS = {
    "scheduler",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
    "unet",
    "vae",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationInputs:
    """What is looked at, read and checked to belong together."""

    base_model: ModelReference
    scorer: ModelReference
    learned: LearnedEmbedding
    learned_folder: Path
    scoring_set: ImageSet
    start_word: StartWord | None
    opponent: Opponent | None


def evaluate(
    config: EvaluateConfig,
    *,
    base_model: Path,
    scorer: Path,
    initial_embedding: Path,
    learned_embedding: Path,
    scoring_set: Path,
    accelerator: str,
    output: Path,
    start_word: Path | None = None,
) -> Evaluation:
    """The evaluation, written to `output`; whether the concept passed is in it, and is no error.

    Args:
        config: how to draw, score and judge.
        base_model: folder of the base model's reference.
        scorer: folder of the reference to a CLIP model.
        initial_embedding: folder of the InitialEmbedding that training started from.
        learned_embedding: folder of the LearnedEmbedding.
        scoring_set: folder of the ImageSet to hold the samples against.
        accelerator: `cpu` (PyTorch, float32), `gpu` (PyTorch, float16) or `tpu` (JAX, bfloat16; scored on the CPU).
        output: folder for the Evaluation.
        start_word: folder of the StartWord, which the report shows where there is one.

    Raises:
        InputError, ArtifactError: before anything is drawn, when an input cannot be used.
    """
    make_painter = painter_for(accelerator)
    log_config(logger, config.as_json())
    inputs = _read_inputs(config, base_model, scorer, initial_embedding, learned_embedding, scoring_set, start_word)
    painter = make_painter(materialize(inputs.base_model, sorted(_SAMPLING_PARTS & set(inputs.base_model.subfolders))))
    # CLIP scores some dozens of pictures: on a TPU's host that takes less than compiling it for the TPU would.
    clip = ClipScorer(materialize(inputs.scorer), device=device_for("cpu" if accelerator == "tpu" else accelerator))
    evaluation = _evaluate(config, inputs, painter, clip)
    evaluation.write(output)
    for line in evaluation.reasons:
        logger.warning("not accepted: %s", line)
    logger.info("%s: %s", evaluation.placeholder_token, "passed" if evaluation.passed else "did not pass")
    return evaluation


def metrics_of(evaluation: Evaluation) -> dict[str, float]:
    """The numbers for a run's list of metrics: `passed` (1 or 0), `clip_i_after`, ..., `clip_i_gain`, `norm_ratio`.

    Where it was held against a champion: `clip_i_champion`, ..., `clip_i_over_champion`, too.
    """
    scores = evaluation.scores
    metrics = {f"{metric}_{variant}": value for variant, row in scores.items() for metric, value in row.items()}
    for metric in scores["after"]:
        metrics[f"{metric}_gain"] = scores["after"][metric] - scores["before"][metric]
    judged = judged_in(evaluation.settings)
    for metric, gain in judged.gain.items() if judged else ():
        metrics[f"{metric}_over_champion"] = gain.value
    return {"passed": float(evaluation.passed), **metrics, "norm_ratio": evaluation.settings["norm_ratio"]}


def _read_inputs(
    config: EvaluateConfig,
    base_model: Path,
    scorer: Path,
    initial_embedding: Path,
    learned_embedding: Path,
    scoring_set: Path,
    start_word: Path | None,
) -> EvaluationInputs:
    reference, learned = read_reference(base_model), LearnedEmbedding.read(learned_embedding)
    address = config.champion_address
    inputs = EvaluationInputs(
        base_model=reference,
        scorer=read_reference(scorer),
        learned=learned,
        learned_folder=learned_embedding,
        scoring_set=ImageSet.read(scoring_set),
        start_word=None if start_word is None else StartWord.read(start_word),
        opponent=find_opponent(address, learned, learned_embedding, reference.digest) if address else None,
    )
    for kind, reference in (("diffusion", inputs.base_model), ("clip", inputs.scorer)):
        if reference.kind != kind:
            raise BaseModelError(f"found a model of kind {reference.kind!r} at {reference.source}, expected {kind!r}")
    if not inputs.scoring_set.pixels:
        raise ImageError(f"the scoring set at {scoring_set} has no pictures, expected one or more")
    _check_that_they_belong_together(inputs, InitialEmbedding.read(initial_embedding))
    return inputs


def _check_that_they_belong_together(inputs: EvaluationInputs, initial: InitialEmbedding) -> None:
    digest = inputs.base_model.digest
    if initial.base_model_digest != digest:
        raise ArtifactError(
            f"the initial embedding was made with the base model {initial.base_model_digest[:12]}, this one is "
            f"{digest[:12]}: evaluate with the base model that the concept was learned on"
        )
    learned = inputs.learned
    same_rows = set(learned.initial_rows) == set(initial.rows) and all(
        np.array_equal(learned.initial_rows[name], rows) for name, rows in initial.rows.items()
    )
    if learned.tokens != initial.tokens or not same_rows:
        raise ArtifactError(
            f"the learned embedding ({learned.placeholder_token}) was not trained from this initial embedding "
            f"({initial.placeholder_token}): pass the one that its training began with"
        )


def _evaluate(config: EvaluateConfig, inputs: EvaluationInputs, painter: Painter, clip: ClipScorer) -> Evaluation:
    learned = inputs.learned
    vocabularies = {encoder: painter.vocabulary(encoder) for encoder in learned.rows}
    health = embedding_health(learned.tokens, learned.rows, learned.initial_rows, vocabularies)
    drawn = draw_samples(painter, config, learned, inputs.learned_folder)
    held_out = measure_held_out_losses(painter, config, learned, inputs.scoring_set.pixels)
    logger.info("held-out loss %s", _told(held_out))
    opponent = inputs.opponent
    if opponent and not opponent.alone:
        drawn = with_champion(drawn, painter, config, learned, opponent)
    by_sample = _score(clip, drawn.variants, scoring_texts(config, learned), inputs.scoring_set.pixels)
    scores = summarize(by_sample, seed=config.seed)
    for line in table_lines(scores):
        logger.info("%s", line)
    judged = opponent.compared(by_sample, seed=config.seed) if opponent else None
    if judged:
        logger.info("%s", judged.sentence)
    norm_ratio = largest_norm_ratio(health)
    compared = [found.pixels for variant in ("after", "before") for found in drawn.variants[variant]]
    checks = run_checks(config, learned=learned, scores=scores, samples=compared, norm_ratio=norm_ratio)
    settings = _settings(config, inputs, painter, scores, norm_ratio, list(compared[0].shape[:2]), judged)
    report = render_report(
        ReportContent(
            config=config,
            learned=learned,
            reference=inputs.base_model,
            scoring_set=inputs.scoring_set,
            drawn=drawn,
            held_out=held_out,
            by_sample=by_sample,
            scores=scores,
            checks=checks,
            health=health,
            settings=settings,
            start_word=inputs.start_word,
            judged=judged,
        )
    )
    reasons = tuple(check.sentence for check in checks if not check.passed)
    return Evaluation(
        placeholder_token=learned.placeholder_token,
        passed=not reasons,
        reasons=reasons,
        scores=scores.values(),
        settings=settings,
        samples=drawn.all(),
        report_html=report,
        learned_embedding_digest=learned.digest,
    )


def _told(held_out: HeldOutLosses) -> str:
    losses = list(held_out.by_step.values())
    true_caption = "" if held_out.true_caption is None else f" (true caption {held_out.true_caption:.3f})"
    return f"{losses[0]:.3f} -> {losses[-1]:.3f}{true_caption}"


def _score(
    clip: ClipScorer,
    variants: Mapping[str, Sequence[Sample]],
    texts: Sequence[str],
    scoring_pictures: Sequence[np.ndarray],
) -> dict[str, VariantScores]:
    pictures, text_embeddings = clip.embed_pictures(scoring_pictures), clip.embed_texts(texts)
    found = {
        name: score_samples(clip.embed_pictures([s.pixels for s in samples]), text_embeddings, pictures)
        for name, samples in variants.items()
    }
    real = score_scoring_pictures(pictures, text_embeddings[0])
    return found if real is None else {**found, "real": real}


def _settings(
    config: EvaluateConfig,
    inputs: EvaluationInputs,
    painter: Painter,
    scores: Scores,
    norm_ratio: float,
    size: list[int],
    judged: Judged | None,
) -> dict[str, Any]:
    options = dataclasses.asdict(config)
    del options["champion"]
    return {
        **options,
        **({SETTING: dataclasses.asdict(judged)} if judged else {}),
        "prompts": list(config.prompts_for(inputs.learned.learnable_property)),
        "height_and_width": size,
        **painter.settings,
        "scorer": inputs.scorer.hub_repository or inputs.scorer.source,
        "norm_ratio": norm_ratio,
        "intervals": scores.intervals(),
        "base_model_digest": inputs.base_model.digest,
        "scorer_digest": inputs.scorer.digest,
        "scoring_set_digest": inputs.scoring_set.digest,
    }
