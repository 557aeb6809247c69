"""Whether a base model is computed by the Flax modules, told from its JSON files alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.common.errors import BaseModelError
from components.flax_models.layers import ACTIVATIONS
from components.flax_models.model_check import CONFIG_FILES, check_model
from components.flax_models.module_configs import HIDDEN_ACTS


def described(folder: Path, model: Path, **changes: dict[str, Any]) -> Path:
    """The JSON files of a model, with changed fields of its parts."""
    for name in CONFIG_FILES:
        (folder / name).parent.mkdir(parents=True)
        shutil.copyfile(model / name, folder / name)
        if fields := changes.get(name.partition("/")[0]):
            content = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps({**content, **fields}))
    return folder


def test_models_of_both_kinds_are_computed(tiny_model: Path, tmp_path: Path) -> None:
    check_model(described(tmp_path / "model", tiny_model), num_inference_steps=50)


def test_all_that_is_not_implemented_is_named_at_once(tiny_sd15: Path, tmp_path: Path) -> None:
    model = described(
        tmp_path / "model",
        tiny_sd15,
        scheduler={"_class_name": "FlowMatchEulerDiscreteScheduler"},
        text_encoder={"model_type": "t5"},
        unet={"addition_embed_type": "text_time"},
        vae={"_class_name": "AutoencoderTiny"},
    )
    with pytest.raises(BaseModelError) as caught:
        check_model(model, num_inference_steps=50)
    for told in ("FlowMatchEulerDiscreteScheduler", "t5", "addition_embed_type = 'text_time'", "AutoencoderTiny"):
        assert told in str(caught.value)


def test_more_denoising_steps_than_timesteps_are_refused(tiny_sd15: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="num_inference_steps: found 1001, expected 1 to 1000"):
        check_model(described(tmp_path / "model", tiny_sd15), num_inference_steps=1001)


def test_activations_that_pass_the_check_are_those_that_are_implemented() -> None:
    assert set(HIDDEN_ACTS) == set(ACTIVATIONS)
