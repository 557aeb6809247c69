"""Samples that a safety checker objects to, made unrecognisable for whoever looks at them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageFilter

from components.common.artifacts import Sample
from components.evaluate.drawing.samples import DrawnSamples

_PART_OF_SIDE = 12
"""The blur's radius is so small a part of a picture's longer side: shapes of a twelfth of a picture are gone."""


def blurred(picture: np.ndarray) -> np.ndarray:
    """The picture, uint8 [H, W, 3], with its details gone."""
    radius = max(picture.shape[:2]) / _PART_OF_SIDE
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def with_blurred(drawn: DrawnSamples, flagged: Mapping[str, np.ndarray], between: np.ndarray) -> DrawnSamples:
    """The samples with those blurred that are flagged, bool or 0 and 1.

    Args:
        drawn: all of them.
        flagged: for each variant which of its samples.
        between: which of the pictures on the way, without its ends, which are samples.
    """
    variants = {name: _hidden(samples, flagged[name]) for name, samples in drawn.variants.items()}
    (start, _), *steps, (end, _) = drawn.progress
    shown = _hidden([sample for _, sample in steps], between)
    on_the_way = [(step, sample) for (step, _), sample in zip(steps, shown, strict=True)]
    ends = (start, variants["before"][0]), (end, variants["after"][0])
    return DrawnSamples(variants=variants, progress=(ends[0], *on_the_way, ends[1]))


def _hidden(samples: Sequence[Sample], flagged: np.ndarray) -> tuple[Sample, ...]:
    return tuple(
        dataclasses.replace(sample, pixels=blurred(sample.pixels)) if hide else sample
        for sample, hide in zip(samples, flagged, strict=True)
    )
