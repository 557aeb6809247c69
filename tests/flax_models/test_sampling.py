"""Pictures drawn in JAX equal those that diffusers draws with DDIM from the same noise."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.numpy import save_file
from transformers import CLIPTextModel

from components.common.artifacts import learned_embeds_bytes
from components.common.errors import BaseModelError, ConfigError, TokenError
from components.flax_models.ddim import load_ddim
from components.flax_models.devices import mesh_for
from components.flax_models.pipeline import FlaxPipeline
from components.flax_models.sampling import FlaxSampler
from components.flax_models.vae import Vae
from components.torch_models.sampling import load_concept
from tests import flax_runs as runs

STEPS = 4
PROMPTS = ["a photo of a toy", "a <cat-toy> on grass"]


def starting_noise(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 4, size, size), dtype=np.float32)


def concept(folder: Path, width: int = 32, vectors: int = 3, clip_skip: int = 0) -> Path:
    rows = np.random.default_rng(2).normal(size=(vectors, width)).astype(np.float32)
    header = {"clip_skip": str(clip_skip)} if clip_skip else None
    save_file({"<cat-toy>": rows}, folder / "learned_embeds.safetensors", metadata=header)
    return folder / "learned_embeds.safetensors"


def drawn_by_diffusers(
    model: Path, file: Path, noise: np.ndarray, guidance_scale: float, clip_skip: int | None = None
) -> np.ndarray:
    pipeline = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, requires_safety_checker=False)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False, set_alpha_to_one=False)
    object.__setattr__(pipeline.text_encoder, "text_model", pipeline.text_encoder)  # where it looks with clip_skip
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_textual_inversion(str(file))
    output = pipeline(
        PROMPTS,
        latents=torch.from_numpy(noise),
        num_inference_steps=STEPS,
        guidance_scale=guidance_scale,
        negative_prompt=["art"] * len(PROMPTS),
        clip_skip=clip_skip,
        output_type="np",
    )
    return np.asarray(output.images)


@pytest.mark.parametrize(("v_prediction", "guidance_scale"), [(False, 7.5), (True, 1.0)])
def test_pictures_equal_diffusers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, v_prediction: bool, guidance_scale: float
) -> None:
    model, file = runs.make_micro_model(tmp_path / "model", v_prediction=v_prediction), concept(tmp_path)
    noise = starting_noise(2, 8)
    with caplog.at_level(logging.INFO):
        pipeline = FlaxPipeline(model, mesh=mesh_for("cpu"))
    assert "names PNDMScheduler: drawing with DDIM" in caplog.text
    assert pipeline.load_concept(file) == ("<cat-toy>", "<cat-toy>_1", "<cat-toy>_2")
    ours = FlaxSampler(pipeline).sample(
        PROMPTS, noise, num_inference_steps=STEPS, guidance_scale=guidance_scale, negative_prompt="art"
    )
    wanted = drawn_by_diffusers(model, file, noise, guidance_scale)
    assert ours.shape == (2, 64, 64, 3) and wanted.std() > 0.01
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-4)


def test_vae_sees_one_picture_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, seen, decode = FlaxPipeline(runs.make_micro_model(tmp_path), mesh=mesh_for("cpu")), [], Vae.decode

    def look_and_decode(vae: Vae, latents: jax.Array) -> jax.Array:
        seen.append(len(latents))
        return decode(vae, latents)

    monkeypatch.setattr(Vae, "decode", look_and_decode)
    drawn = FlaxSampler(pipeline).sample(["a toy"] * 3, starting_noise(3, 8), num_inference_steps=1)
    assert len(drawn) == 3 and set(seen) == {1}


def test_pictures_equal_diffusers_with_clip_skip_and_from_noise_alone(tmp_path: Path) -> None:
    model, file = runs.make_micro_model(tmp_path / "model", v_prediction=True), concept(tmp_path, clip_skip=1)
    scheduler = model / "scheduler" / "scheduler_config.json"
    from_noise_alone = {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    fixed = {"clip_sample": False, "set_alpha_to_one": False}
    scheduler.write_text(json.dumps({**json.loads(scheduler.read_text()), **from_noise_alone, **fixed}))
    pipeline = FlaxPipeline(model, mesh=mesh_for("cpu"))
    assert pipeline.sampler.steps(STEPS).alpha[0] == 0
    pipeline.load_concept(file)
    noise = starting_noise(2, 8)
    ours = FlaxSampler(pipeline).sample(
        PROMPTS, noise, num_inference_steps=STEPS, guidance_scale=7.5, negative_prompt="art"
    )
    without, wanted = (drawn_by_diffusers(model, file, noise, 7.5, clip_skip) for clip_skip in (None, 1))
    assert np.abs(without - wanted).max() > 1e-3
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("negative_prompt", "clip_skip"), [("", 0), ("art", 1)])
def test_pictures_equal_diffusers_with_two_text_encoders(
    tmp_path: Path, tiny_sdxl: Path, negative_prompt: str, clip_skip: int
) -> None:
    """An empty negative prompt is zeros there, another one is read."""
    embedding = runs.initial_embedding({"text_encoder": 32, "text_encoder_2": 48}, 2)
    header = {"placeholder_token": "<cat-toy>", **({"clip_skip": str(clip_skip)} if clip_skip else {})}
    file = tmp_path / "learned_embeds.safetensors"
    file.write_bytes(learned_embeds_bytes("<cat-toy>", embedding.rows, header))
    noise = starting_noise(2, 8)
    ours = FlaxPipeline(tiny_sdxl, mesh=mesh_for("cpu"))
    ours.load_concept(file)
    found = FlaxSampler(ours).sample(
        PROMPTS, noise, num_inference_steps=STEPS, guidance_scale=5.0, negative_prompt=negative_prompt
    )
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    pipeline.set_progress_bar_config(disable=True)
    load_concept(pipeline, file)
    wanted = pipeline(
        PROMPTS,
        latents=torch.from_numpy(noise),
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        negative_prompt=[negative_prompt] * len(PROMPTS) if negative_prompt else None,
        clip_skip=clip_skip or None,
        output_type="np",
    ).images
    assert found.shape == (2, 16, 16, 3) and wanted.std() > 0.01
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def test_concept_of_one_text_encoder_is_refused_where_there_are_two(tmp_path: Path, tiny_sdxl: Path) -> None:
    expected = r"is a word for Stable Diffusion 1\.x .*, expected one for Stable Diffusion XL with width 32 .* width 48"
    with pytest.raises(BaseModelError, match=expected):
        FlaxPipeline(tiny_sdxl, mesh=mesh_for("cpu")).load_concept(concept(tmp_path))


def test_noise_that_is_predicted_where_there_is_no_signal_is_refused(tmp_path: Path, model: Path) -> None:
    changed = with_scheduler(
        tmp_path, model, _class_name="DDIMScheduler", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    with pytest.raises(BaseModelError, match=r"prediction_type is epsilon .* no signal at timestep 999, expected v_"):
        load_ddim(changed).steps(STEPS)


def test_pictures_of_the_tiny_world_equal_diffusers() -> None:
    folder, noise = runs.REPOSITORY / "examples" / "sprites" / "base_model", starting_noise(2, 16)
    prompts = ["a red circle on a blue background", "a star"]
    ours = FlaxSampler(FlaxPipeline(folder, mesh=mesh_for("cpu"))).sample(
        prompts, noise, num_inference_steps=STEPS, guidance_scale=4.0
    )
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, requires_safety_checker=False, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    wanted = pipeline(
        prompts,
        negative_prompt=[""] * len(prompts),
        latents=torch.from_numpy(noise),
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        output_type="np",
    )
    np.testing.assert_allclose(ours, wanted.images, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_micro_model(tmp_path_factory.mktemp("models") / "micro")


def test_concept_of_another_model_is_refused(tmp_path: Path, model: Path) -> None:
    pipeline = FlaxPipeline(model, mesh=mesh_for("cpu"))
    with pytest.raises(BaseModelError, match=r"width 16 for text_encoder, expected .* width 32 for text_encoder"):
        pipeline.load_concept(concept(tmp_path, width=16))


def test_concept_is_refused_when_its_token_is_taken(tmp_path: Path, model: Path) -> None:
    pipeline = FlaxPipeline(model, mesh=mesh_for("cpu"))
    pipeline.load_concept(concept(tmp_path))
    with pytest.raises(TokenError, match="<cat-toy>"):
        pipeline.load_concept(concept(tmp_path))


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("count", [7, 50])
def test_timesteps_equal_diffusers(tmp_path: Path, model: Path, spacing: str, count: int) -> None:
    changed = with_scheduler(tmp_path, model, _class_name="DDIMScheduler", timestep_spacing=spacing)
    scheduler = DDIMScheduler.from_pretrained(changed / "scheduler")
    scheduler.set_timesteps(count)
    np.testing.assert_array_equal(load_ddim(changed).steps(count).timestep, scheduler.timesteps.numpy())


def test_sampler_of_another_kind_is_refused(tmp_path: Path, model: Path) -> None:
    changed = with_scheduler(tmp_path, model, _class_name="UniPCMultistepScheduler")
    with pytest.raises(BaseModelError, match="names the sampler UniPCMultistepScheduler, expected DDIM"):
        load_ddim(changed)


def test_more_steps_than_timesteps_are_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match="num_inference_steps: found 1001, expected 1 to 1000"):
        load_ddim(model).steps(1001)


def test_vocabulary_is_that_of_the_model_also_with_a_concept(tmp_path: Path, model: Path) -> None:
    pipeline = FlaxPipeline(model, mesh=mesh_for("cpu"))
    tokens, table = pipeline.vocabulary(runs.TEXT_ENCODER)
    wanted = CLIPTextModel.from_pretrained(model / "text_encoder").get_input_embeddings().weight.detach().numpy()
    np.testing.assert_array_equal(table, wanted)
    assert len(tokens) == len(wanted) and tokens[-1] == "<|endoftext|>"
    pipeline.load_concept(concept(tmp_path))
    assert pipeline.vocabulary(runs.TEXT_ENCODER)[0] == tokens


@pytest.mark.parametrize(("size", "shape"), [(8, (4, 8, 8)), ([8, 16], (4, 8, 16))])
def test_size_is_that_of_the_configuration(tmp_path: Path, model: Path, size: object, shape: tuple[int, ...]) -> None:
    assert FlaxPipeline(with_size(tmp_path, model, size), mesh=mesh_for("cpu")).latents_shape == shape


def test_model_that_does_not_tell_its_size_cannot_be_drawn_with(tmp_path: Path, model: Path) -> None:
    pipeline = FlaxPipeline(with_size(tmp_path, model, None), mesh=mesh_for("cpu"))
    with pytest.raises(BaseModelError, match="sample_size is None"):
        _ = pipeline.latents_shape


def with_size(folder: Path, model: Path, size: object) -> Path:
    copy = Path(shutil.copytree(model, folder / "sized"))
    file = copy / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "sample_size": size}))
    return copy


def with_scheduler(folder: Path, model: Path, **fields: object) -> Path:
    copy = Path(shutil.copytree(model / "scheduler", folder / "changed" / "scheduler")).parent
    file = copy / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    return copy
