"""Every sample in a precision in which there is something on it: half precision overflows in some base models."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from components.common.artifacts import LearnedEmbedding
from components.common.drawing import is_blank
from components.evaluate.config import EvaluateOptions
from components.evaluate.drawing.painter import Painter
from components.evaluate.drawing.samples import DrawnSamples, draw_samples

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirstDrawn:
    """What was drawn first and thrown away.

    Attributes:
        precision: in which it was computed.
        blank: how many pictures were blank: of one colour, as those are that are not finite.
        count: how many pictures there were.
    """

    precision: str
    blank: int
    count: int

    def __str__(self) -> str:
        """As a person reads it."""
        return f"{self.precision}, in which {self.blank} of {self.count} pictures were blank"


def draw_in_enough_precision(
    painter: Painter, config: EvaluateOptions, learned: LearnedEmbedding, folder: Path
) -> tuple[DrawnSamples, FirstDrawn | None]:
    """As `draw_samples`; where a picture is blank, all are drawn once more in float32, and what was is told.

    All of them, since pictures that are to be compared must be drawn alike. Afterwards the painter computes in the
    precision of what is given. Rows that are no good give blank pictures in float32, too.
    """
    drawn = draw_samples(painter, config, learned, folder)
    samples, precision = drawn.all(), painter.settings["precision"]
    blank = sum(is_blank(sample.pixels) for sample in samples)
    if not blank or not painter.widen():
        return drawn, None
    first = FirstDrawn(precision=precision, blank=blank, count=len(samples))
    logger.warning(
        "%d of %d pictures are blank in %s: all are drawn once more, in float32", first.blank, first.count, precision
    )
    return draw_samples(painter, config, learned, folder), first
