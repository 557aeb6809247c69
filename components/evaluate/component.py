"""The evaluating step's face in a pipeline."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("evaluate"), install_kfp_package=False)
def evaluate(
    base_model: dsl.Input[dsl.Model],
    scorer: dsl.Input[dsl.Model],
    initial_embedding: dsl.Input[dsl.Model],
    learned_embedding: dsl.Input[dsl.Model],
    scoring_set: dsl.Input[dsl.Dataset],
    evaluation: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    accelerator: str = "gpu",
    prompts: list[str] = [],  # noqa: B006 - a component's defaults are values in YAML
    reference_prompt: str = "",
    images_per_prompt: int = 4,
    num_inference_steps: int = 50,
    guidance_scale: float = 7.5,
    negative_prompt: str = "",
    sampling_batch_size: int = 4,
    seed: int = 0,
    min_clip_i_gain: float = 0.02,
    min_clip_i: float = 0.0,
    min_clip_t: float = 0.0,
) -> str:
    """Draws samples of the learned concept, scores them, writes a report, and says `pass` or `fail`."""
    import json
    from pathlib import Path

    from components.common.cli import step_boundary
    from components.evaluate.config import EvaluateConfig
    from components.evaluate.evaluation import evaluate as step
    from components.evaluate.evaluation import metrics_of

    with step_boundary("evaluate"):
        found = step(
            EvaluateConfig(
                prompts=tuple(prompts),
                reference_prompt=reference_prompt,
                images_per_prompt=images_per_prompt,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                negative_prompt=negative_prompt,
                sampling_batch_size=sampling_batch_size,
                seed=seed,
                min_clip_i_gain=min_clip_i_gain,
                min_clip_i=min_clip_i,
                min_clip_t=min_clip_t,
            ),
            base_model=Path(base_model.path),
            scorer=Path(scorer.path),
            initial_embedding=Path(initial_embedding.path),
            learned_embedding=Path(learned_embedding.path),
            scoring_set=Path(scoring_set.path),
            accelerator=accelerator,
            output=Path(evaluation.path),
        )
        Path(report.path).write_text(found.report_html, encoding="utf-8")
        numbers = {name: round(value, 4) for name, value in metrics_of(found).items()}
        # The UI reads the metadata; the file is there because kfp.local takes an artifact without one for lost.
        Path(metrics.path).write_text(json.dumps(numbers), encoding="utf-8")
        for name, value in numbers.items():
            metrics.log_metric(name, value)
        evaluation.metadata.update(
            {
                "placeholder_token": found.placeholder_token,
                "passed": found.passed,
                "reasons": " ".join(found.reasons),
            }
        )
    return "pass" if found.passed else "fail"
