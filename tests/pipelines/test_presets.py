"""The named sets of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from components.common.families import FAMILIES
from components.preflight.options import check_options, known_options
from pipelines.presets import GUIDE_EXAMPLE, PRESETS, SDXL_EXAMPLE, SPRITES_DEMO, SPRITES_XL_DEMO


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


def test_sdxl_example_is_that_of_the_reference_script_at_the_models_own_size():
    options = check_options({**SDXL_EXAMPLE, "storage_uri": "gs://bucket/ti"})
    family = next(family for family in FAMILIES if len(family.text_encoders) == 2)
    assert options.pictures.resolution == family.usual_resolution
    assert options.training.max_train_steps == 500
    assert options.training.peak_learning_rate(num_processes=1) == pytest.approx(2e-3)


@pytest.mark.parametrize("demo", [SPRITES_DEMO, SPRITES_XL_DEMO], ids=["sprites", "sprites-xl"])
def test_sources_of_the_demo_are_in_the_repository(demo: Mapping[str, Any]):
    for name in ("images_uri", "scoring_images_uri", "base_model", "scorer"):
        assert Path(demo[name]).is_dir(), name
