"""Base models are told apart by what they have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from components.common.errors import BaseModelError
from components.common.families import FAMILIES, check_word_fits, family_of, text_encoders_of, training_parts

REPOSITORY = Path(__file__).parents[2]
SD_PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
XL_PARTS = (*SD_PARTS, "text_encoder_2", "tokenizer_2")
XL_UNET = {"addition_embed_type": "text_time", "use_linear_projection": True}


@pytest.mark.parametrize(
    ("parts", "unet", "name"),
    [
        (SD_PARTS, {}, "sd1"),
        (SD_PARTS, {"use_linear_projection": True, "addition_embed_type": None}, "sd2"),
        (XL_PARTS, XL_UNET, "sdxl"),
    ],
)
def test_family_is_told_by_text_encoders_and_unet(parts: tuple[str, ...], unet: dict[str, Any], name: str) -> None:
    assert family_of(parts, unet).name == name


@pytest.mark.parametrize(
    ("parts", "unet", "told"),
    [
        (XL_PARTS, {}, "text_encoder, text_encoder_2 and a UNet with addition_embed_type None"),
        (SD_PARTS, XL_UNET, "text_encoder and a UNet with addition_embed_type 'text_time'"),
        (("text_encoder_2", "unet"), XL_UNET, "has text_encoder_2 and"),
        ((*XL_PARTS, "text_encoder_3"), {}, "text_encoder, text_encoder_2, text_encoder_3"),
    ],
)
def test_other_models_are_refused_by_what_they_have(parts: tuple[str, ...], unet: dict[str, Any], told: str) -> None:
    with pytest.raises(BaseModelError, match=told):
        family_of(parts, unet)


def test_text_encoders_are_those_that_diffusers_and_transformers_have() -> None:
    """The second one's hidden states come last, as in `StableDiffusionXLPipeline.encode_prompt`."""
    pipelines = {each.__name__: each for each in (StableDiffusionPipeline, StableDiffusionXLPipeline)}
    classes = {each.__name__ for each in (CLIPTextModel, CLIPTextModelWithProjection)}
    for family in FAMILIES:
        assert family.pipeline in family.saved_as
        parts = pipelines[family.pipeline].__init__.__annotations__
        for encoder in family.text_encoders:
            assert {encoder.part, encoder.tokenizer} <= set(parts) and encoder.class_name in classes


def test_training_takes_every_encoder_with_its_tokenizer() -> None:
    assert training_parts(SD_PARTS) == ("tokenizer", "text_encoder", "unet", "scheduler")
    assert set(training_parts(XL_PARTS)) == set(XL_PARTS) - {"vae"}


def test_rows_of_encoders_that_no_family_has_are_refused() -> None:
    with pytest.raises(BaseModelError, match="found the text encoders text_encoder_2 among text_encoder_2, expected"):
        text_encoders_of(["text_encoder_2"])


def test_description_of_families_is_all_that_names_one() -> None:
    """No step asks which family a model is of: it asks the description."""
    for file in (REPOSITORY / "components").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not any(f'name == "{family.name}"' in text for family in FAMILIES), file
        assert "is_sdxl" not in text, file


def test_readme_has_a_row_for_each_family() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for family in FAMILIES:
        keys = ", ".join(f"`{each.rows_key}`" for each in family.text_encoders if each.rows_key)
        row = [family.title, f"{family.usual_resolution} px", len(family.text_encoders), keys or "one key"]
        assert "| " + " | ".join(map(str, row)) in readme


@pytest.mark.parametrize(
    ("word", "model", "told"),
    [
        ({"text_encoder": 768}, {"text_encoder": 768, "text_encoder_2": 1280}, ("for Stable Diffusion 1", "XL")),
        ({"text_encoder": 768, "text_encoder_2": 1280}, {"text_encoder": 768}, ("for Stable Diffusion XL with", "1.x")),
        ({"text_encoder": 768}, {"text_encoder": 1024}, ("width 768 for text_encoder", "width 1024 for text_encoder")),
    ],
)
def test_word_for_another_base_model_is_refused_with_what_both_are(
    word: dict[str, int], model: dict[str, int], told: tuple[str, str]
) -> None:
    check_word_fits("x.safetensors", word, dict(word))
    with pytest.raises(BaseModelError, match=f"is a word .*{told[0]}.*, expected one for .*{told[1]}"):
        check_word_fits("x.safetensors", word, model)
