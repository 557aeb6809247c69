"""The named sets of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from components.preflight.options import check_options, known_options
from pipelines.presets import GUIDE_EXAMPLE, PRESETS, SPRITES_DEMO


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_preset_gives_every_option(preset: Mapping[str, Any]):
    assert set(preset) == set(known_options())


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_preset_passes_the_checks(preset: Mapping[str, Any]):
    check_options({**preset, "storage_uri": "gs://bucket/ti"})


def test_guide_example_is_that_of_the_guide():
    training = check_options({**GUIDE_EXAMPLE, "storage_uri": "gs://bucket/ti"}).training
    assert training.max_train_steps == 3000
    assert training.global_batch(num_processes=1) == 4
    assert training.peak_learning_rate(num_processes=1) == pytest.approx(2e-3)
    assert (GUIDE_EXAMPLE["placeholder_token"], GUIDE_EXAMPLE["initializer_token"]) == ("<cat-toy>", "toy")


def test_sources_of_the_demo_are_in_the_repository():
    for name in ("images_uri", "scoring_images_uri", "base_model", "scorer"):
        assert Path(SPRITES_DEMO[name]).is_dir(), name
