"""The paper's prompts, and what a placeholder becomes in them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from components.common.errors import ConfigError
from components.common.prompts import (
    OBJECT_TEMPLATES,
    STYLE_TEMPLATES,
    concept_name,
    placeholder_tokens,
    templates_for,
    trigger_word,
)
from components.publish.config import PublishConfig

SPRITES = Path(__file__).parents[2] / "examples" / "sprites"
CLIP_PIECE = re.compile(r"[^\W\d_]+|\d|(?:[^\w\s]|_)+")
"""What CLIP's tokenizers split a text into before anything else: no entry of a vocabulary goes beyond a piece."""


@pytest.mark.parametrize("templates", [OBJECT_TEMPLATES, STYLE_TEMPLATES])
def test_templates_when_filled_hold_the_placeholder_once(templates: tuple[str, ...]) -> None:
    for template in templates:
        assert template.count("{}") == 1
        filled = template.format("<cat-toy>")
        assert filled.count("<cat-toy>") == 1
        assert filled == filled.strip().lower()
        assert "  " not in filled


def test_templates_when_counted_are_those_of_the_reference_script() -> None:
    assert (len(OBJECT_TEMPLATES), len(STYLE_TEMPLATES)) == (27, 19)
    assert (OBJECT_TEMPLATES[0], OBJECT_TEMPLATES[-1]) == ("a photo of a {}", "a photo of a small {}")
    assert all(template.endswith("in the style of {}") for template in STYLE_TEMPLATES)


def test_templates_for_when_the_property_is_known_gives_its_own() -> None:
    assert templates_for("object") is OBJECT_TEMPLATES
    assert templates_for("style") is STYLE_TEMPLATES


@pytest.mark.parametrize("name", ["", "Object", "person"])
def test_templates_for_when_the_property_is_unknown_names_the_two(name: str) -> None:
    with pytest.raises(ConfigError, match=f"found '{name}', expected one of object, style"):
        templates_for(name)


def test_placeholder_tokens_when_several_vectors_are_numbered_from_one() -> None:
    assert placeholder_tokens("<x>", 1) == ("<x>",)
    assert placeholder_tokens("<x>", 3) == ("<x>", "<x>_1", "<x>_2")


@pytest.mark.parametrize("token", ["", " ", "<cat toy>", "<x>\n", " <x>", "a,b", "<a>\t", "\u00a0x"])
def test_placeholder_tokens_when_it_is_no_single_word_refuses(token: str) -> None:
    with pytest.raises(ConfigError, match=r"placeholder_token: found .* expected one word"):
        placeholder_tokens(token, 1)


@pytest.mark.parametrize("token", ["clip_l", "clip_g"])
def test_placeholder_tokens_when_it_is_a_text_encoders_key_in_files_refuses(token: str) -> None:
    with pytest.raises(ConfigError, match=f"found '{token}', expected none of clip_g, clip_l, .* such as <{token}>"):
        placeholder_tokens(token, 1)
    assert placeholder_tokens(f"<{token}>", 1) == (f"<{token}>",)


@pytest.mark.parametrize("number", [0, -1])
def test_placeholder_tokens_when_there_is_no_vector_refuses(number: int) -> None:
    with pytest.raises(ConfigError, match=f"num_vectors: found {number}, expected 1 or more"):
        placeholder_tokens("<x>", number)


@pytest.mark.parametrize(
    ("token", "name", "word"),
    [
        ("<cat-toy>", "cat-toy", "cat-toy"),
        ("<v1.2_final>", "v1.2_final", "v1.2_final"),
        ("<star>", "star", "star-concept"),
        ("<x>", "x", "x-concept"),
        ("<猫>", "猫", "猫-concept"),
        ("<star-concept>", "star-concept", "star-concept-concept"),
        ("<__>", "__", "__-concept"),
        ("sks", "sks-6557b92f", "sks-6557b92f"),
        ("<a/b>", "a-b-afd64b49", "a-b-afd64b49"),
        ("<🐱>", "cat-face-c4f2e38e", "cat-face-c4f2e38e"),
    ],
)
def test_names_when_made_are_readable_and_stay_as_they_are(token: str, name: str, word: str) -> None:
    assert (concept_name(token), trigger_word(token)) == (name, word)


ODD_PLACEHOLDERS = [
    *("<🐱>", "<🐶>", "<★>", "<☆>", "🐱", "{}", "*", "<*>", "S*", "S+", "<<>>", "<>", "<.hidden>", "<hidden.>"),
    *("<../../etc/passwd>", "<etc-passwd>", "<a/b>", "<a-b>", "<a+b>", "a-b", "<cat->", "<cat>", "cat", "<<cat>>"),
    *(
        "C++",
        "<C#>",
        "<con>",
        "<star>",
        "<star-concept>",
        "<star-concept-concept>",
        "<concept>",
        "<learned_embeds>",
        "<_>",
        "<__>",
    ),
    *("<猫>", "<犬>", "<caf\u00e9>", "<cafe\u0301>", "\ud7ff", "<👨‍👩‍👧>", "<👨‍👩‍👦>"),
    *("<" + letter * length + end + ">" for letter in "a猫" for length in (66, 67, 100, 101, 300) for end in ("", "b")),
]


def test_names_when_placeholders_differ_differ_and_are_harmless() -> None:
    for made in (concept_name, trigger_word):
        names = [made(token) for token in ODD_PLACEHOLDERS]
        assert len(set(names)) == len(set(ODD_PLACEHOLDERS)) == len(ODD_PLACEHOLDERS)
        for name in names:
            assert re.fullmatch(r"\w[\w.-]*", name) and not name.endswith(".")
            assert len(f"{name}.safetensors".encode()) <= 255


@pytest.mark.parametrize("token", ODD_PLACEHOLDERS)
def test_concept_name_when_made_is_one_that_a_registry_takes(token: str) -> None:
    assert PublishConfig(registry_uri="registry", concept_name=concept_name(token)).concept_name


@pytest.mark.parametrize("token", ODD_PLACEHOLDERS)
def test_trigger_word_when_made_is_several_pieces_for_every_tokenizer_of_clip(token: str) -> None:
    assert len(CLIP_PIECE.findall(trigger_word(token))) > 1


def test_trigger_word_when_the_placeholder_is_a_word_of_the_vocabulary_is_none() -> None:
    vocabulary = json.loads((SPRITES / "base_model" / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    words = {key.removesuffix("</w>") for key in vocabulary} - {""}
    assert {"toy", "circle", "_", "7"} <= words
    assert not words & {trigger_word(f"<{word}>") for word in words}
    assert len({trigger_word(f"<{word}>") for word in words}) == len(words)
