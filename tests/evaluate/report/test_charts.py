from __future__ import annotations

import re

import numpy as np
import pytest

from components.evaluate.report.charts import (
    curve_chart,
    interval_scale,
    loss_chart,
    moving_average,
    nice_ticks,
    norm_scale,
)
from components.evaluate.scoring.health import EncoderHealth, RowHealth
from components.evaluate.scoring.scores import Estimate


def points(path: str) -> np.ndarray:
    return np.array([[float(number) for number in pair.split()] for pair in re.findall(r"[-\d.]+ [-\d.]+", path)])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 0.47, (0, 0.2, 0.4)),
        (0, 3000, (0, 1000, 2000, 3000)),
        (-0.35, 0.9, (0, 0.5)),
        (0.29, 0.33, (0.29, 0.3, 0.31, 0.32, 0.33)),
    ],
)
def test_ticks_are_round_numbers_within(low, high, expected):
    assert nice_ticks(low, high, 4) == pytest.approx(expected)


def test_moving_average_is_the_mean_of_what_is_there():
    values = np.array([1.0, 2, 3, 4, 5])
    np.testing.assert_allclose(moving_average(values, 3), [1.5, 2, 3, 4, 4.5])
    np.testing.assert_allclose(moving_average(values, 1), values)


def test_loss_of_few_steps_is_drawn_step_by_step():
    chart = loss_chart(np.array([4.0, 2.0, 1.0], np.float32))

    assert chart is not None and not chart.raw_is_area
    drawn = points(chart.raw)
    np.testing.assert_allclose(drawn[:, 0], [0, 50, 100])
    assert drawn[0, 1] < drawn[1, 1] < drawn[2, 1] < 100  # lower on the page, and above the axis
    assert [tick.label for tick in chart.x_ticks] == ["1", "2", "3"]
    assert (chart.first, chart.last) == (4, 1)


def test_loss_of_many_steps_is_an_outline_of_limited_size():
    losses = np.random.default_rng(0).uniform(0.1, 0.3, 20_000)
    chart = loss_chart(losses)

    assert chart is not None and chart.raw_is_area
    assert len(chart.raw) + len(chart.smoothed) < 30_000
    assert chart.window == 800
    assert chart.last == pytest.approx(0.2, abs=0.01)
    drawn = points(chart.raw)
    assert drawn.min() >= 0 and drawn.max() <= 100


def test_one_enormous_loss_does_not_flatten_the_others():
    losses = np.full(1000, 0.2)
    losses[500] = 1e6
    losses[501:] = 0.1
    chart = loss_chart(losses)

    assert chart is not None
    drawn = points(chart.smoothed)
    assert drawn[-1, 1] - drawn[0, 1] > 20


def test_loss_that_is_not_finite_is_left_out():
    chart = loss_chart(np.array([0.5, np.nan, 0.3, np.inf, 0.2]))
    assert chart is not None and len(points(chart.raw)) == 3
    assert "nan" not in chart.raw + chart.smoothed


@pytest.mark.parametrize("losses", [[], [0.3], [np.nan, np.nan]])
def test_loss_of_no_two_steps_is_not_drawn(losses):
    assert loss_chart(np.array(losses, np.float32)) is None


def test_loss_of_zeros_is_drawn():
    chart = loss_chart(np.zeros(5))
    assert chart is not None and "nan" not in chart.raw


def test_intervals_keep_their_order_on_the_scale():
    scale = interval_scale(
        {"before": Estimate(value=0.4, low=0.35, high=0.45), "after": Estimate(value=0.8, low=0.78, high=0.83)}
    )
    before, after = scale.bars["before"], scale.bars["after"]

    assert 0 < before.low < before.at < before.high < after.low < after.at < after.high < 100
    assert [tick.label for tick in scale.ticks] == ["0.4", "0.6", "0.8"]


def test_scale_is_not_so_narrow_that_noise_looks_large():
    same = Estimate(value=0.3, low=0.299, high=0.301)
    bar = interval_scale({"before": same, "after": same}).bars["after"]

    assert bar.at == pytest.approx(50)
    assert bar.high - bar.low == pytest.approx(2)


def test_norms_begin_at_zero():
    row = RowHealth(token="<x>", norm=1.0, initial_norm=0.25, norm_ratio=4, cosine_to_initial=0, nearest=())
    scale = norm_scale(EncoderHealth(encoder="text_encoder", norm_mean=0.25, norm_p5=0.2, norm_p95=0.3, rows=(row,)))

    [(initial, learned)] = scale.rows
    assert learned == pytest.approx(4 * initial)
    assert scale.mean == pytest.approx(initial)
    assert scale.band_low < scale.mean < scale.band_high < learned < 100
    assert scale.ticks[0] == (0, "0")


def test_held_out_loss_is_drawn_with_the_true_caption_below_it():
    chart = curve_chart({0: 0.4, 50: 0.2, 100: 0.1}, 0.05)
    assert chart is not None and chart.reference is not None
    assert [dot.x for dot in chart.dots] == [0, 50, 100]
    assert chart.dots[0].y < chart.dots[1].y < chart.dots[2].y < chart.reference < 100
    assert (chart.first, chart.last, chart.reference_value) == (0.4, 0.1, 0.05)
    assert chart.dots[1].label == "0.200 after 50 steps"


@pytest.mark.parametrize(
    ("losses", "true_caption"), [({0: 0.4}, None), ({0: 0.4, 9: np.nan}, None), ({0: 1, 9: 1}, np.inf)]
)
def test_held_out_loss_of_one_step_or_of_no_numbers_is_not_drawn(losses, true_caption):
    assert curve_chart(losses, true_caption) is None


def test_held_out_loss_is_drawn_without_a_true_caption():
    chart = curve_chart({0: 0.4, 9: 0.3}, None)
    assert chart is not None and chart.reference is None
