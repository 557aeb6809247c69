"""The evaluation in a few lines of Markdown, for the panel of a pipeline's user interface."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from components.common.artifacts import Evaluation, LearnedEmbedding
from components.common.markdown import cell, code, escaped, table
from components.common.score_labels import HIGHER_IS_BETTER, METRICS, VARIANTS, in_order, metric, variant_label
from components.evaluate.report.training import chosen_options


def summary_markdown(evaluation: Evaluation, learned: LearnedEmbedding) -> str:
    """Verdict, scores, the options that were chosen, and what to do next; whatever it quotes is shown as it is."""
    parts = [
        _verdict(evaluation, learned),
        "\n".join(f"- {escaped(reason)}" for reason in evaluation.reasons),
        "## Scores",
        _scores(evaluation),
        "## What was chosen",
        *_chosen(evaluation, learned),
        "## Next",
        _next(evaluation),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _verdict(evaluation: Evaluation, learned: LearnedEmbedding) -> str:
    verdict = "✓ accepted" if evaluation.passed else "✕ held back"
    steps = f"{learned.steps:,} steps"
    if learned.steps_saved:
        steps += f" of {learned.steps + learned.steps_saved:,} (stopped early)"
    return (
        f"# {code(evaluation.placeholder_token)}: {verdict}\n\n"
        f"Learned in {steps} from {escaped(learned.origin)}; its vector is "
        f"{evaluation.settings['norm_ratio']:.1f} times as long as the vocabulary's mean."
    )


def _scores(evaluation: Evaluation) -> str:
    scores, intervals = evaluation.scores, evaluation.settings.get("intervals", {})
    metrics = in_order({name for row in scores.values() for name in row}, METRICS)
    rows = [
        [escaped(variant_label(variant)), *(_number(scores[variant], intervals.get(variant, {}), m) for m in metrics)]
        for variant in in_order(scores, VARIANTS)
    ]
    before, after = scores.get("before", {}), scores.get("after", {})
    gains = {name: after[name] - before[name] for name in metrics if name in before and name in after}
    rows.append(["**gain**", *(f"**{gains[m]:+.3f}**" if m in gains else "" for m in metrics)])
    legend = [f"{metric(name).name}: {metric(name).meaning}." for name in metrics if metric(name).meaning]
    header = ["", *(escaped(metric(name).name) for name in metrics)]
    return f"{table(header, rows)}\n\n{' '.join([*legend, HIGHER_IS_BETTER])}"


def _number(values: Mapping[str, float], intervals: Mapping[str, Any], name: str) -> str:
    """A score with its 95% interval; empty where it was not measured."""
    if name not in values:
        return ""
    interval = intervals.get(name)
    return f"{values[name]:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _chosen(evaluation: Evaluation, learned: LearnedEmbedding) -> Iterator[str]:
    rows = [
        [cell(option.name), *(cell(json.dumps(value, ensure_ascii=False)) for value in (option.value, option.default))]
        for options in chosen_options(learned, evaluation.settings).values()
        for option in options
    ]
    yield table(["option", "here", "default"], rows) if rows else "Every option is at its default."


def _next(evaluation: Evaluation) -> str:
    if evaluation.passed:
        return (
            "*Publish if learned* puts it into the registry. The **Report** beside this summary shows its pictures; "
            "*Publish if learned* says where the version is."
        )
    return (
        "Nothing is published. Look at the pictures in the **Report** beside this summary, then run again with what "
        "the reasons above name; steps whose options stay the same are answered from the cache."
    )
