"""Pixels as bytes, and progress as a line."""

from __future__ import annotations

import numpy as np
import pytest

from components.common.drawing import picture_bytes, progress_line


def test_progress_line_says_how_far_how_fast_and_how_long() -> None:
    assert progress_line("sampling", 12, 48, 9.0) == "sampling 12/48  1.3 img/s  eta 0:27"
    assert progress_line("sampling", 4, 128, 60.0) == "sampling   4/128  0.067 img/s  eta 31:00"


def test_picture_is_rounded_to_bytes() -> None:
    picture = np.array([[[0.0, 0.5, 1.0]]], np.float32)
    assert picture_bytes(picture).tolist() == [[[0, 128, 255]]]
    assert picture_bytes(picture).dtype == np.uint8


def test_picture_is_black_when_a_pixel_is_not_finite(caplog: pytest.LogCaptureFixture) -> None:
    assert picture_bytes(np.array([[[0.5, np.nan, 0.5]]])).max() == 0
    assert "not finite" in caplog.text
