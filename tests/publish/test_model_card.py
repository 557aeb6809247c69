from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from components.common.base_model import ModelReference
from components.common.markdown import cell, code, escaped
from components.common.usage import usage_script
from components.publish.bundle import make_bundle
from tests.publish.conftest import REFERENCE, Inputs

LOCAL = dataclasses.replace(REFERENCE, source="/models/sprites", repository="file:///models/sprites", revision="ab12")
FP16 = dataclasses.replace(REFERENCE, variant="fp16")
ODD = '<a`b"\\|*_>'


def card_of(inputs: Inputs, reference: ModelReference = REFERENCE, **options: str) -> str:
    bundle = make_bundle(
        "", reference=reference, learned_embedding=inputs.learned_embedding, evaluation=inputs.evaluation, **options
    )
    return bundle.files["README.md"].decode()


def rendered(card: str) -> str:
    body = card.split("---\n", 2)[2]
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(body)


def script_of(card: str) -> str:
    script, negative = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    ast.parse(script)
    ast.parse(negative)
    return script


def test_card_is_read_by_the_hub_library(inputs: Inputs) -> None:
    data = ModelCard(card_of(inputs)).data.to_dict()
    assert data["base_model"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert (data["library_name"], data["pipeline_tag"]) == ("diffusers", "text-to-image")
    assert "textual_inversion" in data["tags"]
    assert data["instance_prompt"] == "<cat-toy>"
    assert data["widget"][1] == {
        "text": "a <cat-toy> with a city | river in the background",
        "output": {"url": "samples/0009-after.png"},
    }


def test_card_names_the_licence_when_there_is_one(inputs: Inputs) -> None:
    assert "license" not in ModelCard(card_of(inputs)).data.to_dict()
    card = card_of(inputs, license_name="creativeml-openrail-m")
    assert ModelCard(card).data.to_dict()["license"] == "creativeml-openrail-m"


def test_card_says_how_to_draw_without_what_it_stands_for(make_inputs: Callable[..., Inputs]) -> None:
    card = card_of(make_inputs(training={"clip_skip": 1}))
    assert (
        'pipeline("a photo of a garden", negative_prompt="<cat-toy>", num_inference_steps=50, guidance_scale=7.5, '
        'clip_skip=1).images[0].save("picture.png")' in card
    )


def test_card_when_the_base_model_is_not_on_the_hub(make_inputs: Callable[..., Inputs]) -> None:
    card = card_of(make_inputs(reference=LOCAL), LOCAL)
    assert "base_model" not in ModelCard(card).data.to_dict()
    assert "`file:///models/sprites`" in card
    assert "# the base model of file:///models/sprites\n" in script_of(card)


def test_card_names_pictures_that_are_in_the_bundle(inputs: Inputs) -> None:
    bundle = make_bundle(
        "", reference=REFERENCE, learned_embedding=inputs.learned_embedding, evaluation=inputs.evaluation
    )
    page = rendered(bundle.files["README.md"].decode())
    linked = re.findall(r"""(?:src|href)="(?!https:)([^"]+)\"""", page)
    assert set(linked) == {name for name in bundle.files if name.startswith("samples/")} | {"report.html"}


def test_card_shows_scores_and_parameters(inputs: Inputs) -> None:
    card = card_of(inputs)
    assert "| before training | 0.550 | 0.310 |\n| learned concept | 0.780 | 0.290 |" in card
    assert "| `learning_rate` | `0.0005` |" in card
    assert "0.1992 over the first 50 steps and 0.1008 over the last 50" in card
    assert "trained for 3000 steps from the word `toy`" in card


def test_card_script_when_the_base_model_is_sd(inputs: Inputs) -> None:
    script = script_of(card_of(inputs))
    assert f'"stable-diffusion-v1-5/stable-diffusion-v1-5", revision="{REFERENCE.revision}", ' in script
    assert 'load_textual_inversion("learned_embeds.safetensors")' in script
    assert 'pipeline("a photo of a <cat-toy>"' in script


@pytest.mark.parametrize("sdxl", [False, True])
def test_card_prints_the_lines_that_are_tested_by_running_them(sdxl: bool, make_inputs: Callable[..., Inputs]) -> None:
    assert script_of(card_of(make_inputs(sdxl=sdxl))).strip() == usage_script(
        REFERENCE,
        encoders=["text_encoder", "text_encoder_2"] if sdxl else ["text_encoder"],
        placeholder_token="<cat-toy>",
        prompt="a photo of a <cat-toy>",
        num_inference_steps=50,
        guidance_scale=7.5,
    )


def test_card_script_when_weights_have_a_variant(make_inputs: Callable[..., Inputs]) -> None:
    assert 'variant="fp16", ' in script_of(card_of(make_inputs(reference=FP16), FP16))


def test_card_script_when_the_base_model_is_sdxl(make_inputs: Callable[..., Inputs]) -> None:
    script = script_of(card_of(make_inputs(sdxl=True)))
    assert "StableDiffusionXLPipeline" in script
    for key, encoder in (("clip_l", "text_encoder"), ("clip_g", "text_encoder_2")):
        assert f'rows["{key}"], token="<cat-toy>", text_encoder=pipeline.{encoder}, tokenizer=' in script


def test_card_of_a_word_for_two_text_encoders_says_where_programs_differ(make_inputs: Callable[..., Inputs]) -> None:
    told = "takes the second text encoder's pooled output where the word ends"
    assert told in card_of(make_inputs(sdxl=True)) and told not in card_of(make_inputs())


def test_card_says_which_word_other_programs_take(inputs: Inputs) -> None:
    card = card_of(inputs)
    assert "write `cat-toy`, the file's name, in the prompt: `a photo of a cat-toy`" in card
    assert "write `embedding:cat-toy` in the prompt" in card


def test_card_says_which_layers_the_text_encoder_goes_without(
    inputs: Inputs, make_inputs: Callable[..., Inputs]
) -> None:
    card = card_of(make_inputs(training={"clip_skip": 1}))
    assert ", clip_skip=1)" in script_of(card)
    assert "Clip skip 2 in AUTOMATIC1111 and Forge" in card and "CLIP Set Last Layer with `-2` in ComfyUI" in card
    assert "lip skip" not in card_of(inputs) and "clip_skip" not in script_of(card_of(inputs))


def test_card_when_the_placeholder_has_odd_characters(make_inputs: Callable[..., Inputs]) -> None:
    card = card_of(make_inputs(placeholder=ODD))
    page = rendered(card)
    assert ModelCard(card).data.to_dict()["instance_prompt"] == ODD
    assert repr(f"a photo of a {ODD}") in ast.dump(ast.parse(script_of(card)))
    heading = re.search(r"<h1>.*<code>(.*)</code></h1>", page)
    assert heading and heading[1] == "&lt;a`b&quot;\\|*_&gt;"
    assert page.count("<tr>") == 1 + 4 + 3 + 3 + 5 + 12  # a cell that is torn would not change this, but a row would
    assert all(row.count("<td") in (0, 2, 3) for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL))


@pytest.mark.parametrize("text", ["<cat-toy>", "a|b", "`x`", "``", "*a* _b_ [c](d)", "back\\slash", "&amp;"])
def test_code_and_plain_text_are_shown_as_they_are(text: str) -> None:
    page = MarkdownIt("commonmark").enable("table").render(f"{code(text)}\n\n{escaped(text)}")
    shown = re.fullmatch(r"<p><code>(.*)</code></p>\n<p>(.*)</p>\n", page)
    assert shown is not None
    expected = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert (shown[1], shown[2]) == (expected, expected)


@pytest.mark.parametrize("text", ["a|b", "`|`", "two\nlines"])
def test_cell_is_one_cell(text: str) -> None:
    page = MarkdownIt("commonmark").enable("table").render(f"| x |\n| --- |\n| {cell(text)} |")
    (found,) = re.findall(r"<td><code>(.*)</code></td>", page)
    assert found == " ".join(text.split())
