"""What the report tells of a training: its learning rate, what early stopping has seen, and what was chosen for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from components.common.artifacts import LearnedEmbedding
from components.common.errors import ConfigError
from components.common.options import Config, default_of, option_of, typed_fields
from components.common.training.config import TrainConfig
from components.common.training.schedules import learning_rate
from components.evaluate.config import DEFAULT_PROMPTS, EvaluateOptions
from components.evaluate.report.charts import CurveChart, curve_chart

_POINTS = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChosenOption:
    """An option that is not at its default: its name as a person sets it, both values, and what it means."""

    name: str
    value: Any
    default: Any
    description: str


def chosen_options(learned: LearnedEmbedding, settings: Mapping[str, Any]) -> dict[str, tuple[ChosenOption, ...]]:
    """The options that differ from their defaults, by what they are about.

    Args:
        learned: the embedding, for how it was trained.
        settings: of the `Evaluation`.
    """
    given = dict(settings)
    if tuple(given.get("prompts", ())) == DEFAULT_PROMPTS.get(learned.learnable_property):
        del given["prompts"]
    found = {
        TrainConfig.title: tuple(_chosen(TrainConfig, learned.config)),
        EvaluateOptions.title: tuple(_chosen(EvaluateOptions, given)),
    }
    return {title: options for title, options in found.items() if options}


def rate_chart(learned: LearnedEmbedding) -> CurveChart | None:
    """The learning rate over the steps that were taken, as a share of its peak.

    None where it did not change, or where the configuration is of a release with other options.
    """
    try:
        config = TrainConfig.from_mapping(learned.config)
    except ConfigError:
        return None
    steps = np.unique(np.linspace(0, max(learned.steps - 1, 0), _POINTS).astype(int))
    rates = {int(step) + 1: learning_rate(config, step=int(step), peak=1.0) for step in steps}
    return curve_chart(rates) if len(set(rates.values())) > 1 else None


def fixed_batch_chart(learned: LearnedEmbedding) -> CurveChart | None:
    """What early stopping has seen, from before the first step on; None without it."""
    every = int(learned.config.get("early_stopping_every", 0))
    looks = {index * every: float(loss) for index, loss in enumerate(learned.fixed_batch_losses)}
    return curve_chart(looks) if every else None


def _chosen(config: type[Config], values: Mapping[str, Any]) -> Iterator[ChosenOption]:
    for field, _ in typed_fields(config):
        default = default_of(field)
        plain = list(default) if isinstance(default, tuple) else default
        if field.name in values and values[field.name] != plain:
            yield ChosenOption(
                name=config.prefix + field.name,
                value=values[field.name],
                default=plain,
                description=option_of(field).description,
            )
