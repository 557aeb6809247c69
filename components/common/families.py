"""What base models there are: families whose parts differ, each a description that steps and trainers read.

A step asks a description, never which family it is. Another family is an entry below, and where it has other parts, a
module for each of them. Stable Diffusion 3.5 and FLUX would need, each as a module of `torch_models` and `flax_models`
and as fields here that say which is meant:

- a text encoder of another kind, T5, whose hidden states stand behind CLIP's instead of beside them;
- a transformer in the UNet's place, which FLUX gives the guidance as an input;
- flow matching (arXiv 2403.03206), the velocity from noise to latents at a continuous time, in place of a noise
  schedule with timesteps;
- latents of 16 channels that are shifted before they are scaled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from components.common.errors import BaseModelError, ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """One of a family's text encoders.

    Attributes:
        part: its folder in a base model.
        tokenizer: the folder of its tokenizer.
        class_name: its class in transformers.
        rows_key: the key of a word's rows in a learned-embedding file; empty: the placeholder.
        left_out_layers: how many of its last layers the UNet's conditioning goes without.
        final_norm: whether hidden states go through the norm that stands behind the last layer.
        pooled: whether the projection of the end-of-text token conditions the UNet too.
    """

    part: str
    tokenizer: str
    class_name: str
    rows_key: str = ""
    left_out_layers: int = 0
    final_norm: bool = True
    pooled: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A family of base models.

    Attributes:
        name: what options and tables call it.
        title: what people call it.
        pipeline: the class of diffusers that draws from a text.
        saved_as: the classes that a model_index.json may name; their parts are the same.
        text_encoders: in the order in which their hidden states are joined, along the last axis.
        time_ids: whether the UNet is told the picture's size and crop (arXiv 2307.01952, section 2.2).
        zeroed_negative: whether an empty negative prompt is told to the UNet as zeros, unless the model_index.json says
            otherwise in `force_zeros_for_empty_prompt`.
        linear_projection: whether the UNet's `use_linear_projection` is on.
        usual_resolution: side in pixels of the pictures that its first models were trained on.
        hub_tag: what models of it, and words for it, are filed under on the Hugging Face Hub.
    """

    name: str
    title: str
    pipeline: str
    saved_as: tuple[str, ...]
    text_encoders: tuple[TextEncoder, ...]
    time_ids: bool
    zeroed_negative: bool
    linear_projection: bool
    usual_resolution: int
    hub_tag: str


_CLIP_LAYERS = 12
"""As many layers as a text encoder of transformers has whose configuration does not say."""

_CLIP = TextEncoder(part="text_encoder", tokenizer="tokenizer", class_name="CLIPTextModel")
_SD1 = Family(
    name="sd1",
    title="Stable Diffusion 1.x",
    pipeline="StableDiffusionPipeline",
    saved_as=("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionPipelineSafe"),
    text_encoders=(_CLIP,),
    time_ids=False,
    zeroed_negative=False,
    linear_projection=False,
    usual_resolution=512,
    hub_tag="stable-diffusion",
)

FAMILIES = (
    _SD1,
    dataclasses.replace(_SD1, name="sd2", title="Stable Diffusion 2.x", linear_projection=True, usual_resolution=768),
    Family(
        name="sdxl",
        title="Stable Diffusion XL",
        pipeline="StableDiffusionXLPipeline",
        saved_as=("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"),
        text_encoders=(
            dataclasses.replace(_CLIP, rows_key="clip_l", left_out_layers=1, final_norm=False),
            TextEncoder(
                part="text_encoder_2",
                tokenizer="tokenizer_2",
                class_name="CLIPTextModelWithProjection",
                rows_key="clip_g",
                left_out_layers=1,
                final_norm=False,
                pooled=True,
            ),
        ),
        time_ids=True,
        zeroed_negative=True,
        linear_projection=True,
        usual_resolution=1024,
        hub_tag="stable-diffusion-xl",
    ),
)

TITLES = ", ".join(family.title for family in FAMILIES)
"""What people call all of them."""

TOKENIZERS = {encoder.part: encoder.tokenizer for family in FAMILIES for encoder in family.text_encoders}
"""The folder of each text encoder's tokenizer."""

TEXT_CLASSES = {encoder.part: encoder.class_name for family in FAMILIES for encoder in family.text_encoders}
"""The class of each text encoder in transformers."""

ROWS_KEYS = {
    frozenset(each.rows_key for each in family.text_encoders): {
        each.rows_key: each.part for each in family.text_encoders
    }
    for family in FAMILIES
    if all(each.rows_key for each in family.text_encoders)
}
"""The text encoder of each key of a learned-embedding file, by all keys of one that has a key for each."""

PIPELINES = tuple(dict.fromkeys(name for family in FAMILIES for name in family.saved_as))
"""Classes of diffusers whose parts draw from a text alone; those that begin with a picture are of the same parts."""


def family_of(parts: Collection[str], unet: Mapping[str, Any]) -> Family:
    """The family of a base model.

    Args:
        parts: the folders that it has.
        unet: the UNet's config.json.

    Raises:
        BaseModelError: when it is of none, naming what it has.
    """
    linear = bool(unet.get("use_linear_projection", False))
    found = [
        family
        for family in _with_encoders(encoders_in(parts))
        if family.linear_projection == linear and family.time_ids == (unet.get("addition_embed_type") == "text_time")
    ]
    if not found:
        raise BaseModelError(
            f"the base model has {_listed(encoders_in(parts))} and a UNet with addition_embed_type "
            f"{unet.get('addition_embed_type')!r} and use_linear_projection {linear}, which is none of "
            f"{TITLES}: choose a base model of these"
        )
    return found[0]


def text_encoders_saved_as(class_name: str) -> tuple[TextEncoder, ...]:
    """The text encoders of base models that a model_index.json calls `class_name`, one of `PIPELINES`."""
    return next(family.text_encoders for family in FAMILIES if class_name in family.saved_as)


def families_with(parts: Collection[str]) -> list[Family]:
    """The families with the text encoders that are among a base model's folders, or that a word has rows for.

    They have the same text encoders and the same pipeline.

    Raises:
        BaseModelError: when no family has just these.
    """
    found = _with_encoders(encoders_in(parts))
    if not found:
        expected = dict.fromkeys(_listed(each.part for each in family.text_encoders) for family in FAMILIES)
        raise BaseModelError(
            f"found the text encoders {_listed(encoders_in(parts)) or 'none'} among "
            f"{_listed(sorted(parts)) or 'no parts'}, expected {' or '.join(expected)}: choose a base model of "
            f"{TITLES}"
        )
    return found


def text_encoders_of(parts: Collection[str]) -> tuple[TextEncoder, ...]:
    """The text encoders among the folders of a base model, or among those that a word has rows for.

    Raises:
        BaseModelError: see `families_with`.
    """
    return families_with(parts)[0].text_encoders


def conditioning_layers(text_encoders: Collection[TextEncoder], configs: Mapping[str, Mapping[str, Any]]) -> int:
    """How many layers of every text encoder condition the UNet at least, for `check_clip_skip`.

    Args:
        text_encoders: a base model's.
        configs: the content of each one's config.json, by its folder.
    """
    return min(
        (text_config(configs[each.part]).get("num_hidden_layers") or _CLIP_LAYERS) - each.left_out_layers
        for each in text_encoders
    )


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the config.json of a text encoder says of it: all, or a part where it is that of a whole CLIP model."""
    found = config.get("text_config")
    return found if isinstance(found, Mapping) and found else config


def check_clip_skip(clip_skip: int, layers: int) -> None:
    """Raises `ConfigError` unless `clip_skip` leaves one of a base model's `conditioning_layers`."""
    if clip_skip >= layers:
        raise ConfigError(
            f"clip_skip: found {clip_skip}, expected less than {layers}, the layers of the base model's text encoder"
        )


def check_word_fits(word: str, widths: Mapping[str, int], of_model: Mapping[str, int]) -> None:
    """Returns when a word has rows for the text encoders of a base model, as wide as these.

    Args:
        word: the word or its file, for messages.
        widths: of its rows, by text encoder.
        of_model: the width of each of the base model's text encoders.

    Raises:
        BaseModelError: naming the families of both.
    """
    if dict(widths) != dict(of_model):
        raise BaseModelError(
            f"{word} is a word for {_families_and_widths(widths)}, expected one for {_families_and_widths(of_model)}, "
            "as the base model is: use the base model that the word was learned on, or a word that was learned on one "
            "of its kind"
        )


def _families_and_widths(widths: Mapping[str, int]) -> str:
    titles = " or ".join(family.title for family in families_with(widths))
    return f"{titles} with {' and '.join(f'width {width} for {part}' for part, width in sorted(widths.items()))}"


def training_parts(parts: Collection[str]) -> tuple[str, ...]:
    """The folders that training needs, of those that a base model has.

    Raises:
        BaseModelError: see `text_encoders_of`.
    """
    of_text = (part for encoder in text_encoders_of(parts) for part in (encoder.tokenizer, encoder.part))
    return (*of_text, "unet", "scheduler")


def encoders_in(parts: Collection[str]) -> list[str]:
    """Those of the folders that hold text encoders."""
    return sorted(part for part in parts if part.startswith("text_encoder"))


def _with_encoders(names: list[str]) -> list[Family]:
    return [family for family in FAMILIES if sorted(each.part for each in family.text_encoders) == names]


def _listed(names: Any) -> str:
    return ", ".join(names)
