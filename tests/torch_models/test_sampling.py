from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from components.common.artifacts import LEARNED_EMBEDS, learned_embeds_bytes
from components.common.errors import BaseModelError, ConfigError, TokenError
from components.common.families import family_of
from components.torch_models.conditioning import encode_text
from components.torch_models.denoising_loss import held_out_loss
from components.torch_models.sampling import (
    SamplingConfig,
    load_concept,
    load_pipeline,
    sample,
    write_rows,
)
from tests.tiny_models import with_vae_that_overflows

CPU = torch.device("cpu")
FAST = SamplingConfig(num_inference_steps=2, height=32, width=32, batch_size=2)


def write_concept(folder: Path, rows: np.ndarray, token: str = "<concept>") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / LEARNED_EMBEDS
    file.write_bytes(learned_embeds_bytes(token, {"text_encoder": rows}, {}))
    return file


def random_rows(pipeline, count: int, seed: int = 3) -> np.ndarray:
    width = pipeline.text_encoder.config.hidden_size
    return np.random.default_rng(seed).normal(0, 0.5, (count, width)).astype(np.float32)


@pytest.fixture(scope="module")
def loaded(tiny_sd15):
    return load_pipeline(tiny_sd15, device=CPU, dtype=torch.float32)


@pytest.fixture
def pipeline(loaded):
    """The pipeline with a vocabulary of its own, which loading a concept changes."""
    own = {name: copy.deepcopy(loaded.components[name]) for name in ("tokenizer", "text_encoder")}
    pipeline = StableDiffusionPipeline(**{**loaded.components, **own}, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_load_pipeline_takes_the_scheduler_of_the_folder(tiny_model):
    pipeline = load_pipeline(tiny_model, device=CPU, dtype=torch.float32)

    assert type(pipeline.scheduler).__name__ == "PNDMScheduler"
    expected = "v_prediction" if tiny_model.name == "sd21" else "epsilon"
    assert pipeline.scheduler.config.prediction_type == expected
    assert pipeline.safety_checker is None


def test_load_pipeline_when_there_is_no_model(tmp_path):
    with pytest.raises(BaseModelError, match=r"no model_index\.json"):
        load_pipeline(tmp_path, device=CPU, dtype=torch.float32)


def test_sample_gives_a_seed_the_same_picture_in_every_batch(pipeline):
    prompts = ["a photo of a cat", "a painting of a toy", "a photo of a dog"]
    together = sample(pipeline, prompts, [5, 6, 7], SamplingConfig(num_inference_steps=2, height=32, width=32))
    alone = sample(
        pipeline,
        prompts[::-1],
        [7, 6, 5],
        SamplingConfig(num_inference_steps=2, height=32, width=32, batch_size=1),
    )

    for one, other in zip(together, alone[::-1], strict=True):
        assert one.dtype == np.uint8 and one.shape == (32, 32, 3)
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1  # the last digit may be rounded the other way
    assert np.abs(together[0].astype(int) - together[1].astype(int)).max() > 10


def test_sample_takes_the_size_from_the_configurations(pipeline):
    pipeline.unet = copy.deepcopy(pipeline.unet)
    pipeline.unet.register_to_config(sample_size=6)
    [picture] = sample(pipeline, ["a photo of a cat"], [0], SamplingConfig(num_inference_steps=1))

    assert picture.shape == (48, 48, 3)  # the VAE of this model scales by 8


def test_sample_leaves_a_picture_black_when_it_is_not_finite(pipeline, tmp_path):
    rows = random_rows(pipeline, 1)
    tokens = load_concept(pipeline, write_concept(tmp_path, rows))
    write_rows(pipeline, tokens, {"text_encoder": rows * np.nan})

    with_concept, without = sample(pipeline, ["a <concept>", "a cat"], [0, 1], FAST)

    assert with_concept.max() == 0
    assert without.max() > 0


@pytest.mark.parametrize("vectors", [1, 3])
def test_load_concept_makes_the_placeholder_mean_its_rows(pipeline, tmp_path, vectors):
    rows = random_rows(pipeline, vectors)
    tokens = load_concept(pipeline, write_concept(tmp_path, rows))

    assert len(tokens) == vectors and tokens[0] == "<concept>"
    expanded = pipeline.maybe_convert_prompt("a photo of a <concept>", pipeline.tokenizer)
    ids = pipeline.tokenizer(expanded).input_ids[-1 - vectors : -1]
    np.testing.assert_array_equal(pipeline.text_encoder.get_input_embeddings().weight[ids].detach().numpy(), rows)


def test_load_concept_with_the_rows_of_a_word_draws_as_the_word(pipeline, tmp_path):
    [token_id] = pipeline.tokenizer("toy", add_special_tokens=False).input_ids
    rows = pipeline.text_encoder.get_input_embeddings().weight[[token_id]].numpy().copy()
    [expected] = sample(pipeline, ["a photo of a toy"], [1], FAST)
    load_concept(pipeline, write_concept(tmp_path, rows))

    [found] = sample(pipeline, ["a photo of a <concept>"], [1], FAST)

    np.testing.assert_array_equal(found, expected)


def test_write_rows_replaces_every_row_of_the_placeholder(pipeline, tmp_path):
    first, second = random_rows(pipeline, 2), random_rows(pipeline, 2, seed=4)
    tokens = load_concept(pipeline, write_concept(tmp_path, first))
    [before] = sample(pipeline, ["a <concept>"], [0], FAST)
    write_rows(pipeline, tokens, {"text_encoder": second})
    [changed] = sample(pipeline, ["a <concept>"], [0], FAST)
    write_rows(pipeline, tokens, {"text_encoder": first})
    [again] = sample(pipeline, ["a <concept>"], [0], FAST)

    np.testing.assert_array_equal(before, again)
    assert (before != changed).any()


def test_negative_prompt_may_hold_the_placeholder(pipeline, tmp_path):
    load_concept(pipeline, write_concept(tmp_path, random_rows(pipeline, 2)))
    [plain] = sample(pipeline, ["a cat"], [0], FAST)
    [led_away] = sample(pipeline, ["a cat"], [0], FAST, negative_prompt="<concept>")

    assert (plain != led_away).any()


def test_clip_skip_leaves_out_last_layers_of_the_prompt_alone(pipeline):
    without = dataclasses.replace(FAST, clip_skip=1)
    [plain] = sample(pipeline, ["a cat"], [0], FAST)
    [skipped] = sample(pipeline, ["a cat"], [0], without)
    assert (plain != skipped).any()


@pytest.mark.parametrize("model", ["tiny_sd15", "tiny_sdxl"])
def test_encoded_text_is_that_of_the_pipeline(model, request):
    pipeline = load_pipeline(request.getfixturevalue(model), device=CPU, dtype=torch.float32)
    family = family_of(pipeline.components, pipeline.unet.config)
    tokenizers = {each.part: pipeline.components[each.tokenizer] for each in family.text_encoders}
    padded = {"padding": "max_length", "return_tensors": "pt"}
    ids = {part: tokenizer("a cat", **padded).input_ids for part, tokenizer in tokenizers.items()}
    with torch.inference_mode():
        for clip_skip in (0, 1):
            options = {"do_classifier_free_guidance": False, "clip_skip": clip_skip or None}
            states, _, *pooled = pipeline.encode_prompt("a cat", device=CPU, num_images_per_prompt=1, **options)
            ours = encode_text(family, pipeline.components, ids, clip_skip)
            for found, expected in zip(ours, [states, *pooled[:1]], strict=True):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("zeroed", [True, False])
def test_negative_prompt_when_empty_is_what_the_pipeline_takes_for_none(tiny_sdxl, zeroed):
    pipeline = load_pipeline(tiny_sdxl, device=CPU, dtype=torch.float32)
    pipeline.register_to_config(force_zeros_for_empty_prompt=zeroed)
    size = {"num_inference_steps": 1, "height": 16, "width": 16}
    [found] = sample(pipeline, ["a cat"], [0], SamplingConfig(**size))
    [told] = sample(pipeline, ["a cat"], [0], SamplingConfig(**size), negative_prompt=" ")
    generator = torch.Generator().manual_seed(0)
    drawn = pipeline("a cat", **size, guidance_scale=7.5, generator=generator, output_type="np").images[0]
    assert np.abs(found - drawn * 255).max() < 1
    assert (found != told).any() == zeroed


@pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning")  # by diffusers' own pipeline
def test_sdxl_draws_and_measures_in_fp16_when_its_vae_overflows(tiny_sdxl, tmp_path):
    model = with_vae_that_overflows(Path(shutil.copytree(tiny_sdxl, tmp_path / "model")))
    pipeline = load_pipeline(model, device=CPU, dtype=torch.float16)
    size = {"num_inference_steps": 1, "height": 16, "width": 16}
    [picture] = sample(pipeline, ["a cat"], [0], SamplingConfig(**size))
    assert picture.max() > 0
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    with torch.inference_mode():
        assert not pipeline.vae.encode(torch.ones(1, 3, 16, 16).half()).latent_dist.mean.isfinite().all()
    assert np.isfinite(held_out_loss(pipeline, [pixels], "a cat"))
    assert pipeline.vae.dtype == torch.float16


def test_vae_sees_one_picture_at_a_time(loaded):
    """It takes gigabytes for a large one, where the UNet has room for several."""
    seen = {"encoder": [], "decoder": []}
    hooks = [
        getattr(loaded.vae, part).register_forward_pre_hook(
            lambda _, given, part=part: seen[part].append(len(given[0]))
        )
        for part in seen
    ]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    together, alone = (held_out_loss(loaded, chosen, "a cat") for chosen in (pixels, pixels[:1]))
    sample(loaded, ["a cat"] * 3, [0, 1, 2], dataclasses.replace(FAST, batch_size=3))
    for hook in hooks:
        hook.remove()
    assert seen == {"encoder": [1] * 4, "decoder": [1] * 3}
    assert np.isfinite([together, alone]).all() and together != alone


def test_sdxl_takes_rows_for_both_text_encoders(tiny_sdxl, tmp_path):
    pipeline = load_pipeline(tiny_sdxl, device=CPU, dtype=torch.float32)
    rng = np.random.default_rng(0)
    rows = {
        "text_encoder": rng.normal(0, 1, (2, 32)).astype(np.float32),
        "text_encoder_2": rng.normal(0, 1, (2, 48)).astype(np.float32),
    }
    file = tmp_path / LEARNED_EMBEDS
    file.write_bytes(learned_embeds_bytes("<concept>", rows, {"placeholder_token": "<concept>"}))

    tokens = load_concept(pipeline, file)

    assert tokens == ("<concept>", "<concept>_1")
    [picture] = sample(pipeline, ["a <concept>"], [0], FAST)
    assert picture.shape == (32, 32, 3)
    for name, tokenizer in (("text_encoder", pipeline.tokenizer), ("text_encoder_2", pipeline.tokenizer_2)):
        weight = getattr(pipeline, name).get_input_embeddings().weight
        np.testing.assert_array_equal(weight[tokenizer.convert_tokens_to_ids(list(tokens))], rows[name])
    write_rows(pipeline, tokens, {name: values * 0 for name, values in rows.items()})
    [changed] = sample(pipeline, ["a <concept>"], [0], FAST)
    assert (picture != changed).any()


def test_load_concept_refuses_rows_of_sdxl_for_another_model(pipeline, tmp_path):
    rows = {name: np.zeros((1, 96), np.float32) for name in ("text_encoder", "text_encoder_2")}
    file = tmp_path / LEARNED_EMBEDS
    file.write_bytes(learned_embeds_bytes("<concept>", rows, {"placeholder_token": "<concept>"}))
    told = r"is a word for Stable Diffusion XL with .*, expected one for Stable Diffusion 1\.x or Stable Diffusion 2"
    with pytest.raises(BaseModelError, match=told):
        load_concept(pipeline, file)


def test_load_concept_refuses_a_word_of_another_model_for_sdxl(tiny_sdxl, tmp_path):
    pipeline = load_pipeline(tiny_sdxl, device=CPU, dtype=torch.float32)
    file = write_concept(tmp_path, np.zeros((1, 32), np.float32))
    with pytest.raises(BaseModelError, match=r"is a word for Stable Diffusion 1\.x .*, expected one for .* XL with"):
        load_concept(pipeline, file)


def test_load_concept_refuses_rows_of_another_width(pipeline, tmp_path):
    file = write_concept(tmp_path, np.zeros((1, 7), np.float32))
    with pytest.raises(BaseModelError, match=r"with width 7 for text_encoder, expected .* width 96 for text_encoder"):
        load_concept(pipeline, file)


def test_load_concept_refuses_a_word_of_the_vocabulary(pipeline, tmp_path):
    file = write_concept(tmp_path, random_rows(pipeline, 1), token="toy</w>")
    with pytest.raises(TokenError, match="vocabulary already"):
        load_concept(pipeline, file)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps: found 0"),
        ({"batch_size": 0}, "batch_size: found 0"),
        ({"guidance_scale": -1.0}, "guidance_scale: found -1"),
        ({"height": 64}, "both or neither"),
    ],
)
def test_sampling_config_refuses(fields, message):
    with pytest.raises(ConfigError, match=message):
        SamplingConfig(**fields)


@pytest.mark.parametrize("name", ["StableDiffusionImg2ImgPipeline", "StableDiffusionPipelineSafe"])
def test_pipeline_when_saved_as_another_class_of_the_same_parts_draws_from_text(
    name: str, tiny_sd15: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_sd15, tmp_path / "model")
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, "_class_name": name}))
    drawn, expected = (
        sample(load_pipeline(folder, device=CPU, dtype=torch.float32), ["a toy"], [3], FAST)
        for folder in (model, tiny_sd15)
    )
    np.testing.assert_array_equal(drawn, expected)
