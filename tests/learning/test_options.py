"""Every option of the loss and of the optimizer changes what is learned, by both frameworks alike."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.training_utils import EMAModel

from components.common.training.checkpoints import TrainingState
from components.common.training.config import TrainConfig
from components.common.training.key_fields import IN_EVERY_KEY, OUTSIDE_THE_KEY
from components.common.training.prompt_ids import load_tokenizers, training_prompt_ids
from components.common.training.run_artifacts import sampling_plan
from components.common.training.sampling_plan import SamplingPlan
from components.flax_models import loading as flax_loading
from components.flax_models.devices import mesh_for
from components.flax_models.noise_schedule import load_noise_schedule
from components.train.flax import models as flax
from components.train.flax import objective as flax_objective
from components.train.flax.trainer import FlaxTrainer
from components.train.torch import objective as torch_objective
from components.train.torch.trainer import TorchTrainer
from tests import flax_runs as runs
from tests.tiny_models import ModelWidths, make_model
from tests.torch_runs import frozen_models

STEPS = 3
LEARNING_RATE = 0.05
OPTIMIZER = {"train_batch_size": 4, "adam_epsilon": 1e-4, "adam_weight_decay": 0.0}
"""An epsilon of the size of a gradient: else Adam's first steps are the same however long the gradient is."""
TOLERANCE = 1e-4

WIDTH = 32
INITIAL = runs.initial_embedding({runs.TEXT_ENCODER: WIDTH}, 2).rows[runs.TEXT_ENCODER]

OPTIONS: dict[str, dict[str, Any]] = {
    "snr_gamma": {"snr_gamma": 0.5},
    "huber": {"loss_type": "huber", "huber_delta": 0.5},
    "noise_offset": {"noise_offset": 0.5},
    "timestep_min": {"timestep_min": 500},
    "timestep_max": {"timestep_max": 500},
    "stratified_timesteps": {"stratified_timesteps": True},
    "max_grad_norm": {"max_grad_norm": 1e-4},
    "cap": {"max_embedding_norm": 0.9},
    "rescale": {"norm_control": "rescale"},
    "fixed": {"norm_control": "fixed"},
    "ema_decay": {"ema_decay": 0.9},
    "clip_skip": {"clip_skip": 1},
}


def nano_model(path: Path, **scheduler: Any) -> Path:
    """A diffusers folder with one level, whose step is compiled in two seconds, and changed fields of its scheduler."""
    unet = {
        "block_out_channels": (16,),
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
        "layers_per_block": 1,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 4,
        "sample_size": 8,
    }
    text = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    make_model(path, ModelWidths(text=text, unet=unet, vae_channels=(8,) * 4, norm_num_groups=4, scheduler={}))
    file = path / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **scheduler}))
    return path


@functools.cache
def inputs(model: Path) -> dict[str, Any]:
    """What both trainers are given beside the models."""
    embedding = runs.initial_embedding({runs.TEXT_ENCODER: WIDTH}, 2)
    prompt_ids = training_prompt_ids(load_tokenizers(model, embedding), embedding, "object")
    return {"latent_set": runs.latent_set(), "embedding": embedding, "prompt_ids": prompt_ids}


@functools.cache
def flax_models(model: Path) -> dict[str, Any]:
    return {
        "family": runs.SD1,
        "text_encoders": flax_loading.load_text_encoders(model, runs.SD1, dtype=jnp.float32),
        "unet": flax_loading.load_unet(model, dtype=jnp.float32),
        "noise_schedule": load_noise_schedule(model),
        "mesh": mesh_for("cpu"),
    }


def flax_trainer(model: Path, config: TrainConfig) -> FlaxTrainer:
    given = inputs(model)
    models = flax.FrozenModels(
        config,
        **flax_models(model),
        first_id=given["embedding"].token_ids[0],
        scaling_factor=given["latent_set"].scaling_factor,
    )
    return FlaxTrainer(config=config, **given, models=models)


def torch_trainer(model: Path, config: TrainConfig) -> TorchTrainer:
    return TorchTrainer(config=config, **inputs(model), models=frozen_models(model, config))


TRAINERS: dict[str, Callable[[Path, TrainConfig], Any]] = {"torch": torch_trainer, "flax": flax_trainer}


def trained(framework: str, model: Path, **changes: Any) -> TrainingState:
    """The state after some steps."""
    config = TrainConfig(**{**OPTIMIZER, **changes})
    trainer, plan = TRAINERS[framework](model, config), plan_of(config)
    losses = [trainer.step(plan.batch(step), LEARNING_RATE) for step in range(STEPS)]
    return trainer.copy_state(STEPS, losses).read()[0]


def plan_of(config: TrainConfig) -> SamplingPlan:
    return sampling_plan(config, runs.latent_set(), num_processes=1, num_train_timesteps=1000)


def learned(state: TrainingState) -> np.ndarray:
    return state.learned[runs.TEXT_ENCODER]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano_model(tmp_path_factory.mktemp("models") / "nano")


@pytest.fixture(scope="module")
def plainly(model: Path) -> dict[str, np.ndarray]:
    """What is learned without any option, by framework."""
    return {framework: learned(trained(framework, model)) for framework in TRAINERS}


@pytest.mark.parametrize("option", OPTIONS)
def test_option_changes_what_is_learned_by_both_frameworks_alike(
    model: Path, plainly: dict[str, np.ndarray], option: str
) -> None:
    found = {framework: learned(trained(framework, model, **OPTIONS[option])) for framework in TRAINERS}
    for framework, rows in found.items():
        assert np.abs(rows - plainly[framework]).max() > 10 * TOLERANCE, framework
    np.testing.assert_allclose(found["flax"], found["torch"], rtol=0, atol=TOLERANCE)


def test_every_option_that_may_be_off_is_in_the_table() -> None:
    given = {name for changes in OPTIONS.values() for name in changes}
    names = {field.name for field in dataclasses.fields(TrainConfig)} - {*OUTSIDE_THE_KEY, *IN_EVERY_KEY}
    assert names - {"early_stopping_min_steps"} <= given  # it says when to stop, in the loop that both share


@pytest.mark.parametrize("changes", [{"timestep_min": 999}, {"snr_gamma": 1.0}], ids=["no signal", "snr_gamma"])
def test_schedule_without_terminal_signal_and_weights_of_velocities_equal_torch(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    zero = nano_model(tmp_path / "model", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    ours, theirs = (learned(trained(framework, zero, **changes)) for framework in ("flax", "torch"))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)
    assert np.abs(theirs - INITIAL).max() > 10 * TOLERANCE


def test_rows_have_the_norm_that_they_are_held_to(model: Path) -> None:
    norm = torch_trainer(model, TrainConfig()).vocabulary_norms["text_encoder"]
    assert np.isclose(flax_trainer(model, TrainConfig()).vocabulary_norms["text_encoder"], norm)
    for changes, expected in (
        ({"norm_control": "rescale"}, norm),
        ({"norm_control": "rescale", "max_embedding_norm": 2.0}, 2 * norm),
        ({"norm_control": "fixed"}, np.linalg.norm(INITIAL, axis=1)),
        ({"norm_control": "fixed", "ema_decay": 0.9}, np.linalg.norm(INITIAL, axis=1)),
    ):
        norms = np.linalg.norm(learned(trained("torch", model, **changes)), axis=1)
        np.testing.assert_allclose(norms, expected, rtol=1e-5)


def test_gradient_of_rows_with_a_fixed_norm_lies_along_their_sphere(model: Path) -> None:
    config = TrainConfig(**OPTIMIZER, norm_control="fixed")
    trainer = torch_trainer(model, config)
    rows = trainer.copy_state(0, []).read()[0].rows[runs.TEXT_ENCODER]
    trainer.step(plan_of(config).batch(0), LEARNING_RATE)
    gradient = trainer.copy_state(1, []).read()[0].first_moment[runs.TEXT_ENCODER]
    assert np.linalg.norm(gradient) > 0
    assert np.abs((gradient * rows).sum(axis=1)).max() < 1e-6 * np.linalg.norm(gradient) * np.linalg.norm(rows)


def test_gradient_is_clipped_as_by_torch(model: Path) -> None:
    moments = {}
    for limit in (0.0, 1e-4):
        config = TrainConfig(**OPTIMIZER, max_grad_norm=limit)
        trainer = torch_trainer(model, config)
        trainer.step(plan_of(config).batch(0), LEARNING_RATE)
        moments[limit] = trainer.copy_state(1, []).read()[0].first_moment[runs.TEXT_ENCODER] / (1 - config.adam_beta1)
    parameter = torch.nn.Parameter(torch.zeros(moments[0.0].shape))
    parameter.grad = torch.from_numpy(moments[0.0].copy())
    torch.nn.utils.clip_grad_norm_([parameter], 1e-4)
    np.testing.assert_allclose(moments[1e-4], parameter.grad.numpy(), rtol=1e-4)


@pytest.mark.parametrize("framework", TRAINERS)
def test_average_is_that_of_diffusers_and_the_rows_go_on_without_it(model: Path, framework: str) -> None:
    config = TrainConfig(**OPTIMIZER, ema_decay=0.3)
    trainer, plan = TRAINERS[framework](model, config), plan_of(config)
    state = trainer.copy_state(0, []).read()[0]
    parameter = torch.nn.Parameter(torch.from_numpy(state.rows[runs.TEXT_ENCODER].copy()))
    average = EMAModel([parameter], decay=0.3)
    np.testing.assert_array_equal(learned(state), state.rows[runs.TEXT_ENCODER])
    for step in range(6):
        trainer.step(plan.batch(step), LEARNING_RATE)
        state = trainer.copy_state(step + 1, []).read()[0]
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(state.rows[runs.TEXT_ENCODER]))
        average.step([parameter])
        np.testing.assert_allclose(learned(state), average.shadow_params[0].numpy(), rtol=1e-6, atol=1e-7)
    assert np.abs(learned(state) - state.rows[runs.TEXT_ENCODER]).max() > TOLERANCE
    if framework == "torch":
        plain = torch_trainer(model, TrainConfig(**OPTIMIZER))
        for step in range(6):
            plain.step(plan.batch(step), LEARNING_RATE)
        plain_rows = plain.copy_state(6, []).read()[0].rows[runs.TEXT_ENCODER]
        np.testing.assert_array_equal(state.rows[runs.TEXT_ENCODER], plain_rows)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("delta", [1e-2, 0.1, 100.0])
def test_huber_is_the_references_squared_near_by_and_linear_far_off(delta: float, weighted: bool) -> None:
    generator = np.random.default_rng(0)
    prediction, target = generator.standard_normal((2, 3, 4, 5, 5)).astype(np.float32)
    weights = np.array([0.5, 1.0, 2.0], np.float32) if weighted else None
    config = TrainConfig(loss_type="huber", huber_delta=delta)
    theirs = torch_objective.mean_loss(
        config,
        torch.from_numpy(prediction),
        torch.from_numpy(target),
        None if weights is None else torch.tensor(weights),
    ).item()
    ours = float(flax_objective.mean_loss(config, jnp.array(prediction), jnp.array(target), weights))
    errors = (prediction - target).astype(np.float64)
    expected = (2 * delta * (np.sqrt(errors**2 + delta**2) - delta)).mean(axis=(1, 2, 3))
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert theirs == pytest.approx((expected if weights is None else weights * expected).mean(), rel=1e-3)
    if delta == 100.0 and not weighted:
        assert theirs == pytest.approx(np.square(errors).mean(), rel=1e-2)
