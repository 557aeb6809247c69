"""What a training shows while it runs, by both frameworks: numbers, curves, files of the rows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from components.common.artifacts import LatentSet, LearnedEmbedding, read_clip_skip, read_learned_embeds
from components.common.errors import ConfigError
from components.common.training.config import TrainConfig
from components.common.training.metrics import from_json_lines
from components.common.training.watch_config import WatchConfig
from components.train.train import train
from tests.train import trainings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A training that is finished, and where it is kept."""

    learned: LearnedEmbedding
    checkpoints: Path

    @property
    def kept(self) -> Path:
        return self.checkpoints / self.learned.training_key

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.kept / "metrics.jsonl").read_text().splitlines()]

    @property
    def curves(self) -> EventAccumulator:
        return EventAccumulator(str(self.kept / "tensorboard")).Reload()


def run(framework: str, folder: Path, inputs: dict[str, Path], watching: WatchConfig, **changes: Any) -> Trained:
    learned = train(
        TrainConfig(**{**trainings.SHORT, **changes}),
        framework=framework,
        **inputs,
        checkpoint_root=str(folder / "checkpoints"),
        accelerator="cpu",
        output=folder / "learned",
        watching=watching,
    )
    return Trained(learned=learned, checkpoints=folder / "checkpoints")


@pytest.fixture(scope="module")
def watched(micro_inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """A training that went on after its fourth step, by framework."""
    found = {}
    for framework in ("torch", "flax"):
        folder = tmp_path_factory.mktemp(framework)
        run(framework, folder, micro_inputs, WatchConfig(), max_train_steps=4)
        found[framework] = run(framework, folder, micro_inputs, WatchConfig())
    return found


@pytest.fixture(params=["torch", "flax"])
def trained(request: pytest.FixtureRequest, watched: dict[str, Trained]) -> Trained:
    """The training of each framework in turn."""
    return watched[request.param]


def test_every_line_is_there_once_when_a_training_goes_on(trained: Trained) -> None:
    lines, losses = trained.lines, trained.learned.losses
    assert [line["step"] for line in lines] == [2, 4, 6]
    np.testing.assert_allclose([line["loss"] for line in lines], losses.reshape(3, 2).mean(axis=1), rtol=1e-6)
    assert [line["lr"] for line in lines] == pytest.approx([0.05 / 3, 0.05, 0.05])
    assert all(line["samples_per_second"] > 0 and line["memory_bytes"] > 2**20 for line in lines)


def test_frameworks_have_the_same_numbers(watched: dict[str, Trained]) -> None:
    ours, theirs = (watched[name].lines for name in ("torch", "flax"))
    for name in ("loss", "lr", "rows_norm"):
        np.testing.assert_allclose([line[name] for line in ours], [line[name] for line in theirs], rtol=1e-4)


def test_norm_is_that_of_the_rows_in_vocabulary_norms(trained: Trained, micro_model: Path) -> None:
    weights = load_file(micro_model / "text_encoder" / "model.safetensors")
    (table,) = (weight for name, weight in weights.items() if name.endswith("token_embedding.weight"))
    rows = trained.learned.rows["text_encoder"]
    expected = np.linalg.norm(rows, axis=1).mean() / np.linalg.norm(table, axis=1).mean()
    assert trained.lines[-1]["rows_norm"] == pytest.approx(float(expected), rel=1e-4)


def test_tensorboard_shows_every_number_once_and_the_configuration(trained: Trained) -> None:
    curves = trained.curves
    for name in ("loss", "lr", "rows_norm", "samples_per_second", "memory_bytes"):
        points = curves.Scalars(name)
        assert [point.step for point in points] == [2, 4, 6]
        np.testing.assert_allclose([point.value for point in points], [line[name] for line in trained.lines], rtol=1e-6)
    (text,) = curves.Tensors("config")[-1].tensor_proto.string_val
    assert b'"learning_rate": 0.05' in text and b'"report_to": "tensorboard"' in text


def test_rows_are_kept_every_save_steps_as_diffusers_loads_them(trained: Trained) -> None:
    files = sorted(trained.kept.glob("learned_embeds-steps-*.safetensors"))
    assert [file.name for file in files] == [f"learned_embeds-steps-{step}.safetensors" for step in (2, 4, 6)]
    (snapshot,) = trained.learned.snapshots  # the first start ended with step 4, which is no snapshot of its
    for file, step, rows in ((files[0], 2, snapshot.rows), (files[2], 6, trained.learned.rows)):
        header, found = read_learned_embeds(file)
        assert header["placeholder_token"] == "<cat-toy>" and header["step"] == str(step)
        np.testing.assert_array_equal(found["text_encoder"], rows["text_encoder"])


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_kept_rows_say_which_layers_they_want_left_out(
    framework: str, micro_inputs: dict[str, Path], tmp_path: Path
) -> None:
    done = run(framework, tmp_path, micro_inputs, WatchConfig(report_to="none"), max_train_steps=2, clip_skip=1)
    assert read_clip_skip(done.kept / "learned_embeds-steps-2.safetensors") == done.learned.clip_skip == 1


def test_key_and_rows_do_not_depend_on_who_looks_on(
    watched: dict[str, Trained], micro_inputs: dict[str, Path], tmp_path: Path
) -> None:
    alone = run("torch", tmp_path, micro_inputs, WatchConfig(report_to="none"))
    assert alone.learned.training_key == watched["torch"].learned.training_key
    assert alone.learned.digest == watched["torch"].learned.digest
    assert not (alone.kept / "tensorboard").exists() and len(alone.lines) == 3


def test_event_files_go_where_logging_dir_says(micro_inputs: dict[str, Path], tmp_path: Path) -> None:
    done = run("torch", tmp_path, micro_inputs, WatchConfig(logging_dir=str(tmp_path / "logs")), max_train_steps=2)
    (folder,) = (tmp_path / "logs").iterdir()
    assert folder.name == done.learned.training_key[:12] and not (done.kept / "tensorboard").exists()
    assert [point.step for point in EventAccumulator(str(folder)).Reload().Scalars("loss")] == [2]


def test_epochs_are_steps_of_all_pictures_and_repeats(micro_inputs: dict[str, Path], tmp_path: Path) -> None:
    fields = {"num_train_epochs": 2, "repeats": 1, "train_batch_size": 2, "lr_scheduler": "linear"}
    done = run("torch", tmp_path / "epochs", micro_inputs, WatchConfig(report_to="none"), **fields)
    steps = run("torch", tmp_path / "steps", micro_inputs, WatchConfig(report_to="none"), **{
        **fields, "num_train_epochs": 0, "max_train_steps": done.learned.steps
    })  # fmt: skip
    pictures = len(LatentSet.read(micro_inputs["latent_set"]).latents)
    assert done.learned.steps == -(-2 * pictures // 2) and done.learned.config["max_train_steps"] == done.learned.steps
    assert steps.learned.training_key == done.learned.training_key


def test_prompt_without_the_word_is_refused(micro_inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"validation_prompt: found 'a cat', expected a prompt with \{\} or <cat"):
        run("torch", tmp_path, micro_inputs, WatchConfig(validation_prompt="a cat"))


def test_numbers_are_read_back(trained: Trained) -> None:
    lines = from_json_lines((trained.kept / "metrics.jsonl").read_bytes())
    assert [line.known() for line in lines] == trained.lines
