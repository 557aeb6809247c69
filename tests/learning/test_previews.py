"""Pictures of the new word while it is learned: drawn beside the training by either framework."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from components.common.training.config import TrainConfig
from components.common.training.watch_config import WatchConfig
from components.train.train import train
from tests.train import trainings
from tests.train.conftest import micro_inputs, micro_model  # noqa: F401 - fixtures

WATCHING = WatchConfig(validation_prompt="a photo of {}", validation_steps=6, num_validation_images=2)


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_pictures_are_drawn_kept_and_shown(framework: str, micro_inputs: dict[str, Path], tmp_path: Path):  # noqa: F811
    learned = train(
        TrainConfig(**trainings.SHORT),
        framework=framework,
        **micro_inputs,
        checkpoint_root=str(tmp_path / "checkpoints"),
        accelerator="cpu",
        output=tmp_path / "learned",
        watching=WATCHING,
    )

    kept = tmp_path / "checkpoints" / learned.training_key
    assert [folder.name for folder in (kept / "previews").iterdir()] == ["step-00000006"]
    files = sorted((kept / "previews" / "step-00000006").glob("*.png"))
    assert [file.name for file in files] == ["0.png", "1.png"]
    pictures = [np.asarray(Image.open(file)) for file in files]
    assert pictures[0].shape[2] == 3 and pictures[0].std() > 0 and (pictures[0] != pictures[1]).any()
    curves = EventAccumulator(str(kept / "tensorboard")).Reload()
    for number, file in enumerate(files):
        (shown,) = curves.Images(f"preview/{number}")
        assert shown.step == 6 and shown.encoded_image_string[:4] == file.read_bytes()[:4]
