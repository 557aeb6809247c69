"""Pictures of the new word while it is learned: drawn beside the training by either framework."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from components.common.artifacts import learned_embeds_bytes
from components.common.storage import open_store
from components.common.training.config import TrainConfig
from components.common.training.watch_config import WatchConfig
from components.train.flax import preview as flax_preview
from components.train.preview import PreviewConfig
from components.train.previews import Previews
from components.train.torch import preview as torch_preview
from components.train.train import train
from tests.train import trainings
from tests.train.conftest import micro_inputs, micro_model  # noqa: F401 - fixtures

SLEEPER = "import time; from components.train.preview import run_preview; run_preview(lambda config: time.sleep(600))"
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


def test_pictures_are_drawn_without_the_layers_that_the_rows_were_learned_without(micro_model: Path, tmp_path: Path):  # noqa: F811
    rows = {"text_encoder": np.random.default_rng(0).normal(0, 1, (2, 32)).astype(np.float32)}
    for drawn_by in (torch_preview, flax_preview):
        pictures = {}
        for clip_skip in (0, 1):
            file = tmp_path / f"{clip_skip}.safetensors"
            file.write_bytes(learned_embeds_bytes("<cat-toy>", rows, {}, clip_skip=clip_skip))
            places = {"model": str(micro_model), "concept": str(file), "folder": str(tmp_path), "uri": str(tmp_path)}
            config = PreviewConfig(**places, accelerator="cpu", prompt="a <cat-toy>", num_images=3, seed=7)
            pictures[clip_skip] = drawn_by.draw(config)
        assert [len(each) for each in pictures.values()] == [3, 3]
        assert all((with_all != without).any() for with_all, without in zip(*pictures.values(), strict=True))


def test_drawing_that_fails_or_is_slow_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    previews = Previews(
        framework="torch",
        model=tmp_path / "nothing",
        accelerator="cpu",
        prompt="a <cat-toy>",
        num_images=1,
        seed=0,
        store=open_store(str(tmp_path / "checkpoints")),
        training_key="a" * 64,
    )
    previews.start(10, b"no concept")
    previews.start(20, b"no concept")
    assert "no pictures of step 20, since those of step 10 are still being drawn" in caplog.text
    previews.wait()
    assert previews.finished() is None
    assert "no pictures of step 10: drawing them ended with 1: " in caplog.text and "model_index.json" in caplog.text
    previews.start(30, b"no concept")
    previews.close()
    assert "no pictures of step 30: the training ended before they were drawn" in caplog.text
    assert not (tmp_path / "checkpoints").exists()


def test_drawing_ends_with_its_trainer(tmp_path: Path):
    flags = ["--model=x", "--concept=x", "--accelerator=cpu", "--prompt=x", "--num-images=1", "--seed=0", "--uri=x"]
    drawing = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, *flags, f"--folder={tmp_path / 'pictures'}"], stdin=subprocess.PIPE
    )
    assert drawing.stdin and drawing.poll() is None
    drawing.stdin.close()  # as the kernel does when the trainer is gone
    assert drawing.wait(60) == 1
