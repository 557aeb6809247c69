"""The Flax modules and the Flax trainer equal the torch ones: outputs, losses, gradients, rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from components.common.artifacts import Rows
from components.common.training.checkpoints import TrainingState
from components.common.training.config import TrainConfig
from components.common.training.prompt_ids import load_tokenizers, training_prompt_ids
from components.flax_models import loading as flax_loading
from components.flax_models.conditioning import conditioning
from components.torch_models import loading as torch_loading
from components.torch_models.placeholder_rows import place_rows
from components.train.torch.trainer import TorchTrainer
from tests import flax_runs as runs
from tests.torch_runs import frozen_models

CPU = torch.device("cpu")
TOLERANCE = 1e-4
STEPS = 3
FIRST_ID = 49_408
LEARNING_RATE = 5e-3


def torch_trainer(model: Path, config: TrainConfig, num_vectors: int) -> TorchTrainer:
    models = frozen_models(model, config)
    widths = {part: encoder.config.hidden_size for part, encoder in models.text_encoders.items()}
    embedding = runs.initial_embedding(widths, num_vectors)
    return TorchTrainer(
        config=config,
        latent_set=runs.latent_set(),
        embedding=embedding,
        prompt_ids=training_prompt_ids(load_tokenizers(model, embedding), embedding, "object"),
        models=models,
    )


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def assert_same(ours: TrainingState, theirs: TrainingState, initial: Rows) -> None:
    """Losses and moments to float32 rounding; rows by how far they moved, for AdamW's first steps divide rounding."""
    assert set(ours.rows) == set(theirs.rows) == set(initial)
    for encoder, before in initial.items():
        for part, tolerance in (("first_moment", 2e-5), ("second_moment", 4e-5)):
            found, wanted = (getattr(state, part)[encoder] for state in (ours, theirs))
            assert relative(found, wanted) < tolerance, (encoder, part)
        moved = theirs.rows[encoder] - before
        assert np.linalg.norm(moved) > 0.01
        assert relative(ours.rows[encoder] - before, moved) < 1e-3, encoder


def train_both(model: Path, config: TrainConfig, num_vectors: int) -> None:
    """Both for some steps; then Flax goes on from the state that PyTorch has reached."""
    ours, theirs = runs.flax_trainer(model, config, num_vectors), torch_trainer(model, config, num_vectors)
    plan = runs.sampling_plan(config)
    initial = theirs.copy_state(0, []).read()[0].rows
    for step in range(STEPS + 1):
        if step == STEPS:
            ours.write_state(theirs.copy_state(step, []).read()[0])
        batch = plan.batch(step)
        our_loss, their_loss = ours.step(batch, LEARNING_RATE), theirs.step(batch, LEARNING_RATE)
        our_state, our_losses = ours.copy_state(step + 1, [our_loss]).read()
        their_state, their_losses = theirs.copy_state(step + 1, [their_loss]).read()
        np.testing.assert_allclose(our_losses, their_losses, rtol=1e-5)
        assert_same(our_state, their_state, initial)


@pytest.mark.parametrize(("num_vectors", "v_prediction"), [(1, False), (4, True)])
def test_training_equals_torch_step_by_step(tmp_path: Path, num_vectors: int, v_prediction: bool) -> None:
    model = runs.make_micro_model(tmp_path / "model", v_prediction=v_prediction)
    config = TrainConfig(train_batch_size=2, gradient_accumulation_steps=2, fuse_micro_batches=num_vectors == 1)
    train_both(model, config, num_vectors)


def test_training_of_two_text_encoders_equals_torch_step_by_step(tiny_sdxl: Path) -> None:
    train_both(tiny_sdxl, TrainConfig(train_batch_size=2, max_grad_norm=1e-3), 2)


def test_shortened_rows_and_fixed_batch_loss_equal_torch(tmp_path: Path) -> None:
    model = runs.make_micro_model(tmp_path / "model")
    config = TrainConfig(train_batch_size=2, max_embedding_norm=0.9)
    ours, theirs = runs.flax_trainer(model, config, 2), torch_trainer(model, config, 2)
    table = torch_loading.load_text_encoder(model, dtype=torch.float32, device=CPU).get_input_embeddings().weight
    batch = runs.sampling_plan(config).batch(0)
    found, wanted = (trainer.copy_state(0, [trainer.loss_of(batch)]).read()[1] for trainer in (ours, theirs))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    for trainer in (ours, theirs):
        trainer.step(batch, 0.1)
    found, wanted = (t.copy_state(1, [t.loss_of(batch)]).read() for t in (ours, theirs))
    limit = 0.9 * table[:FIRST_ID].norm(dim=1).mean().item()
    norms = np.linalg.norm(wanted[0].rows[runs.TEXT_ENCODER], axis=1)
    np.testing.assert_allclose(norms, limit, rtol=1e-5)
    np.testing.assert_allclose(found[0].rows[runs.TEXT_ENCODER], wanted[0].rows[runs.TEXT_ENCODER], atol=1e-4)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-4)


@pytest.mark.timeout(900)
def test_outputs_and_gradient_equal_torch_on_all_levels(tiny_model: Path) -> None:
    generator = np.random.default_rng(0)
    ids = generator.integers(0, FIRST_ID, (2, 77))
    ids[:, 5:7] = [FIRST_ID, FIRST_ID + 1]
    latents, target = generator.standard_normal((2, 2, 4, 12, 8), dtype=np.float32)
    timesteps = np.array([3, 700])

    text = torch_loading.load_text_encoder(tiny_model, dtype=torch.float32, device=CPU)
    unet = torch_loading.load_unet(tiny_model, dtype=torch.float32, device=CPU)
    initial = runs.initial_embedding({runs.TEXT_ENCODER: text.config.hidden_size}, 2).rows[runs.TEXT_ENCODER]
    rows, _ = place_rows(text, torch.from_numpy(initial), FIRST_ID)
    hidden = text(torch.from_numpy(ids))[0]
    predicted = unet(torch.from_numpy(latents), torch.from_numpy(timesteps), hidden).sample
    loss = torch.nn.functional.mse_loss(predicted, torch.from_numpy(target))
    loss.backward()
    assert rows.grad is not None and hidden.abs().max() > 1

    our_text = flax_loading.load_text_encoders(tiny_model, runs.SD1, dtype=jnp.float32)[runs.TEXT_ENCODER]
    our_unet = flax_loading.load_unet(tiny_model, dtype=jnp.float32)

    def our_loss(rows, text_weights, unet_weights):  # type: ignore[no-untyped-def]
        hidden, _ = our_text.module(text_weights)(ids, rows, FIRST_ID)
        predicted = our_unet.module(unet_weights)(latents.transpose(0, 2, 3, 1), timesteps, hidden)
        predicted = predicted.transpose(0, 3, 1, 2)
        return jnp.square(predicted - target).mean(), (hidden, predicted)

    both = jax.jit(jax.value_and_grad(our_loss, has_aux=True))
    (value, (our_hidden, ours)), gradient = both(initial, our_text.weights, our_unet.weights)
    np.testing.assert_allclose(np.asarray(our_hidden), hidden.detach().numpy(), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(np.asarray(ours), predicted.detach().numpy(), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(gradient), rows.grad.numpy(), rtol=0, atol=TOLERANCE)
    assert relative(np.asarray(gradient), rows.grad.numpy()) < 2e-5


@pytest.mark.parametrize("clip_skip", [0, 1])
def test_outputs_and_gradients_equal_torch_with_two_text_encoders(tiny_sdxl: Path, clip_skip: int) -> None:
    """The penultimate hidden states of both, the pooled projection and the time ids, as diffusers computes them."""
    embedding = runs.initial_embedding({"text_encoder": 32, "text_encoder_2": 48}, 2)
    prompt_ids = training_prompt_ids(load_tokenizers(tiny_sdxl, embedding), embedding, "object")
    ids = {part: values[:2] for part, values in prompt_ids.items()}
    generator = np.random.default_rng(0)
    latents, target = generator.standard_normal((2, 2, 4, 8, 6), dtype=np.float32)
    timesteps = np.array([3, 700])
    time_ids = np.array([[60, 40, 0, 0, 16, 12], [32, 24, 4, 1, 16, 12]], np.float32)

    rows, hidden, pooled = {}, [], torch.empty(0)
    for part, kind in (("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection)):
        encoder = kind.from_pretrained(tiny_sdxl / part)
        rows[part], _ = place_rows(encoder, torch.from_numpy(embedding.rows[part]), FIRST_ID)
        output = encoder(torch.from_numpy(ids[part]), output_hidden_states=True)
        hidden.append(output.hidden_states[-2 - clip_skip])
        pooled = output.get("text_embeds", pooled)
    told = {"text_embeds": pooled, "time_ids": torch.from_numpy(time_ids)}
    predicted = UNet2DConditionModel.from_pretrained(tiny_sdxl / "unet")(
        torch.from_numpy(latents), torch.from_numpy(timesteps), torch.cat(hidden, dim=-1), added_cond_kwargs=told
    ).sample
    loss = torch.nn.functional.mse_loss(predicted, torch.from_numpy(target))
    loss.backward()

    texts = flax_loading.load_text_encoders(tiny_sdxl, runs.SDXL, dtype=jnp.float32)
    unet = flax_loading.load_unet(tiny_sdxl, dtype=jnp.float32)

    def our_loss(rows, text_weights, unet_weights):  # type: ignore[no-untyped-def]
        modules = {part: text.module(text_weights[part]) for part, text in texts.items()}
        told = conditioning(modules, ids, rows, FIRST_ID, clip_skip=clip_skip, time_ids=time_ids)
        predicted = unet.module(unet_weights)(latents.transpose(0, 2, 3, 1), timesteps, *told).transpose(0, 3, 1, 2)
        return jnp.square(predicted - target).mean(), (told, predicted)

    weights = {part: text.weights for part, text in texts.items()}
    both = jax.jit(jax.value_and_grad(our_loss, has_aux=True))
    (value, (ours, our_prediction)), gradients = both(dict(embedding.rows), weights, unet.weights)
    for found, wanted in ((ours.prompt, torch.cat(hidden, dim=-1)), (ours.pooled, pooled), (our_prediction, predicted)):
        np.testing.assert_allclose(np.asarray(found), wanted.detach().numpy(), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    for part, parameter in rows.items():
        assert parameter.grad is not None and parameter.grad.any()
        assert relative(np.asarray(gradients[part]), parameter.grad.numpy()) < 2e-5, part


@pytest.mark.parametrize("end_of_text", [FIRST_ID - 1, 2], ids=["by its id", "legacy"])
def test_prompts_are_pooled_where_transformers_does(tiny_sdxl: Path, tmp_path: Path, end_of_text: int) -> None:
    model = Path(shutil.copytree(tiny_sdxl, tmp_path / "model"))
    folder = model / "text_encoder_2"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": end_of_text}))
    ids = np.full((2, 77), FIRST_ID - 1)
    ids[0, :20], ids[1, :9], ids[:, 4] = 7, 8, FIRST_ID
    encoder = CLIPTextModelWithProjection.from_pretrained(folder)
    rows, _ = place_rows(encoder, torch.from_numpy(np.random.default_rng(0).normal(size=(1, 48))), FIRST_ID)
    wanted = encoder(torch.from_numpy(ids)).text_embeds.detach().numpy()
    ours = flax_loading.load_text_encoders(model, runs.SDXL, dtype=jnp.float32)["text_encoder_2"]
    pooled = jax.jit(lambda w, own: ours.module(w)(jnp.asarray(ids), own, FIRST_ID)[1])
    found = pooled(ours.weights, rows.detach().numpy())
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=TOLERANCE)


def test_unet_equals_torch_when_sizes_are_odd(tmp_path: Path) -> None:
    model = runs.make_micro_model(tmp_path / "model")
    unet = torch_loading.load_unet(model, dtype=torch.float32, device=CPU)
    ours = flax_loading.load_unet(model, dtype=jnp.float32)
    generator = np.random.default_rng(0)
    latents = generator.standard_normal((1, 4, 9, 7), dtype=np.float32)
    prompt, steps = generator.standard_normal((1, 77, 32), dtype=np.float32), np.array([40])
    with torch.no_grad():
        wanted = unet(torch.from_numpy(latents), torch.from_numpy(steps), torch.from_numpy(prompt)).sample.numpy()
    found = jax.jit(lambda w, x: ours.module(w)(x, steps, prompt))(ours.weights, latents.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(np.asarray(found).transpose(0, 3, 1, 2), wanted, rtol=0, atol=TOLERANCE)


def test_vae_equals_torch(tiny_sd15: Path) -> None:
    generator = np.random.default_rng(0)
    pictures = generator.uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    latents = generator.standard_normal((1, 4, 8, 8), dtype=np.float32)
    vae = torch_loading.load_vae(tiny_sd15, device=CPU)
    with torch.no_grad():
        posterior = vae.encode(torch.from_numpy(pictures)).latent_dist
        decoded = vae.decode(torch.from_numpy(latents)).sample.numpy()
    ours = flax_loading.load_vae(tiny_sd15)

    @jax.jit
    def both(weights, pictures, latents):  # type: ignore[no-untyped-def]
        module = ours.module(weights)
        return *module.encode(pictures), module.decode(latents)

    found = both(ours.weights, pictures.transpose(0, 2, 3, 1), latents.transpose(0, 2, 3, 1))
    for mine, wanted in zip(found, (posterior.mean.numpy(), posterior.std.numpy(), decoded), strict=True):
        np.testing.assert_allclose(np.asarray(mine).transpose(0, 3, 1, 2), wanted, rtol=0, atol=TOLERANCE)
