from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from components.torch_models.hidden_states import hidden_states
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from components.common.artifacts import LEARNED_EMBEDS, learned_embeds_bytes
from components.common.errors import BaseModelError, ConfigError, TokenError
from components.torch_models.sampling import (
    SamplingConfig,
    load_concept,
    load_pipeline,
    sample,
    write_rows,
)
from tests.tiny_models import make_tokenizer

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

    ids = pipeline.tokenizer("a cat", padding="max_length", return_tensors="pt").input_ids
    with torch.inference_mode():
        for clip_skip in (0, 1, 3):
            theirs, _ = pipeline.encode_prompt("a cat", CPU, 1, False, clip_skip=clip_skip or None)
            np.testing.assert_array_equal(hidden_states(pipeline.text_encoder, ids, clip_skip), theirs)


@pytest.fixture(scope="module")
def tiny_sdxl(tmp_path_factory):
    """A diffusers folder with random weights and the two text encoders of SDXL."""
    tokenizer = make_tokenizer()
    text = {
        "vocab_size": len(tokenizer),
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    blocks = {"block_out_channels": (16, 32), "norm_num_groups": 8, "layers_per_block": 1}
    unet = UNet2DConditionModel(
        **blocks,
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        cross_attention_dim=16 + 24,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=24 + 6 * 4,
    )
    vae = AutoencoderKL(
        **blocks,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        sample_size=16,
    )
    folder = tmp_path_factory.mktemp("models") / "sdxl"
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(CLIPTextConfig(**text, hidden_size=16)),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**text, hidden_size=24, projection_dim=24)),
        tokenizer=tokenizer,
        tokenizer_2=make_tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(),
    ).save_pretrained(folder)
    return folder


def test_sdxl_takes_rows_for_both_text_encoders(tiny_sdxl, tmp_path):
    pipeline = load_pipeline(tiny_sdxl, device=CPU, dtype=torch.float32)
    rng = np.random.default_rng(0)
    rows = {
        "text_encoder": rng.normal(0, 1, (2, 16)).astype(np.float32),
        "text_encoder_2": rng.normal(0, 1, (2, 24)).astype(np.float32),
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
    file = write_concept(tmp_path, np.zeros((1, 16), np.float32))
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
