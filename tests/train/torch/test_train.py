"""What the training step does with PyTorch alone, and with configurations of real models."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from torch import nn

from components.common.artifacts import LearnedEmbedding
from components.common.errors import ConfigError, TrainingError
from components.common.training.config import MAX_SEED, TrainConfig
from components.train.torch.process import allow_tf32
from components.train.train import train
from tests.train import trainings
from tests.train.torch.conftest import make_inputs

REPOSITORY = Path(__file__).parents[3]


def config(**changes: Any) -> TrainConfig:
    fields = {
        "train_batch_size": 1,
        "max_train_steps": 4,
        "learning_rate": 0.05,
        "save_steps": 2,
        "checkpointing_steps": 2,
        "log_steps": 2,
    }
    return TrainConfig(**{**fields, **changes})


def run(folder: Path, inputs: dict[str, Path], **changes: Any) -> LearnedEmbedding:
    return trainings.run("torch", folder, inputs, config(**changes))


def test_every_configuration_trains(tmp_path: Path, tiny_reference: Path) -> None:
    learned = run(tmp_path, make_inputs(tmp_path, tiny_reference, num_vectors=2))
    again = LearnedEmbedding.read(tmp_path / "learned")

    assert again.steps == 4
    assert again.tokens == ("<cat-toy>", "<cat-toy>_1")
    assert [snapshot.step for snapshot in again.snapshots] == [2]
    np.testing.assert_array_equal(again.rows["text_encoder"], learned.rows["text_encoder"])
    moved = np.abs(again.rows["text_encoder"] - again.initial_rows["text_encoder"])
    assert (moved > 0.05).any() and np.isfinite(moved).all()
    assert (tmp_path / "learned" / "token_identifier.txt").read_text() == "<cat-toy>"
    assert (tmp_path / "learned" / "type_of_concept.txt").read_text() == "object"


@pytest.mark.parametrize("num_vectors", [1, 3])
def test_learned_file_loads_in_diffusers_and_changes_pictures(
    tmp_path: Path, tiny_sd15: Path, sd15_reference: Path, num_vectors: int
) -> None:
    learned = run(tmp_path, make_inputs(tmp_path, sd15_reference, num_vectors), learning_rate=5.0)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd15, safety_checker=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)

    def picture(prompt: str) -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        output = pipeline(prompt, num_inference_steps=2, height=64, width=64, output_type="np", generator=generator)
        return output.images[0]

    before = picture("a photo of a toy")
    pipeline.load_textual_inversion(str(tmp_path / "learned"))
    table = pipeline.text_encoder.get_input_embeddings().weight.detach()

    ids = pipeline.tokenizer.convert_tokens_to_ids(list(learned.tokens))
    np.testing.assert_array_equal(table[ids].numpy(), learned.rows["text_encoder"])
    np.testing.assert_array_equal(picture("a photo of a toy"), before)
    assert np.abs(picture("a photo of a <cat-toy>") - before).max() > 1e-3


def test_untrained_embedding_keeps_initial_rows(tmp_path: Path, sd15_inputs: dict[str, Path]) -> None:
    learned = run(tmp_path, sd15_inputs, max_train_steps=0)
    assert learned.steps == 0
    np.testing.assert_array_equal(learned.rows["text_encoder"], learned.initial_rows["text_encoder"])


def test_nothing_is_drawn_from_global_generators_when_trained_with_the_largest_seed(
    tmp_path: Path, sd15_inputs: dict[str, Path]
) -> None:
    learned = []
    for other in (1, 2):
        random.seed(other)
        np.random.seed(other)
        torch.manual_seed(other)
        learned.append(run(tmp_path / str(other), sd15_inputs, seed=MAX_SEED, gradient_checkpointing=True))
    first, second = learned
    np.testing.assert_array_equal(first.rows["text_encoder"], second.rows["text_encoder"])
    np.testing.assert_array_equal(first.losses, second.losses)
    assert not np.array_equal(first.rows["text_encoder"], first.initial_rows["text_encoder"])


def test_gradient_checkpointing_changes_nothing(tmp_path: Path, sd15_inputs: dict[str, Path]) -> None:
    plain = run(tmp_path / "plain", sd15_inputs)
    saving = run(tmp_path / "saving", sd15_inputs, gradient_checkpointing=True)
    np.testing.assert_allclose(saving.losses, plain.losses, rtol=1e-5)
    np.testing.assert_allclose(saving.rows["text_encoder"], plain.rows["text_encoder"], atol=2e-4)


def kept_size(folder: Path, step: int) -> int:
    """The micro-batch size in the checkpoint of a step."""
    (file,) = (folder / "checkpoints").glob(f"*/step-{step:08d}.safetensors")
    with safe_open(file, "numpy") as opened:
        return json.loads(opened.metadata()["micro_batch_size"])


def test_size_is_that_of_the_checkpoint_when_resumed(tmp_path: Path, sd15_inputs: dict[str, Path]) -> None:
    run(tmp_path, sd15_inputs, gradient_accumulation_steps=4, fuse_micro_batches=False, max_train_steps=2)
    run(tmp_path, sd15_inputs, gradient_accumulation_steps=4)
    assert [kept_size(tmp_path, step) for step in (2, 4)] == [1, 1]


def test_size_is_what_the_configuration_allows_when_resumed(tmp_path: Path, sd15_inputs: dict[str, Path]) -> None:
    run(tmp_path, sd15_inputs, train_batch_size=4, max_train_steps=2)
    run(tmp_path, sd15_inputs, gradient_accumulation_steps=4, fuse_micro_batches=False)
    assert [kept_size(tmp_path, step) for step in (2, 4)] == [4, 1]


@pytest.mark.parametrize(("allowed", "precision"), [(True, "tf32"), (False, "ieee")])
def test_tf32_is_for_convolutions_as_for_matrix_products(allowed: bool, precision: str) -> None:
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.fp32_precision, convolution.fp32_precision
    try:
        allow_tf32(allowed)
        assert (matmul.fp32_precision, convolution.fp32_precision) == (precision, precision)
    finally:
        matmul.fp32_precision, convolution.fp32_precision = before


def test_running_out_of_memory_later_ends_training_with_ways_out(tmp_path: Path, sd15_inputs: dict[str, Path]) -> None:
    predictions = 0

    def run_out(module: nn.Module, _: Any) -> None:
        nonlocal predictions
        predictions += isinstance(module, UNet2DConditionModel)
        if predictions == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = nn.modules.module.register_module_forward_pre_hook(run_out)
    try:
        with pytest.raises(TrainingError, match=r"with 1 samples at once.*same command again, or turn on gradient_ch"):
            run(tmp_path, sd15_inputs)
    finally:
        hook.remove()
    assert kept_size(tmp_path, 2) == 1


def test_xformers_is_refused_with_a_next_step_when_it_cannot_run(tmp_path: Path, sd15_inputs: dict[str, Path]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(ConfigError, match=r"enable_xformers.*install xformers.*or turn the option off"):
        run(tmp_path, sd15_inputs, enable_xformers_memory_efficient_attention=True)


def test_gpu_is_refused_when_there_is_none(tmp_path: Path, sd15_inputs: dict[str, Path]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(ConfigError, match=r"gpu was asked for, but torch .* sees no CUDA device"):
        train(
            config(),
            framework="torch",
            **sd15_inputs,
            checkpoint_root=str(tmp_path),
            accelerator="gpu",
            output=tmp_path / "learned",
        )


def test_command_keeps_last_step_when_terminated(tmp_path: Path, sd15_inputs: dict[str, Path]) -> None:
    fields = {"max_train_steps": 2000, "log_steps": 1, "train_batch_size": 1}
    arguments = trainings.command("torch", tmp_path, sd15_inputs, **fields)
    with subprocess.Popen(arguments, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if " step " in line and "/2000" in line:
                process.send_signal(signal.SIGTERM)
                asked = time.monotonic()
                break
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert time.monotonic() - asked < 10
    assert "start the same command again" in rest
    assert list((tmp_path / "checkpoints").rglob("step-*.safetensors"))
    assert not (tmp_path / "learned").exists()
