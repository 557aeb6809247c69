from __future__ import annotations

import hashlib

import numpy as np
import pytest

from examples.sprites.captions import NOUNS, STYLES, draw_captioned, random_caption
from examples.sprites.world import (
    HELD_OUT_OBJECTS,
    HELD_OUT_STYLE,
    SHAPES,
    all_combinations,
    attributes_of,
    draw_pictures,
    is_held_out,
    words_of,
)


def test_dataset_is_the_same_bytes_for_the_same_seed():
    first, again, other = (draw_captioned(40, seed=seed) for seed in (3, 3, 4))
    assert first.pictures.tobytes() == again.pictures.tobytes()
    assert first.nouns == again.nouns
    assert first.pictures.tobytes() != other.pictures.tobytes()


def test_picture_bytes_are_those_that_were_trained_on():
    pictures = draw_pictures(all_combinations(), np.random.default_rng(0))
    assert hashlib.sha256(pictures.tobytes()).hexdigest()[:16] == "ef651552d2259f04"


def test_larger_picture_shows_the_same_sticker_with_more_around_it():
    small, large = (draw_pictures(all_combinations(), np.random.default_rng(0), size=size) for size in (32, 48))
    assert large.shape[1:] == (48, 48, 3)
    assert (np.abs(large[:, 8:40, 8:40].astype(int) - small) <= 12).all()  # their pixel noise differs


def test_captions_are_the_same_for_the_same_seed():
    data = draw_captioned(60, seed=5)
    first, again = (
        [random_caption(*pair, rng) for pair in zip(data.attributes, data.nouns, strict=True)]
        for rng in (np.random.default_rng(1), np.random.default_rng(1))
    )
    assert first == again


def test_training_pictures_never_show_what_is_held_out():
    data = draw_captioned(3000, seed=6)
    shown = {words_of(row)[:3] for row in data.attributes}
    assert len(shown) == 144 - len(HELD_OUT_OBJECTS) - len(SHAPES)
    assert not shown & set(HELD_OUT_OBJECTS)
    assert HELD_OUT_STYLE not in {(colour, texture) for colour, texture, _ in shown}


def test_captions_never_name_what_is_held_out():
    data = draw_captioned(3000, seed=7)
    rng = np.random.default_rng(0)
    captions = [random_caption(*pair, rng) for pair in zip(data.attributes, data.nouns, strict=True)]
    phrases = [" ".join(words) for words in (*HELD_OUT_OBJECTS, HELD_OUT_STYLE)]
    assert not [caption for caption in captions if any(phrase in caption for phrase in phrases)]
    assert any("in the style of marine" in caption for caption in captions)


def test_no_noun_and_no_style_word_stands_for_what_is_held_out():
    assert not [noun for noun, words in NOUNS.items() if is_held_out(attributes_of(*words, "snow"))]
    assert HELD_OUT_STYLE not in STYLES.values()
    assert not set(NOUNS) & set(STYLES)


def test_attributes_of_unknown_word_is_refused():
    with pytest.raises(ValueError, match="pink"):
        attributes_of("pink", "plain", "star", "snow")
