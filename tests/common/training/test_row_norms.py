"""Which norm rows are held to, and when a learning rate takes steps that are long beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from components.common.training.config import TrainConfig
from components.common.training.row_norms import long_step_warning, wanted_norms

ROWS = np.array([[3.0, 4.0], [0.0, 0.5]], np.float32)
TINY_WORLD = 0.21 / 96**0.5


@pytest.mark.parametrize(
    ("fields", "norms"),
    [
        ({}, None),
        ({"norm_control": "none"}, None),
        ({"max_embedding_norm": 1.5}, [0.6, 0.6]),
        ({"norm_control": "rescale"}, [0.4, 0.4]),
        ({"norm_control": "rescale", "max_embedding_norm": 1.5}, [0.6, 0.6]),
        ({"norm_control": "fixed"}, [5.0, 0.5]),
    ],
)
def test_norm_is_that_of_the_control(fields: dict[str, Any], norms: list[float] | None) -> None:
    found = wanted_norms(TrainConfig(**fields), ROWS, 0.4)
    if norms is None:
        assert found is None
    else:
        assert found is not None
        np.testing.assert_allclose(found, np.array(norms)[:, None])


@pytest.mark.parametrize(
    ("rate", "fields", "told"),
    [
        (1e-2, {}, ""),
        (
            0.3,
            {},
            "found 3.0e-01 after scale_lr, whose steps are 14.0 times as long as a word's row, expected at most 1.1",
        ),
        (3e-2, {}, "1.4 times"),
        (3e-2, {"max_embedding_norm": 1.0}, ""),
        (0.3, {"norm_control": "fixed"}, "expected at most 4.3e-02, 2.0 times"),
    ],
)
def test_long_steps_are_told_with_the_learning_rate_to_take(rate: float, fields: dict[str, Any], told: str) -> None:
    warning = long_step_warning(TrainConfig(**fields), peak_learning_rate=rate, typical_element=TINY_WORLD)
    assert told in warning and bool(told) is bool(warning)
