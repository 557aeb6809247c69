"""The held-out loss on the way: how well the vectors explain the scoring pictures, snapshot by snapshot."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from components.common.artifacts import LearnedEmbedding
from components.common.errors import BaseModelError
from components.evaluate.config import EvaluateOptions
from components.evaluate.drawing.painter import Painter
from components.evaluate.drawing.samples import chosen_snapshots

MAX_PICTURES = 5
"""Scoring pictures that are looked at; each costs 20 passes through the UNet a snapshot."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOutLosses:
    """The denoising loss over the scoring pictures.

    Attributes:
        by_step: by optimizer steps taken, from 0 to the last.
        true_caption: of the reference prompt, or None where there is none.
    """

    by_step: Mapping[int, float]
    true_caption: float | None


def measure_held_out_losses(
    painter: Painter, config: EvaluateOptions, learned: LearnedEmbedding, pictures: Sequence[np.ndarray]
) -> HeldOutLosses:
    """The losses, with the first prompt of the evaluation; the learned rows are in the painter afterwards.

    Args:
        painter: with the concept loaded.
        config: gives the prompts.
        learned: gives the rows before, between and after.
        pictures: the scoring pictures, uint8 [H, W, 3] each.

    Raises:
        BaseModelError: when a loss is not finite without anything learned: the base model is to blame.
    """
    chosen, template = _same_size(pictures)[:MAX_PICTURES], config.prompts_for(learned.learnable_property)[0]
    prompt = template.replace("{}", learned.placeholder_token)
    between = {snapshot.step: snapshot.rows for snapshot in chosen_snapshots(learned)}
    by_step = {}
    for step, rows in {0: learned.initial_rows, **between, learned.steps: learned.rows}.items():
        painter.write_rows(rows)
        by_step[step] = painter.held_out_loss(chosen, prompt)
    reference = config.reference_prompt
    true_caption = painter.held_out_loss(chosen, template.replace("{}", reference)) if reference else None
    if not np.isfinite([by_step[0], 0.0 if true_caption is None else true_caption]).all():
        raise BaseModelError(
            f"the base model's loss on the scoring pictures is {by_step[0]} in {painter.settings['precision']} before "
            "anything is learned, expected a finite number: evaluate with sampling_precision fp32, or choose another "
            "base model"
        )
    return HeldOutLosses(by_step=by_step, true_caption=true_caption)


def _same_size(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [picture for picture in pictures if picture.shape == pictures[0].shape]
