"""The rows' gradient and their values after AdamW steps equal those of the reference's mathematics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from components.common.artifacts import InitialEmbedding, Latents, LatentSet, Picture
from components.common.prompts import OBJECT_TEMPLATES, placeholder_tokens
from components.common.training.config import TrainConfig
from components.common.training.prompt_ids import load_tokenizer, training_prompt_ids
from components.common.training.sampling_plan import SamplingPlan
from components.encode_latents.latents import posterior
from components.torch_models.loading import load_noise_scheduler, load_text_encoder, load_unet, load_vae
from components.train_torch.trainer import TEXT_ENCODER, TorchTrainer
from tests.parity.reference import ReferenceTrainer

CPU = torch.device("cpu")
SIDE = 64
STEPS = 6
LEARNING_RATE = 5e-3


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
    model: Path, num_vectors: int, accumulation: int
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
    config = TrainConfig(train_batch_size=2, gradient_accumulation_steps=accumulation, learning_rate=LEARNING_RATE)
    noise_scheduler = load_noise_scheduler(model)
    trainer = TorchTrainer(
        config=config,
        latent_set=_latent_set(model, pixels),
        embedding=embedding,
        prompt_ids=training_prompt_ids(load_tokenizer(model, embedding), embedding, "object"),
        text_encoder=load_text_encoder(model, dtype=torch.float32, device=CPU),
        unet=load_unet(model, dtype=torch.float32, device=CPU),
        noise_scheduler=noise_scheduler,
        accelerator=Accelerator(cpu=True),
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
    frozen = [p for m in (trainer._text_encoder, trainer._unet) for p in m.parameters() if p is not trainer.rows]
    before = [parameter.clone() for parameter in frozen]

    trainer.step(plan.batch(0), LEARNING_RATE)

    assert not any(parameter.requires_grad for parameter in frozen)
    assert all(torch.equal(old, new) for old, new in zip(before, frozen, strict=True))
