"""The pipeline's step in its own pod."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kfp import dsl

from components.common.artifacts import LearnedEmbedding
from components.common.errors import ConfigError
from components.common.training.config import TrainConfig
from components.train.component import train
from components.train.config import TrainStepConfig


def run(inputs: dict[str, Path], folder: Path, **where: str) -> tuple[dsl.Model, dsl.Metrics]:
    """The component's body as KFP calls it, on artifacts that lie in local folders."""
    config = TrainStepConfig(
        checkpoint_root=str(folder / "checkpoints"),
        training=TrainConfig(train_batch_size=1, max_train_steps=1, learning_rate=0.01),
        **where,
    )
    learned = dsl.Model(name="learned_embedding", uri=str(folder / "learned"))
    metrics = dsl.Metrics(name="training_metrics", uri=str(folder / "training_metrics"))
    train.python_func(
        config.to_json(),
        latent_set=dsl.Dataset(name="latent_set", uri=str(inputs["latent_set"])),
        base_model=dsl.Model(name="base_model", uri=str(inputs["base_model"])),
        initial_embedding=dsl.Model(name="initial_embedding", uri=str(inputs["initial_embedding"])),
        learned_embedding=learned,
        training_metrics=metrics,
    )
    return learned, metrics


@pytest.mark.parametrize(("asked", "trains"), [("auto", "torch"), ("torch", "torch"), ("flax", "flax")])
def test_component_trains_and_says_what_was_learned(
    micro_inputs: dict[str, Path], tmp_path: Path, asked: str, trains: str
) -> None:
    learned, metrics = run(micro_inputs, tmp_path, accelerator="cpu", framework=asked)
    written = LearnedEmbedding.read(tmp_path / "learned")
    assert written.lineage["framework"] == trains
    assert learned.metadata == {
        "display_name": "Learned embedding",
        "placeholder_token": "<cat-toy>",
        "steps": 1,
        "training_key": written.training_key,
    }
    (line,) = (json.loads(line) for line in (tmp_path / "training_metrics").read_text().splitlines())
    assert line["step"] == 1 and line["loss"] == pytest.approx(written.losses[0])
    kept = tmp_path / "checkpoints" / written.training_key
    assert metrics.metadata == {
        "display_name": "Training metrics",
        "tensorboard_logdir": str(kept / "tensorboard"),
        **line,
    }
    assert list((kept / "tensorboard").iterdir())


def test_component_refuses_a_framework_that_does_not_train_there(
    micro_inputs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(micro_inputs, tmp_path, accelerator="tpu", framework="torch")
    assert stop.value.code == ConfigError.exit_code
    assert "framework: found torch with accelerator tpu" in caplog.text
