"""The rows' gradient and their values after AdamW steps equal those of the reference's mathematics.

So they do in fp32; with weights of half the bits the gradient is as close as their roundoff lets it be.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from components.common.artifacts import InitialEmbedding, Latents, LatentSet, Picture
from components.common.prompts import OBJECT_TEMPLATES, placeholder_tokens
from components.common.training.checkpoints import TrainingState
from components.common.training.config import TrainConfig
from components.common.training.prompt_ids import load_tokenizers, training_prompt_ids
from components.common.training.sampling_plan import Batch, SamplingPlan
from components.encode_latents.latents import posterior
from components.torch_models.loading import (
    WEIGHT_DTYPES,
    load_noise_scheduler,
    load_text_encoder,
    load_unet,
    load_vae,
)
from components.train.torch.models import FrozenModels
from components.train.torch.trainer import TEXT_ENCODER, TorchTrainer
from tests.parity.reference import ReferenceTrainer

CPU = torch.device("cpu")
SIDE = 64
STEPS = 6
LEARNING_RATE = 5e-3

ROUNDOFF = {"bf16": 2.0**-8, "fp16": 2.0**-11}
"""The largest relative error of one rounding."""
GRADIENT_ROUNDINGS = 12
"""The relative L2 difference of a gradient allowed, in units of roundoff; found were 3 to 9."""


def _pixels() -> list[np.ndarray]:
    generator = np.random.default_rng(7)
    return [generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(3)]


def _latent_set(model: Path, pixels: list[np.ndarray]) -> LatentSet:
    vae = load_vae(model, device=CPU)
    latents = []
    for index, picture in enumerate(pixels):
        mean, std = posterior(vae, np.stack([picture, picture[:, ::-1]]))
        record = Picture(
            source=f"{index}.png",
            caption=None,
            original_size=(SIDE, SIDE),
            crop_top_left=(0, 0),
            size=(SIDE, SIDE),
        )
        latents.append(Latents(picture=record, mean=mean[0], std=std[0], flipped_mean=mean[1], flipped_std=std[1]))
    return LatentSet(
        latents=tuple(latents),
        scaling_factor=float(vae.config.scaling_factor),
        base_model_digest="",
        image_set_digest="",
    )


def _trainers(
    model: Path, num_vectors: int, accumulation: int, mixed_precision: str = "no", fuse: bool = True
) -> tuple[TorchTrainer, ReferenceTrainer, SamplingPlan, list[np.ndarray]]:
    tokens = placeholder_tokens("<cat-toy>", num_vectors)
    reference = ReferenceTrainer(model, list(tokens), "toy", LEARNING_RATE, decay=1e-2)
    embedding = InitialEmbedding(
        placeholder_token="<cat-toy>",
        tokens=tokens,
        token_ids=tuple(reference.ids),
        initializer_token="toy",
        initializer_token_id=0,
        rows={TEXT_ENCODER: reference.rows},
        base_model_digest="",
    )
    pixels = _pixels()
    config = TrainConfig(
        train_batch_size=2,
        gradient_accumulation_steps=accumulation,
        fuse_micro_batches=fuse,
        learning_rate=LEARNING_RATE,
        mixed_precision=mixed_precision,
    )
    dtype = WEIGHT_DTYPES[mixed_precision]
    noise_scheduler = load_noise_scheduler(model)
    trainer = TorchTrainer(
        config=config,
        latent_set=_latent_set(model, pixels),
        embedding=embedding,
        prompt_ids=training_prompt_ids(load_tokenizers(model, embedding), embedding, "object"),
        models=FrozenModels(
            config,
            text_encoder=load_text_encoder(model, dtype=dtype, device=CPU),
            unet=load_unet(model, dtype=dtype, device=CPU),
            noise_scheduler=noise_scheduler,
            accelerator=Accelerator(cpu=True),
        ),
    )
    plan = SamplingPlan(
        seed=3,
        num_pictures=len(pixels),
        repeats=2,
        global_batch=config.global_batch(1),
        num_templates=len(OBJECT_TEMPLATES),
        flip_probability=0.5,
        num_train_timesteps=noise_scheduler.config.num_train_timesteps,
        latents_shape=(4, SIDE // 8, SIDE // 8),
    )
    return trainer, reference, plan, pixels


@pytest.mark.parametrize(("num_vectors", "accumulation"), [(1, 1), (4, 1), (1, 4), (4, 4)])
def test_gradient_and_rows_equal_reference(tiny_model: Path, num_vectors: int, accumulation: int) -> None:
    trainer, reference, plan, pixels = _trainers(tiny_model, num_vectors, accumulation)
    initial = reference.rows

    for step in range(STEPS):
        batch = plan.batch(step)
        size = len(batch) // accumulation
        parts = [batch.part(slice(start, start + size)) for start in range(0, len(batch), size)]
        gradient = reference.step(parts, pixels, OBJECT_TEMPLATES)
        trainer.accumulate_gradient(batch, at_once=size)
        assert trainer.rows.grad is not None
        ours = trainer.rows.grad.numpy().copy()
        trainer.rows.grad = None
        error = np.linalg.norm(ours - gradient) / np.linalg.norm(gradient)
        assert error < 2e-6, f"gradient of step {step}: relative L2 difference {error:.1e}"
        trainer.step(batch, LEARNING_RATE)

    movement = np.linalg.norm(reference.rows - initial)
    difference = np.linalg.norm(trainer.copy_state(STEPS, []).read()[0].rows[TEXT_ENCODER] - reference.rows)
    assert movement > 0.1
    assert difference / movement < 1e-4


def test_rows_alone_are_trained_when_stepping(tiny_sd15: Path) -> None:
    trainer, _, plan, _ = _trainers(tiny_sd15, 2, 1)
    frozen = [
        p for m in (trainer.models.text_encoder, trainer.models.unet) for p in m.parameters() if p is not trainer.rows
    ]
    before = [parameter.clone() for parameter in frozen]

    trainer.step(plan.batch(0), LEARNING_RATE)

    assert not any(parameter.requires_grad for parameter in frozen)
    assert all(torch.equal(old, new) for old, new in zip(before, frozen, strict=True))


def _step_at(trainer: TorchTrainer, rows: np.ndarray, batch: Batch, rate: float) -> tuple[TrainingState, np.ndarray]:
    """The state and the loss, float32 [1], after AdamW's first step from `rows`."""
    fresh = {
        "rows": {TEXT_ENCODER: rows},
        "first_moment": {TEXT_ENCODER: np.zeros_like(rows)},
        "second_moment": {TEXT_ENCODER: np.zeros_like(rows)},
    }
    trainer.write_state(TrainingState(step=0, **fresh))
    loss = trainer.step(batch, rate)
    return trainer.copy_state(1, [loss]).read()


@pytest.mark.parametrize(
    ("mixed_precision", "num_vectors", "accumulation"), [("bf16", 4, 1), ("bf16", 1, 4), ("fp16", 4, 1)]
)
def test_gradient_and_loss_are_close_to_reference_with_weights_of_half_the_bits(
    tiny_model: Path, mixed_precision: str, num_vectors: int, accumulation: int
) -> None:
    trainer, reference, plan, pixels = _trainers(tiny_model, num_vectors, accumulation, mixed_precision, fuse=False)
    roundoff = ROUNDOFF[mixed_precision]

    for step in range(STEPS):
        batch, rows = plan.batch(step), reference.rows
        with torch.no_grad():
            expected = reference.loss(batch, pixels, OBJECT_TEMPLATES).item()
        gradient = reference.step([batch], pixels, OBJECT_TEMPLATES)
        state, (loss,) = _step_at(trainer, rows, batch, LEARNING_RATE)
        ours = state.first_moment[TEXT_ENCODER] / (1 - TrainConfig.adam_beta1)
        error = np.linalg.norm(ours - gradient) / np.linalg.norm(gradient)
        assert error < GRADIENT_ROUNDINGS * roundoff, f"gradient of step {step}: relative L2 difference {error:.1e}"
        assert abs(loss - expected) < roundoff * expected


@pytest.mark.parametrize("mixed_precision", ["bf16", "fp16"])
def test_rows_moments_and_loss_are_fp32_with_weights_of_half_the_bits(tiny_model: Path, mixed_precision: str) -> None:
    trainer, reference, plan, _ = _trainers(tiny_model, 1, 1, mixed_precision)
    tiny = np.float32(1e-6)  # lost on rows of bf16, of which two neighbours near 0.02 are 1e-4 apart

    state, losses = _step_at(trainer, reference.rows, plan.batch(0), float(tiny))

    moved = np.abs(state.rows[TEXT_ENCODER] - reference.rows)
    # AdamW's first step is the learning rate, but for an element whose gradient is next to nothing.
    assert np.isclose(moved, tiny, rtol=0.05).mean() > 0.95
    moments = (state.first_moment[TEXT_ENCODER], state.second_moment[TEXT_ENCODER])
    for values in (state.rows[TEXT_ENCODER], *moments, losses):
        assert values.dtype == np.float32
        assert (torch.from_numpy(values).to(WEIGHT_DTYPES[mixed_precision]).float().numpy() != values).any()
