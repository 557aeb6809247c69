"""The samplers in JAX walk as those of diffusers do, whatever the UNet predicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler

from components.common.drawing import SAMPLERS
from components.common.errors import BaseModelError, ConfigError
from components.flax_models.ddim import Steps
from components.flax_models.samplers import SCHEDULERS, load_sampler
from components.torch_models.samplers import sampler_for

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in diffusers 0.42

NAMED = SAMPLERS[1:]
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
LATENTS = np.random.default_rng(0).standard_normal((2, 4, 4, 4)).astype(np.float32)


def model_with(folder: Path, kind: Any = DDIMScheduler, **fields: Any) -> tuple[Path, Any]:
    """A folder with a scheduler alone, and the scheduler."""
    scheduler = kind(**BETAS, **fields)
    scheduler.save_pretrained(folder / "scheduler")
    return folder, scheduler


def predicted(latents: np.ndarray, timestep: float) -> np.ndarray:
    """What a UNet might answer: it depends on all that it is told, and not in proportion."""
    return np.tanh(0.8 * latents + 0.3 * np.roll(latents, 1, axis=-1)) * (1.2 - timestep / 2000)


def walked_by_diffusers(scheduler: Any, count: int) -> np.ndarray:
    scheduler.set_timesteps(count)
    latents = torch.from_numpy(LATENTS) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        given = scheduler.scale_model_input(latents, timestep)
        answer = torch.from_numpy(predicted(given.numpy(), float(timestep)))
        latents = scheduler.step(answer, timestep, latents).prev_sample
    return latents.numpy()


def walked(model: Path, name: str, count: int) -> np.ndarray:
    sampler = load_sampler(model, name)
    steps = sampler.steps(count)
    latents, before = LATENTS * sampler.noise_scale(steps), np.zeros_like(LATENTS)
    for values in zip(*steps, strict=True):
        step = Steps(*values)
        latents, before = sampler.denoise(latents, predicted(latents, float(step.timestep)), before, step)  # type: ignore[arg-type,assignment]
    return latents


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("count", [1, 2, 20])
def test_sampler_walks_as_that_of_diffusers(
    tmp_path: Path, name: str, spacing: str, prediction_type: str, count: int
) -> None:
    model, own = model_with(tmp_path, PNDMScheduler, prediction_type=prediction_type, timestep_spacing=spacing)
    theirs = sampler_for(own, name)
    assert type(theirs).__name__ == SCHEDULERS[type(load_sampler(model, name))]
    expected = walked_by_diffusers(theirs, count)
    assert expected.std() > 0.01
    np.testing.assert_allclose(walked(model, name, count), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMED)
def test_sampler_walks_from_noise_alone_as_that_of_diffusers(tmp_path: Path, name: str) -> None:
    """The last timestep has no signal, so what is predicted must be the velocity."""
    trained = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    model, own = model_with(tmp_path, clip_sample=False, set_alpha_to_one=False, **trained)
    expected = walked_by_diffusers(sampler_for(own, name), 10)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(walked(model, name, 10), expected, rtol=1e-4, atol=1e-4)


def test_samplers_are_three_and_auto_is_the_models_own(tmp_path: Path) -> None:
    model, own = model_with(tmp_path, PNDMScheduler)
    assert sampler_for(own, "auto") is own
    ddim, dpm, euler = (walked(model, name, 6) for name in NAMED)
    np.testing.assert_array_equal(walked(model, "auto", 6), ddim)
    for one, other in ((ddim, dpm), (dpm, euler), (euler, ddim)):
        assert np.abs(one - other).max() > 1e-3


def test_sampler_takes_the_models_schedule_and_nothing_of_its_sampler(tmp_path: Path) -> None:
    _, own = model_with(tmp_path, prediction_type="v_prediction", rescale_betas_zero_snr=True, clip_sample=True)
    for name in ("dpm-solver++", "euler"):
        config = sampler_for(own, name).config
        assert {field: config[field] for field in BETAS} == BETAS
        assert config.prediction_type == "v_prediction" and config.rescale_betas_zero_snr is True
    assert sampler_for(own, "ddim") is own, "which clips, as the model's own does"
    assert sampler_for(PNDMScheduler(**BETAS), "ddim").config.clip_sample is False


def test_schedule_that_a_sampler_does_not_know_is_refused(tmp_path: Path) -> None:
    own = PNDMScheduler(**BETAS)
    own.register_to_config(beta_schedule="laplace")
    with pytest.raises(BaseModelError, match=r"by the sampler euler \(.*\): draw with auto"):
        sampler_for(own, "euler")


def test_noise_that_is_predicted_where_there_is_no_signal_is_refused(tmp_path: Path) -> None:
    model, _ = model_with(tmp_path, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    for name in NAMED:
        with pytest.raises(BaseModelError, match="prediction_type is epsilon"):
            load_sampler(model, name).steps(4)


@pytest.mark.parametrize("name", NAMED)
def test_more_steps_than_timesteps_are_refused(tmp_path: Path, name: str) -> None:
    model, _ = model_with(tmp_path)
    for count in (0, 1001):
        with pytest.raises(ConfigError, match=f"num_inference_steps: found {count}, expected 1 to"):
            load_sampler(model, name).steps(count)


def test_replaced_sampler_is_told_of_only_where_nobody_chose_it(tmp_path: Path, caplog: Any) -> None:
    model, _ = model_with(tmp_path, PNDMScheduler)
    assert json.loads((model / "scheduler" / "scheduler_config.json").read_text())["_class_name"] == "PNDMScheduler"
    caplog.set_level("INFO")
    load_sampler(model, "euler")
    assert not caplog.records
    load_sampler(model)
    assert "drawing with DDIM" in caplog.text
