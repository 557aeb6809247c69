"""The paper's prompts, and what a placeholder becomes in them."""

from __future__ import annotations

import pytest

from components.common.errors import ConfigError
from components.common.prompts import (
    OBJECT_TEMPLATES,
    STYLE_TEMPLATES,
    placeholder_tokens,
    templates_for,
    trigger_word,
)


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


@pytest.mark.parametrize("number", [0, -1])
def test_placeholder_tokens_when_there_is_no_vector_refuses(number: int) -> None:
    with pytest.raises(ConfigError, match=f"num_vectors: found {number}, expected 1 or more"):
        placeholder_tokens("<x>", number)


@pytest.mark.parametrize(
    ("token", "word"),
    [
        ("<cat-toy>", "cat-toy"),
        ("<x>", "x"),
        ("sks", "sks"),
        ("<a/b>", "a-b"),
        ("<../../etc/passwd>", "etc-passwd"),
        ("<.hidden>", "hidden"),
        ("<<>>", "concept"),
        ("*", "concept"),
        ("<猫>", "猫"),
        ("<v1.2_final>", "v1.2_final"),
    ],
)
def test_trigger_word_when_made_is_a_harmless_file_name(token: str, word: str) -> None:
    assert trigger_word(token) == word
