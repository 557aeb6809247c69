"""The numbers behind the report's drawings: positions in percent of a drawing's width and height, from its top left.

The template draws with them, so that a drawing stretches with the page while its texts keep their size.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from components.evaluate.scoring.health import EncoderHealth
from components.evaluate.scoring.scores import Estimate

_COLUMNS = 400
_SMOOTHED_PART = 25
_OUTLIERS = 0.995
_MAX_DOTS = 40
_LEAST_SCORE_RANGE = 0.1
"""A scale is never narrower, lest noise look like a difference."""


class Tick(NamedTuple):
    """A mark on an axis: where, in percent, and what it says."""

    at: float
    label: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossChart:
    """The loss over the steps.

    Attributes:
        raw: SVG path of every step's loss; beyond 400 steps the outline between least and greatest.
        raw_is_area: whether `raw` is such an outline.
        smoothed: SVG path of the moving average.
        window: how many steps it averages over.
        x_ticks, y_ticks: marks of the axes.
        first, last: the moving average at both ends.
    """

    raw: str
    raw_is_area: bool
    smoothed: str
    window: int
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    first: float
    last: float


def loss_chart(losses: np.ndarray) -> LossChart | None:
    """The drawing of losses, float [steps]; None where there are fewer than two finite ones."""
    steps = np.arange(1, len(losses) + 1)
    steps, losses = steps[np.isfinite(losses)], np.asarray(losses, np.float64)[np.isfinite(losses)]
    if len(losses) < 2:
        return None
    window = max(1, len(losses) // _SMOOTHED_PART)
    smooth = moving_average(losses, window)
    top = float(np.quantile(losses, _OUTLIERS)) * 1.08 or 1.0  # a single outlier would flatten all others
    y_ticks = nice_ticks(0.0, top, 4)
    x = 100 * (steps - steps[0]) / (steps[-1] - steps[0])

    def height(values: np.ndarray) -> np.ndarray:
        return 100 * (1 - np.clip(values / top, 0, 1))

    groups = np.array_split(np.arange(len(losses)), min(_COLUMNS, len(losses)))
    is_area = len(losses) > _COLUMNS
    if is_area:
        low = [(x[group[0]], losses[group].min()) for group in groups]
        high = [(x[group[0]], losses[group].max()) for group in groups]
        outline = np.array([*high, *reversed(low)])
        raw = _path(outline[:, 0], height(outline[:, 1])) + "Z"
    else:
        raw = _path(x, height(losses))
    shown = np.array(sorted({group[0] for group in groups} | {len(losses) - 1}))
    return LossChart(
        raw=raw,
        raw_is_area=is_area,
        smoothed=_path(x[shown], height(smooth[shown])),
        window=window,
        x_ticks=_step_ticks(int(steps[0]), int(steps[-1])),
        y_ticks=tuple(Tick(100 * (1 - value / top), f"{value:g}") for value in y_ticks),
        first=float(smooth[0]),
        last=float(smooth[-1]),
    )


class Dot(NamedTuple):
    """A point of a curve: where, in percent, and what it says."""

    x: float
    y: float
    label: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurveChart:
    """Values at some steps, from 0 up.

    Attributes:
        line: SVG path through them.
        dots: one each; none where there are more than a reader tells apart.
        reference: height in percent of a value to compare with, or None.
        x_ticks, y_ticks: marks of the axes.
        first, last: the values at both ends.
        reference_value: the value to compare with, or None.
    """

    line: str
    dots: tuple[Dot, ...]
    reference: float | None
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    first: float
    last: float
    reference_value: float | None


def curve_chart(values: Mapping[int, float], reference: float | None = None) -> CurveChart | None:
    """The drawing of values by optimizer step; None where there are fewer than two or one is not finite."""
    steps, heights = np.array(list(values)), np.array(list(values.values()), np.float64)
    known = [*heights, *([] if reference is None else [reference])]
    if len(steps) < 2 or not np.isfinite(known).all():
        return None
    top = float(max(known)) * 1.08 or 1.0
    x, y = 100 * (steps - steps[0]) / (steps[-1] - steps[0]), 100 * (1 - heights / top)
    dots = (
        Dot(float(left), float(down), f"{value:.3f} after {step} steps")
        for left, down, step, value in zip(x, y, steps, heights, strict=True)
    )
    return CurveChart(
        line=_path(x, y),
        dots=tuple(dots) if len(steps) <= _MAX_DOTS else (),
        reference=None if reference is None else 100 * (1 - reference / top),
        x_ticks=_step_ticks(int(steps[0]), int(steps[-1])),
        y_ticks=tuple(Tick(100 * (1 - value / top), f"{value:g}") for value in nice_ticks(0.0, top, 4)),
        first=float(heights[0]),
        last=float(heights[-1]),
        reference_value=reference,
    )


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """The centred mean over `window` values; towards the ends over those that there are."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    start = np.clip(index - window // 2, 0, None)
    stop = np.clip(index - window // 2 + window, None, len(values))
    return (sums[stop] - sums[start]) / (stop - start)


def nice_ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """Up to about `count` round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(number * step, 12) for number in range(first, last + 1))


class Bar(NamedTuple):
    """An interval drawn on a scale, in percent of its width: its ends and the value between."""

    low: float
    at: float
    high: float


class IntervalScale(NamedTuple):
    """Intervals on one scale, by name, with the marks of the scale."""

    bars: Mapping[str, Bar]
    ticks: tuple[Tick, ...]


def interval_scale(estimates: Mapping[str, Estimate]) -> IntervalScale:
    """All intervals on one scale that has a little room at both ends."""
    low = min(found.low for found in estimates.values())
    high = max(found.high for found in estimates.values())
    room = max(0.08 * (high - low), (_LEAST_SCORE_RANGE - (high - low)) / 2)
    low, high = low - room, high + room

    def at(value: float) -> float:
        return 100 * (value - low) / (high - low)

    return IntervalScale(
        bars={name: Bar(at(e.low), at(e.value), at(e.high)) for name, e in estimates.items()},
        ticks=tuple(Tick(at(value), f"{value:g}") for value in nice_ticks(low, high, 4)),
    )


class NormScale(NamedTuple):
    """A ruler for norms, from 0: the vocabulary's middle 90% and mean, and each row before and after."""

    band_low: float
    band_high: float
    mean: float
    rows: tuple[tuple[float, float], ...]
    ticks: tuple[Tick, ...]


def norm_scale(health: EncoderHealth) -> NormScale:
    """Positions of the norms of one text encoder's rows: (initial, learned) for each row."""
    norms = [value for row in health.rows for value in (row.norm, row.initial_norm)]
    top = 1.1 * max([health.norm_p95, *norms])
    return NormScale(
        band_low=100 * health.norm_p5 / top,
        band_high=100 * health.norm_p95 / top,
        mean=100 * health.norm_mean / top,
        rows=tuple((100 * row.initial_norm / top, 100 * row.norm / top) for row in health.rows),
        ticks=tuple(Tick(100 * value / top, f"{value:g}") for value in nice_ticks(0, top, 6)),
    )


def _step_ticks(first: int, last: int) -> tuple[Tick, ...]:
    marks = [mark for mark in nice_ticks(0, last, 5) if first <= mark <= last and mark == int(mark)]
    return tuple(Tick(100 * (mark - first) / (last - first), f"{int(mark):,}") for mark in marks)


def _path(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> str:
    return "M" + "L".join(f"{a:.2f} {b:.2f}" for a, b in zip(x, y, strict=True))
