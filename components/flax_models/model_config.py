"""The parts' config.json as the modules' configurations; what the modules do not implement is refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from components.common.errors import BaseModelError
from components.common.families import FAMILIES
from components.common.sources.checks import read_object
from components.common.sources.model_documents import config_problems
from components.flax_models.module_configs import HIDDEN_ACTS, ClipTextConfig, UNetConfig, VaeConfig

_Config = TypeVar("_Config", ClipTextConfig, UNetConfig, VaeConfig)

_DOWN_BLOCKS = ("CrossAttnDownBlock2D", "DownBlock2D")
_UP_BLOCKS = ("CrossAttnUpBlock2D", "UpBlock2D")

_TEXT_ONLY: dict[str, tuple[Any, ...]] = {
    "attention_dropout": (0,),
    "dropout": (0,),
    "pruned_heads": ({},),
}
"""Values of fields that the text encoder computes no other way."""
_TEXT_ANY = (
    *("model_type", "architectures", "transformers_version", "dtype", "torch_dtype", "tokenizer_class"),
    *("bos_token_id", "pad_token_id", "initializer_factor", "initializer_range"),
    *("return_dict", "output_attentions", "output_hidden_states", "use_cache", "chunk_size_feed_forward"),
    *("id2label", "label2id", "problem_type", "tie_word_embeddings"),
    *("max_length", "num_beams", "num_beam_groups", "num_return_sequences", "temperature", "top_k", "top_p"),
    *("typical_p", "repetition_penalty", "length_penalty"),
)
"""Fields without effect on hidden states: of other parts of CLIP, and what transformers 4 wrote for every model."""

_UNET_ONLY: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (1,),
    "dropout": (0,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "resnet_time_scale_shift": ("default",),
    "resnet_out_scale_factor": (1,),
    "time_embedding_type": ("positional",),
    "attention_type": ("default",),
}
"""Values of fields that the UNet computes no other way."""
_UNET_ANY = ("sample_size", "upcast_attention", "addition_embed_type_num_heads")
"""Fields without effect: scores are always float32; the last one belongs to a part that is refused if used."""
_UNET_BY_LEVEL = ("attention_head_dim", "transformer_layers_per_block")
"""Fields that are given for all levels at once or level by level."""
_UNET_OPTIONAL = ("addition_embed_type", "addition_time_embed_dim", "projection_class_embeddings_input_dim")
"""Fields that may be null."""

_VAE_ONLY: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "use_quant_conv": (True,),
    "use_post_quant_conv": (True,),
    "shift_factor": (None, 0),
}
_VAE_ANY = ("sample_size", "force_upcast")


def read_text_config(folder: Path, class_name: str) -> ClipTextConfig:
    """The configuration of a text encoder, which transformers has as `class_name`, in its folder of a model.

    Raises:
        BaseModelError: when it is missing, no JSON, of another class, or asks for what is not implemented here.
    """
    given = _read(folder, class_name)
    _refuse_unknown(given, ClipTextConfig, _TEXT_ONLY, _TEXT_ANY, folder)
    config = _picked(ClipTextConfig, given, folder)
    _check_choice("hidden_act", [config.hidden_act], HIDDEN_ACTS, folder)
    _check_divides("num_attention_heads", config.num_attention_heads, config.hidden_size, folder)
    return config


def read_unet_config(folder: Path) -> UNetConfig:
    """The UNet's configuration in a model's folder `unet`; errors as of `read_text_config`."""
    given = _read(folder, "UNet2DConditionModel")
    _refuse_unknown(given, UNetConfig, _UNET_ONLY, (*_UNET_ANY, "num_attention_heads"), folder)
    if given.get("num_attention_heads") is not None:
        raise _not_implemented({"num_attention_heads": given["num_attention_heads"]}, folder)
    config = _picked(UNetConfig, given, folder)
    _check_choice("down_block_types", config.down_block_types, _DOWN_BLOCKS, folder)
    _check_choice("up_block_types", config.up_block_types, _UP_BLOCKS, folder)
    levels = len(config.block_out_channels)
    for name in ("down_block_types", "up_block_types", "heads", "depths"):
        if len(getattr(config, name)) != levels:
            raise BaseModelError(f"{folder}: {name} has {len(getattr(config, name))} entries, expected {levels}")
    for heads, channels in zip(config.heads, config.block_out_channels, strict=True):
        _check_divides("attention_head_dim", heads, channels, folder)
    _check_groups(config, folder)
    _check_choice("addition_embed_type", [config.addition_embed_type], ("", "text_time"), folder)
    for name in ("addition_time_embed_dim", "projection_class_embeddings_input_dim"):
        if config.addition_embed_type and getattr(config, name) < 1:
            raise BaseModelError(f"{folder}: found no {name}, expected the size that addition_embed_type needs")
    return config


def read_vae_config(folder: Path) -> VaeConfig:
    """The VAE's configuration in a model's folder `vae`; errors as of `read_text_config`."""
    given = _read(folder, "AutoencoderKL")
    blocks = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    for name, allowed in blocks.items():
        _check_choice(name, given.get(name, allowed), allowed, folder)
    _refuse_unknown(given, VaeConfig, _VAE_ONLY, (*_VAE_ANY, *blocks), folder)
    config = _picked(VaeConfig, given, folder)
    _check_groups(config, folder)
    return config


def _read(folder: Path, class_name: str) -> dict[str, Any]:
    given = read_object(folder / "config.json")
    if problems := config_problems(given, str(folder / "config.json"), class_name):
        raise BaseModelError(*problems)
    return given


def _picked(kind: type[_Config], given: Mapping[str, Any], folder: Path) -> _Config:
    absent = {name for name in _UNET_OPTIONAL if given.get(name) is None}
    names = {field.name for field in dataclasses.fields(kind)} & set(given) - absent
    picked: dict[str, Any] = {
        name: tuple(given[name]) if isinstance(given[name], list) else given[name] for name in names
    }
    wrong = {name: value for name, value in picked.items() if not _fits(kind, name, value)}
    if wrong:
        raise _not_implemented(wrong, folder)
    return kind(**picked)


def _fits(kind: type[_Config], name: str, value: Any) -> bool:
    default = next(field.default for field in dataclasses.fields(kind) if field.name == name)
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(isinstance(each, type(default[0])) for each in value)
    if name in _UNET_BY_LEVEL and isinstance(value, tuple):
        return all(isinstance(each, int) for each in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, (int, float) if isinstance(default, float) or name == "freq_shift" else type(default))


def _refuse_unknown(
    given: Mapping[str, Any],
    kind: type[_Config],
    only: Mapping[str, tuple[Any, ...]],
    without_effect: Collection[str],
    folder: Path,
) -> None:
    known = {field.name for field in dataclasses.fields(kind)}
    unknown = {
        name: value
        for name, value in given.items()
        if not name.startswith("_")
        and name not in known
        and name not in without_effect
        and value not in only.get(name, (None, False))
    }
    if unknown:
        raise _not_implemented(unknown, folder)


def _not_implemented(fields: Mapping[str, Any], folder: Path) -> BaseModelError:
    shown = ", ".join(f"{name} = {value!r}" for name, value in sorted(fields.items()))
    return BaseModelError(
        f"{folder / 'config.json'} asks for what the Flax modules do not compute: {shown}; choose a base model of "
        f"{', '.join(family.title for family in FAMILIES)}, or train with PyTorch"
    )


def _check_choice(name: str, found: Collection[str], allowed: tuple[str, ...], folder: Path) -> None:
    other = [each for each in found if each not in allowed]
    if other:
        raise _not_implemented({name: other[0]}, folder)


def _check_divides(name: str, divisor: int, whole: int, folder: Path) -> None:
    if divisor < 1 or whole % divisor:
        raise BaseModelError(f"{folder}: {name} is {divisor}, expected a divisor of {whole}")


def _check_groups(config: UNetConfig | VaeConfig, folder: Path) -> None:
    for channels in config.block_out_channels:
        _check_divides("norm_num_groups", config.norm_num_groups, channels, folder)
