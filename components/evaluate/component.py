"""The evaluating step's face in a pipeline."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("evaluate"), install_kfp_package=False)
def evaluate(
    config: str,
    base_model: dsl.Input[dsl.Model],
    scorer: dsl.Input[dsl.Model],
    initial_embedding: dsl.Input[dsl.Model],
    learned_embedding: dsl.Input[dsl.Model],
    scoring_set: dsl.Input[dsl.Dataset],
    start_word: dsl.Input[dsl.Artifact],
    training_set: dsl.Input[dsl.Dataset],
    evaluation: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Draws samples of the learned concept, scores them, writes a report, and says whether it was learned.

    Where the config names a champion, that is drawn and scored alike, and the two are compared.

    Args:
        config: An EvaluateConfig as JSON.
        base_model: Reference of the base model.
        scorer: Reference of the CLIP model.
        initial_embedding: The rows that training started from.
        learned_embedding: The learned rows.
        scoring_set: Pictures of the concept to score against.
        start_word: The word that training started from, and what others would have been.
        training_set: The pictures that were trained on, to tell copies of them.
        evaluation: Samples, scores and the verdict.
        report: The page that shows them.
        summary: The verdict, the scores and the options that were chosen, in a few lines.
        metrics: The scores as a table, with a row `passed`: 1 or 0.
    """
    import json
    from pathlib import Path

    from components.common.artifacts import LearnedEmbedding
    from components.common.champion import judged_in
    from components.common.cli import step_boundary
    from components.evaluate.config import EvaluateConfig
    from components.evaluate.evaluation import evaluate as step
    from components.evaluate.evaluation import metrics_of
    from components.evaluate.report.summary import summary_markdown

    with step_boundary("evaluate"):
        told = EvaluateConfig.from_json(config)
        found = step(
            told,
            base_model=Path(base_model.path),
            scorer=Path(scorer.path),
            initial_embedding=Path(initial_embedding.path),
            learned_embedding=Path(learned_embedding.path),
            scoring_set=Path(scoring_set.path),
            accelerator=told.accelerator,
            output=Path(evaluation.path),
            start_word=Path(start_word.path),
            training_set=Path(training_set.path),
        )
        Path(report.path).write_text(found.report_html, encoding="utf-8")
        report.metadata["display_name"] = "Report"
        learned = LearnedEmbedding.read(Path(learned_embedding.path))
        Path(summary.path).write_text(summary_markdown(found, learned), encoding="utf-8")
        summary.metadata["display_name"] = "Summary"
        numbers = {name: round(value, 4) for name, value in metrics_of(found).items()}
        # The UI reads the metadata; the file is there because kfp.local takes an artifact without one for lost.
        Path(metrics.path).write_text(json.dumps(numbers), encoding="utf-8")
        metrics.metadata["display_name"] = "Scores"
        for name, value in numbers.items():
            metrics.log_metric(name, value)
        evaluation.metadata.update(
            {
                "display_name": "Evaluation",
                "placeholder_token": found.placeholder_token,
                "passed": found.passed,
                "reasons": " ".join(found.reasons),
                **({"champion": judged.sentence} if (judged := judged_in(found.settings)) else {}),
            }
        )
