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
        config: An EvaluateConfig as JSON; a list of them for several words.
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
    from components.common.words import by_word, configs_of, for_each_word, metadata_of, word_folders
    from components.evaluate.config import EvaluateConfig
    from components.evaluate.evaluation import evaluate as step
    from components.evaluate.evaluation import metrics_of
    from components.evaluate.report.joint import joint_report
    from components.evaluate.report.summary import summary_markdown

    with step_boundary("evaluate"):
        words = for_each_word(
            lambda told, **folders: step(told, accelerator=told.accelerator, **folders),
            configs_of(EvaluateConfig, config),
            base_model=Path(base_model.path),
            scorer=Path(scorer.path),
            initial_embedding=Path(initial_embedding.path),
            learned_embedding=Path(learned_embedding.path),
            scoring_set=Path(scoring_set.path),
            output=Path(evaluation.path),
            start_word=Path(start_word.path),
            training_set=Path(training_set.path),
        )
        Path(report.path).write_text(joint_report(words), encoding="utf-8")
        report.metadata["display_name"] = "Report"
        summaries = [
            summary_markdown(found, LearnedEmbedding.read(folder))
            for found, folder in zip(words, word_folders(Path(learned_embedding.path)), strict=True)
        ]
        Path(summary.path).write_text("\n".join(summaries), encoding="utf-8")
        summary.metadata["display_name"] = "Summary"
        scores = by_word({found.placeholder_token: metrics_of(found) for found in words})
        numbers = {name: round(value, 4) for name, value in scores.items()}
        # The UI reads the metadata; the file is there because kfp.local takes an artifact without one for lost.
        Path(metrics.path).write_text(json.dumps(numbers), encoding="utf-8")
        metrics.metadata["display_name"] = "Scores"
        for name, value in numbers.items():
            metrics.log_metric(name, value)
        facts = [
            {
                "display_name": "Evaluation",
                "placeholder_token": found.placeholder_token,
                "passed": found.passed,
                "reasons": " ".join(found.reasons),
                **({"champion": judged.sentence} if (judged := judged_in(found.settings)) else {}),
            }
            for found in words
        ]
        evaluation.metadata.update(metadata_of(facts))
