"""Whether a base model is computed by the Flax modules, told from its JSON files alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPTextConfig

from components.common.errors import BaseModelError
from components.flax_models.layers import ACTIVATIONS
from components.flax_models.model_check import check_model, config_files
from components.flax_models.model_config import read_text_config, read_unet_config
from components.flax_models.module_configs import HIDDEN_ACTS

SD15_TEXT = {
    "_name_or_path": "openai/clip-vit-large-patch14",
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "torch_dtype": "float32",
    "transformers_version": "4.22.0.dev0",
    "vocab_size": 49408,
}
"""As Stable Diffusion 1.5 has it."""
SD2_TEXT = {
    **SD15_TEXT,
    "_name_or_path": "hf-models/stable-diffusion-v2-768x768/text_encoder",
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
    "transformers_version": "4.25.0.dev0",
}
"""As Stable Diffusion 2 has it."""
SDXL_TEXT_2 = {
    **SD15_TEXT,
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
    "torch_dtype": "float16",
    "transformers_version": "4.32.0.dev0",
}
"""As Stable Diffusion XL has it."""
SDXL_UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.19.0.dev0",
    "act_fn": "silu",
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_dim": 2048,
    "cross_attention_norm": None,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 2816,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "sample_size": 128,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "upcast_attention": None,
    "use_linear_projection": True,
}
"""As Stable Diffusion XL has it."""
OF_EVERY_MODEL = {
    "add_cross_attention": False,
    "bad_words_ids": None,
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "decoder_start_token_id": None,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "early_stopping": False,
    "exponential_decay_length_penalty": None,
    "finetuning_task": None,
    "forced_bos_token_id": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "is_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "length_penalty": 1.0,
    "max_length": 20,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "prefix": None,
    "pruned_heads": {},
    "remove_invalid_values": False,
    "repetition_penalty": 1.0,
    "return_dict": True,
    "temperature": 1.0,
    "tie_encoder_decoder": False,
    "tie_word_embeddings": True,
    "tokenizer_class": None,
    "top_k": 50,
    "top_p": 1.0,
    "torchscript": False,
    "typical_p": 1.0,
    "use_bfloat16": False,
}
"""What transformers 4 wrote of every model where it did not leave defaults out."""


def described(folder: Path, model: Path, **changes: dict[str, Any]) -> Path:
    """The JSON files of a model, with changed fields of its parts."""
    for name in config_files({path.name for path in model.iterdir()}):
        (folder / name).parent.mkdir(parents=True)
        shutil.copyfile(model / name, folder / name)
        if fields := changes.get(name.partition("/")[0]):
            content = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps({**content, **fields}))
    return folder


def test_models_of_both_kinds_are_computed(tiny_model: Path, tmp_path: Path) -> None:
    check_model(described(tmp_path / "model", tiny_model), num_inference_steps=50)


def test_all_that_is_not_implemented_is_named_at_once(tiny_sd15: Path, tmp_path: Path) -> None:
    model = described(
        tmp_path / "model",
        tiny_sd15,
        scheduler={"_class_name": "FlowMatchEulerDiscreteScheduler"},
        text_encoder={"model_type": "t5"},
        unet={"addition_embed_type": "image"},
        vae={"_class_name": "AutoencoderTiny"},
    )
    with pytest.raises(BaseModelError) as caught:
        check_model(model, num_inference_steps=50)
    for told in ("FlowMatchEulerDiscreteScheduler", "t5", "addition_embed_type = 'image'", "AutoencoderTiny"):
        assert told in str(caught.value)


def test_more_denoising_steps_than_timesteps_are_refused(tiny_sd15: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="num_inference_steps: found 1001, expected 1 to 1000"):
        check_model(described(tmp_path / "model", tiny_sd15), num_inference_steps=1001)


def test_activations_that_pass_the_check_are_those_that_are_implemented() -> None:
    assert set(HIDDEN_ACTS) == set(ACTIVATIONS)


def written(folder: Path, content: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "content",
    [
        SD15_TEXT,
        SD2_TEXT,
        SDXL_TEXT_2,
        SD15_TEXT | OF_EVERY_MODEL,
        json.loads(CLIPTextConfig(**SD15_TEXT).to_json_string(use_diff=True)),
        json.loads(CLIPTextConfig(**SD2_TEXT).to_json_string(use_diff=False)),
    ],
    ids=["SD 1.5", "SD 2", "SDXL", "transformers 4, all", "transformers 5", "transformers 5, all"],
)
def test_text_encoders_of_stable_diffusion_are_computed(tmp_path: Path, content: dict[str, Any]) -> None:
    config = read_text_config(written(tmp_path, content), "CLIPTextModel")
    assert (config.hidden_size, config.num_hidden_layers) in ((768, 12), (1024, 23), (1280, 32))


def test_unet_of_stable_diffusion_xl_is_computed(tmp_path: Path) -> None:
    config = read_unet_config(written(tmp_path, SDXL_UNET))
    assert config.depths == (1, 2, 10) and config.heads == (5, 10, 20)


@pytest.mark.parametrize("field", ["addition_time_embed_dim", "projection_class_embeddings_input_dim"])
def test_unet_that_does_not_say_how_wide_its_conditioning_is_is_refused(tmp_path: Path, field: str) -> None:
    with pytest.raises(BaseModelError, match=f"found no {field}"):
        read_unet_config(written(tmp_path, {**SDXL_UNET, field: None}))


def test_every_part_of_a_model_with_two_text_encoders_is_looked_at(tiny_sdxl: Path, tmp_path: Path) -> None:
    check_model(described(tmp_path / "sound", tiny_sdxl), num_inference_steps=50)
    with pytest.raises(BaseModelError, match=r"text_encoder_2.* do not compute: hidden_act = 'relu'"):
        check_model(
            described(tmp_path / "odd", tiny_sdxl, text_encoder_2={"hidden_act": "relu"}), num_inference_steps=5
        )


@pytest.mark.parametrize(
    "field",
    [
        {"dropout": 0.1},
        {"attention_dropout": 0.1},
        {"pruned_heads": {"0": [1]}},
        {"rope_theta": 10000},
        {"use_relative_attention": True},
        {"hidden_act": "relu"},
    ],
    ids=lambda field: next(iter(field)),
)
def test_fields_that_the_text_encoder_does_not_compute_are_refused(tmp_path: Path, field: dict[str, Any]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(BaseModelError) as caught:
        read_text_config(written(tmp_path, SD15_TEXT | field), "CLIPTextModel")
    assert f"asks for what the Flax modules do not compute: {name} = {value!r}" in str(caught.value)
