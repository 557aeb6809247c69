"""The evaluation from artifacts to artifact: draws, scores, judges, and writes the report."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.common.artifacts import Evaluation, ImageSet, InitialEmbedding, LearnedEmbedding
from components.common.base_model import ModelReference, materialize, read_reference
from components.common.champion import SETTING, Judged, judged_in
from components.common.errors import ArtifactError, BaseModelError, ImageError
from components.common.families import training_parts
from components.common.logs import log_config
from components.common.start_word import StartWord
from components.evaluate.config import EvaluateConfig
from components.evaluate.drawing.blurring import with_blurred
from components.evaluate.drawing.in_enough_precision import FirstDrawn, draw_in_enough_precision
from components.evaluate.drawing.painter import Painter, painter_for
from components.evaluate.drawing.samples import DrawnSamples, initializer_texts, scoring_texts
from components.evaluate.opponent import Opponent, find_opponent, with_champion
from components.evaluate.report.page import render_report
from components.evaluate.report.view import ReportContent
from components.evaluate.scoring.by_prompt import PromptScores, scores_by_prompt
from components.evaluate.scoring.gate import run_checks
from components.evaluate.scoring.health import embedding_health, largest_norm_ratio
from components.evaluate.scoring.held_out import HeldOutLosses, measure_held_out_losses
from components.evaluate.scoring.measuring import Judges, Measured, load_judges, measure
from components.evaluate.scoring.scores import Scores, summarize, table_lines
from components.torch_models.loading import device_for

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationInputs:
    """What is looked at, read and checked to belong together."""

    base_model: ModelReference
    scorer: ModelReference
    learned: LearnedEmbedding
    learned_folder: Path
    scoring_set: ImageSet
    training_set: ImageSet | None
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
    training_set: Path | None = None,
) -> Evaluation:
    """The evaluation, written to `output`; whether the concept passed is in it, and is no error.

    Args:
        config: how to draw, score and judge.
        base_model: folder of the base model's reference.
        scorer: folder of the reference to a CLIP model, with what was imported beside it.
        initial_embedding: folder of the InitialEmbedding that training started from.
        learned_embedding: folder of the LearnedEmbedding.
        scoring_set: folder of the ImageSet to hold the samples against.
        accelerator: `cpu`, `gpu` (by PyTorch) or `tpu` (by JAX; scored on the CPU).
        output: folder for the Evaluation.
        start_word: folder of the StartWord, which the report shows where there is one.
        training_set: folder of the ImageSet that was trained on; without it nothing is said of memorisation.

    Raises:
        InputError, ArtifactError: before anything is drawn, when an input cannot be used.
    """
    make_painter = painter_for(accelerator, sampler=config.sampler, precision=config.sampling_precision)
    log_config(logger, config.as_json())
    inputs = _read_inputs(
        config, base_model, scorer, initial_embedding, learned_embedding, scoring_set, start_word, training_set
    )
    # CLIP scores some dozens of pictures: on a TPU's host that takes less than compiling it for the TPU would.
    device = device_for("cpu" if accelerator == "tpu" else accelerator)
    judges = load_judges(inputs.scorer, check_safety=config.safety_checker == "on", device=device)
    parts = [*training_parts(inputs.base_model.subfolders), "vae"]
    painter = make_painter(materialize(inputs.base_model, parts))
    evaluation = _evaluate(config, inputs, painter, judges)
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
    training_set: Path | None,
) -> EvaluationInputs:
    reference, learned = read_reference(base_model), LearnedEmbedding.read(learned_embedding)
    address = config.champion_address
    inputs = EvaluationInputs(
        base_model=reference,
        scorer=read_reference(scorer),
        learned=learned,
        learned_folder=learned_embedding,
        scoring_set=ImageSet.read(scoring_set),
        training_set=None if training_set is None else ImageSet.read(training_set),
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
    trained_on = learned.lineage.get("image_set_digest")
    if inputs.training_set and trained_on and inputs.training_set.digest != trained_on:
        raise ArtifactError(
            f"the learned embedding was trained on the pictures {str(trained_on)[:12]}, found the training set "
            f"{inputs.training_set.digest[:12]}: pass the one that it was trained on, or none"
        )


def _evaluate(config: EvaluateConfig, inputs: EvaluationInputs, painter: Painter, judges: Judges) -> Evaluation:
    learned = inputs.learned
    vocabularies = {encoder: painter.vocabulary(encoder) for encoder in learned.rows}
    health = embedding_health(learned.tokens, learned.rows, learned.initial_rows, vocabularies)
    drawn, first_drawn = draw_in_enough_precision(painter, config, learned, inputs.learned_folder)
    held_out = measure_held_out_losses(painter, config, learned, inputs.scoring_set.pixels)
    logger.info("held-out loss %s", _told(held_out))
    opponent = inputs.opponent
    if opponent and not opponent.alone:
        drawn = with_champion(drawn, painter, config, learned, opponent)
    measured = measure(
        judges,
        drawn.variants,
        texts=scoring_texts(config, learned),
        initializer_texts=initializer_texts(config, learned),
        per_prompt=config.images_per_prompt,
        scoring_pictures=inputs.scoring_set.pixels,
        training_pictures=inputs.training_set.pixels if inputs.training_set else (),
    )
    scores = summarize(measured.by_sample, seed=config.seed)
    prompts = config.prompts_for(learned.learnable_property)
    by_prompt = scores_by_prompt(prompts, measured.by_sample, config.images_per_prompt, seed=config.seed)
    for line in table_lines(scores):
        logger.info("%s", line)
    judged = opponent.compared(measured.by_sample, seed=config.seed) if opponent else None
    if judged:
        logger.info("%s", judged.sentence)
    norm_ratio = largest_norm_ratio(health)
    compared = [found.pixels for variant in ("after", "before") for found in drawn.variants[variant]]
    checks = run_checks(config, learned=learned, scores=scores, samples=compared, norm_ratio=norm_ratio)
    settings = {
        **_settings(config, inputs, painter, scores, norm_ratio, list(compared[0].shape[:2]), judged),
        **_findings(measured, by_prompt, first_drawn),
    }
    shown = _for_everybody(drawn, measured, judges)
    report = render_report(
        ReportContent(
            config=config,
            learned=learned,
            reference=inputs.base_model,
            scoring_set=inputs.scoring_set,
            drawn=shown,
            held_out=held_out,
            by_sample=measured.by_sample,
            scores=scores,
            checks=checks,
            health=health,
            settings=settings,
            start_word=inputs.start_word,
            judged=judged,
            by_prompt=by_prompt,
            nearest=measured.nearest,
            training_set=inputs.training_set,
        )
    )
    reasons = tuple(check.sentence for check in checks if not check.passed)
    return Evaluation(
        placeholder_token=learned.placeholder_token,
        passed=not reasons,
        reasons=reasons,
        scores=scores.values(),
        settings=settings,
        samples=shown.all(),
        report_html=report,
        learned_embedding_digest=learned.digest,
    )


def _told(held_out: HeldOutLosses) -> str:
    losses = list(held_out.by_step.values())
    true_caption = "" if held_out.true_caption is None else f" (true caption {held_out.true_caption:.3f})"
    return f"{losses[0]:.3f} -> {losses[-1]:.3f}{true_caption}"


def _for_everybody(drawn: DrawnSamples, measured: Measured, judges: Judges) -> DrawnSamples:
    """The samples as they may be shown: what the safety checker objects to is blurred, after it was scored."""
    if judges.safety_checker is None:
        return drawn
    flagged = {variant: measured.by_sample[variant].by_metric()["flagged"] for variant in drawn.variants}
    between = judges.safety_checker.objects_to([sample.pixels for _, sample in drawn.progress[1:-1]])
    return with_blurred(drawn, flagged, between)


def _findings(measured: Measured, by_prompt: Sequence[PromptScores], first_drawn: FirstDrawn | None) -> dict[str, Any]:
    """What was found beside the scores, each where there is something to tell."""
    found: dict[str, Any] = {"by_prompt": {str(number): each.content() for number, each in enumerate(by_prompt)}}
    if first_drawn:
        found["first_drawn_in"] = str(first_drawn)
    if measured.nearest:
        found["copy_threshold"] = measured.nearest["after"].threshold
    flagged = {variant: each.flagged for variant, each in measured.by_sample.items() if each.flagged is not None}
    if flagged:
        found["flagged_samples"] = {variant: int(each.sum()) for variant, each in flagged.items()}
    return found


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
