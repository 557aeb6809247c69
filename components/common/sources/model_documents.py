"""What a folder is: a Stable Diffusion pipeline that can be trained and sampled, or something else, by name.

Told from the documents that say what a model's parts are. Somebody else wrote them: nothing in them is taken for right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from components.common.errors import BaseModelError
from components.common.families import PIPELINES, TEXT_CLASSES, TITLES, TOKENIZERS, TextEncoder, text_config

PARTS = {
    **dict.fromkeys(TOKENIZERS.values(), ("CLIPTokenizer", "CLIPTokenizerFast")),
    **{part: (class_name,) for part, class_name in TEXT_CLASSES.items()},
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
}
"""The classes that a part can be of."""

DINO_MODELS = {"dinov2": "Dinov2Model", "vit": "ViTModel"}
"""The class that loads a DINOv2 or a DINO model, by what transformers calls its configuration."""

PREDICTION_TYPES = ("epsilon", "v_prediction")
"""What the trainers let a UNet predict: the noise, or the velocity (arXiv 2202.00512)."""

SCHEDULERS = (
    *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler"),
    *("EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "DPMSolverMultistepScheduler"),
    *("DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler"),
    *("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "LCMScheduler", "TCDScheduler"),
)
"""Samplers of diffusers that walk the noise schedule which the trainers add noise by."""

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace")
"""How diffusers computes betas where a scheduler does not list them."""

MOST_TIMESTEPS = 100_000
"""A hundred times as many as any Stable Diffusion model was trained with."""

_TIME_IDS = 6
"""As many numbers as `time_ids.TimeIds` has."""
_LARGEST_SAMPLE = 8192  # pixels or latents of a side: a picture beyond it fits into no memory
_MOST_LEVELS = 32
_LIBRARIES = (None, "diffusers", "transformers", "stable_diffusion")  # the last one is the safety checker's, of 2022
_MODEL_TYPES = {
    "CLIPModel": ("clip",),
    "CLIPTextModel": ("clip_text_model", "clip"),
    "CLIPTextModelWithProjection": ("clip_text_model", "clip"),
    "StableDiffusionSafetyChecker": ("clip",),
    "Dinov2Model": ("dinov2",),
    "ViTModel": ("vit",),
}
"""What transformers calls the configurations of each class; a text encoder may have that of a whole CLIP model."""
_SIZES = (
    *("hidden_size", "image_size", "in_channels", "intermediate_size", "latent_channels", "max_position_embeddings"),
    *("norm_num_groups", "num_channels", "num_hidden_layers", "out_channels", "patch_size", "projection_dim"),
    *("vocab_size", "addition_time_embed_dim", "projection_class_embeddings_input_dim"),
)
"""Fields that hold a size, or nothing."""
_SIZES_BY_LEVEL = (
    *("attention_head_dim", "block_out_channels", "cross_attention_dim", "layers_per_block", "num_attention_heads"),
    *("sample_size", "transformer_layers_per_block"),
)
"""Fields that hold a size, one for each level of the part, or nothing."""
_OF_LATENTS = {"latents_mean": 0, "latents_std": 1}
"""Fields of a VAE by which a pipeline changes latents beside `scaling_factor`, and the elements that change nothing."""
_OF_CODE = ("auto_map", "custom_pipelines", "trust_remote_code")

_TOLD = {
    "AutoencoderKL": "a VAE alone",
    "UNet2DConditionModel": "a UNet alone",
    "ControlNetModel": "a ControlNet, which steers a base model",
    "T2IAdapter": "a T2I-Adapter, which steers a base model",
    "MotionAdapter": "a motion adapter, which steers a base model",
    "CLIPTextModel": "a text encoder alone",
    "CLIPTextModelWithProjection": "a text encoder alone",
    "CLIPVisionModelWithProjection": "an image encoder alone",
}
_OF_PIPELINES = {
    "Inpaint": "inpainting",
    "Pix2Pix": "editing",
    "ControlNet": "steering by a ControlNet",
    "LatentConsistency": "distilled to a few steps",
    "StableDiffusion3": "a transformer in the UNet's place, and a T5 text encoder",
    "Flux": "a transformer in the UNet's place, and a T5 text encoder",
    "PixArt": "a transformer in the UNet's place, and a T5 text encoder",
    "Kandinsky": "drawing by pictures' embeddings",
    "StableCascade": "drawing in several stages",
}
"""What models of other pipelines are, by a part of the class's name; the first that fits."""
_OF_FILES = {
    "pytorch_lora_weights.safetensors": "a LoRA, which changes a base model",
    "adapter_config.json": "a LoRA of peft, which changes a base model",
    "learned_embeds.safetensors": "a learned embedding, not a base model",
    "learned_embeds.bin": "a learned embedding, not a base model",
    "scheduler_config.json": "a scheduler alone",
    "tokenizer_config.json": "a tokenizer alone",
}


def pipeline_problems(index: Mapping[str, Any]) -> list[str]:
    """Why the pipeline of a model_index.json cannot be used; nothing when it can."""
    name = index.get("_class_name")
    if name not in PIPELINES:
        return [
            f"model_index.json is of a {_shown(name)}{_hint(str(name))}, expected one of {', '.join(PIPELINES)}: choose"
            f" a model of {TITLES} that draws from text"
        ]
    if index.get("requires_aesthetics_score"):
        return [
            "model_index.json has requires_aesthetics_score: it is of a refiner, which goes on with another model's"
            " pictures; choose that model"
        ]
    problems: list[str] = []
    for part, found in index.items():
        if isinstance(found, list):
            problems += _part_problems(part, found)
    return problems


def _part_problems(part: str, found: Sequence[Any]) -> Iterable[str]:
    classes = (*PARTS.get(part, ()), *(SCHEDULERS if part == "scheduler" else ()))
    match found:
        case [None, *_]:
            return
        case [library, _] if library not in _LIBRARIES:
            yield (
                f"{_shown(part)} is of {_shown(library)}, code that comes with the model and is never run here: choose "
                "another base model"
            )
        case [_, name] if classes and name not in classes:
            yield f"{part} is a {_shown(name)}, expected a {classes[0]}: choose another base model"
        case [_, _]:
            return
        case _:
            yield f"model_index.json has {_shown(found)} for {_shown(part)}, expected a library and a class"


def config_problems(config: Mapping[str, Any], name: str, class_name: str) -> list[str]:
    """Why a part with this configuration cannot be loaded as a `class_name`; nothing when it can.

    Args:
        config: the content of the part's config.json.
        name: what messages call that file.
        class_name: a class of diffusers or transformers.
    """
    problems = []
    model_types = _MODEL_TYPES.get(class_name)
    field, expected = ("model_type", model_types) if model_types else ("_class_name", (class_name,))
    if (found := config.get(field)) is not None and found not in expected:
        problems.append(f"{name} is of a {_shown(found)}, expected a {expected[0]}: choose another base model")
    for field, value in _fields(config):
        if field == "quantization_config" and value is not None:
            problems.append(
                f"{name} has a quantization_config: quantised weights can be neither trained on nor compared with; "
                "choose the weights in fp32, fp16 or bf16"
            )
        if field == "time_cond_proj_dim" and value is not None:
            problems.append(
                f"{name} has time_cond_proj_dim: the model takes the guidance as an input, distilled to a few steps "
                "(arXiv 2310.04378); choose the model that it was made from"
            )
        if field in _OF_LATENTS and value is not None and not _are_all(value, _OF_LATENTS[field]):
            problems.append(
                f"{name} has {field}: only latents that are normalised by scaling_factor alone are made here; choose "
                "another base model"
            )
        if field in _OF_CODE and value:
            problems.append(f"{name} has {field}, code that comes with the model and is never run here: choose another")
        is_size = (field in _SIZES and _is_size(value)) or (field in _SIZES_BY_LEVEL and _are_sizes(value))
        if field in (*_SIZES, *_SIZES_BY_LEVEL) and value is not None and not is_size:
            problems.append(f"{name}: found {field} {_shown(value)}, expected whole numbers above 0: fetch it again")
        if field == "sample_size" and is_size and max(numbers_in(value)) > _LARGEST_SAMPLE:
            problems.append(
                f"{name}: found {field} {_shown(value)}, expected {_LARGEST_SAMPLE} or less: fetch it again"
            )
        if field == "scaling_factor" and not (_is_number(value) and value > 0):
            problems.append(f"{name}: found {field} {_shown(value)}, expected a number above 0: fetch it again")
    return problems


def dino_problems(config: Mapping[str, Any], name: str) -> list[str]:
    """Why a model with this configuration is no DINO or DINOv2 model; arguments as of `config_problems`."""
    found = config.get("model_type")
    if not isinstance(found, str) or found not in DINO_MODELS:
        return [f"{name} is of a {_shown(found)}, expected {' or '.join(DINO_MODELS)}: choose a DINO or DINOv2 model"]
    return config_problems(config, name, DINO_MODELS[found])


def scheduler_problems(config: Mapping[str, Any], name: str) -> list[str]:
    """Why a model cannot be trained by the noise schedule of a scheduler_config.json; nothing when it can.

    Args:
        config: the file's content.
        name: what messages call it.
    """
    problems = []

    def expect(field: str, default: Any, fits: bool, expected: str) -> None:
        if not fits:
            problems.append(
                f"{name}: found {field} {_shown(config.get(field, default))}, expected {expected}: choose another base "
                "model"
            )

    for field, default, choices in (
        ("_class_name", SCHEDULERS[0], SCHEDULERS),
        ("prediction_type", PREDICTION_TYPES[0], PREDICTION_TYPES),
        ("beta_schedule", BETA_SCHEDULES[0], BETA_SCHEDULES),
        ("timestep_spacing", "leading", ("leading", "trailing", "linspace")),
    ):
        expect(field, default, config.get(field, default) in choices, f"one of {', '.join(choices)}")
    count, offset = config.get("num_train_timesteps", 1000), config.get("steps_offset", 0)
    counts = type(count) is int and 1 <= count <= MOST_TIMESTEPS
    expect("num_train_timesteps", 1000, counts, f"1 to {MOST_TIMESTEPS}")
    expect("steps_offset", 0, type(offset) is int and counts and 0 <= offset < count, "0 or 1")
    for field, usual in (("beta_start", 0.0001), ("beta_end", 0.02)):
        expect(field, usual, _is_beta(config.get(field, usual)), "a number between 0 and 1")
    betas = config.get("trained_betas")
    if betas is not None:
        listed = isinstance(betas, list) and len(betas) == count and all(_is_beta(beta) for beta in betas)
        expect("trained_betas", None, listed, "a number between 0 and 1 for each of num_train_timesteps")
    return problems


def channel_problems(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> list[str]:
    """Why UNet and VAE, by their configurations, do not draw from text alone; nothing when they do."""
    channels, latents = unet.get("in_channels"), vae.get("latent_channels")
    if channels is None or latents is None or channels == latents:
        return []
    return [
        f"the UNet takes {channels} channels, the VAE's latents have {latents}: it draws into pictures (inpainting or"
        " editing), expected a model that draws from text alone"
    ]


def conditioning_problems(
    unet: Mapping[str, Any], text_encoders: Sequence[tuple[TextEncoder, Mapping[str, Any]]]
) -> list[str]:
    """Why a UNet cannot take what the text encoders give; nothing when it can, or where a width is not told.

    Args:
        unet: the content of its config.json.
        text_encoders: each with the content of its config.json.
    """
    given: dict[str, list[Any]] = {}
    if not unet.get("encoder_hid_dim_type"):
        given["cross_attention_dim"] = [text_config(config).get("hidden_size") for _, config in text_encoders]
    if unet.get("addition_embed_type") == "text_time":
        pooled = [text_config(config).get("projection_dim") for each, config in text_encoders if each.pooled]
        times = [unet.get("addition_time_embed_dim")] * _TIME_IDS
        given["projection_class_embeddings_input_dim"] = [*pooled, *times]
    return [
        f"unet/config.json: found {name} {_shown(unet[name])}, expected {sum(widths)}, which is what the text encoders "
        "give: a part is of another model; fetch all of one"
        for name, widths in given.items()
        if unet.get(name) is not None and None not in widths and set(numbers_in(unet[name])) != {sum(widths)}
    ]


def described(names: Collection[str], config: Mapping[str, Any]) -> str:
    """What a folder without model_index.json is, by its files and its config.json; empty when that is not known."""
    architectures = config.get("architectures")
    for name in (config.get("_class_name"), *(architectures if isinstance(architectures, list) else ())):
        if name is not None:
            return _TOLD.get(str(name), f"a {_shown(name)} alone")
    return next((told for file, told in _OF_FILES.items() if file in names), "")


def numbers_in(value: Any) -> list[int]:
    """Every whole number in a JSON value."""
    if isinstance(value, list | dict):
        return [
            number for each in (value.values() if isinstance(value, dict) else value) for number in numbers_in(each)
        ]
    return [value] if type(value) is int else []


def config_of(content: Any, name: str) -> Mapping[str, Any]:
    """The object that a configuration holds.

    Raises:
        BaseModelError: when it holds something else.
    """
    if not isinstance(content, dict):
        raise BaseModelError(f"{name} holds a {type(content).__name__}, expected an object")
    return content


def _fields(config: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """The fields of a configuration, and of those in it: a CLIP model's has one for texts and one for pictures."""
    for field, value in config.items():
        yield field, value
        if field in ("text_config", "vision_config") and isinstance(value, dict):
            yield from value.items()


def _are_all(value: Any, element: float) -> bool:
    return isinstance(value, list) and all(each == element for each in value)


def _are_sizes(value: Any) -> bool:
    if isinstance(value, list):
        return 1 <= len(value) <= _MOST_LEVELS and all(_are_sizes(each) for each in value)
    return _is_size(value)


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_beta(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _shown(value: Any) -> str:
    """A value of somebody else, as one short line."""
    text = value if isinstance(value, str) and value.isidentifier() else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _hint(name: str) -> str:
    return next((f" ({told})" for word, told in _OF_PIPELINES.items() if word in name), "")
