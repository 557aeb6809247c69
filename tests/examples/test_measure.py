from __future__ import annotations

import numpy as np
from diffusers import StableDiffusionPipeline
from transformers import CLIPModel, CLIPTokenizer

from examples.sprites.captions import NOUNS, STYLES, every_word
from examples.sprites.measure import (
    Asked,
    Judged,
    asked_by_noun,
    asked_in_full,
    asked_in_style,
    clip_table,
    is_held_out_object,
    is_held_out_style,
    judge_captions,
    judge_table,
    weak_captions,
    wrong_in_one_word,
)
from examples.sprites.world import all_combinations, attributes_of, words_of


def test_full_captions_name_every_combination_once():
    asked = asked_in_full()
    assert len(set(asked.captions)) == 144
    for caption, row in zip(asked.captions, asked.attributes, strict=True):
        assert all(word in caption.split() for word in words_of(row))
    assert len({(colour, place) for colour, _, _, place in map(words_of, asked.attributes)}) == 8 * 4


def test_nouns_and_style_words_ask_for_what_they_stand_for():
    nouns, styles = asked_by_noun(), asked_in_style(STYLES)
    assert len(nouns.captions) == len(NOUNS)
    assert len(styles.captions) == 6 * len(STYLES)
    for caption, row in zip(nouns.captions, nouns.attributes, strict=True):
        _, _, _, _, noun, _, _, place = caption.split()
        assert (*NOUNS[noun], place) == words_of(row)
    for caption, row in zip(styles.captions, styles.attributes, strict=True):
        _, shape, _, _, _, _, style, _, _, place = caption.split()
        assert (*STYLES[style], shape, place) == words_of(row)
    assert {word for caption in (*nouns.captions, *styles.captions) for word in caption.split()} <= set(every_word())


def test_held_out_rows_are_five_objects_and_six_shapes():
    rows = all_combinations()
    assert is_held_out_object(rows).sum() == 5
    assert is_held_out_style(rows).sum() == 6


def test_wrong_rows_differ_in_one_attribute():
    row = attributes_of("red", "dotted", "square", "sky")
    wrong = wrong_in_one_word(row)
    assert (wrong != row).sum(axis=1).tolist() == [1] * (7 + 2 + 5 + 3)
    assert len({words_of(other) for other in wrong}) == 17


def test_tables_count_what_the_judge_said():
    right = np.ones((2, 2), bool)
    texture = np.array([[True, False], [True, False]])
    group = Judged(
        attributes=np.stack(
            [attributes_of("red", "plain", "star", "sky"), attributes_of("blue", "dotted", "star", "sky")]
        ),
        samples=np.zeros((2, 2, 32, 32, 3), np.uint8),
        right={"colour": right, "texture": texture, "shape": right, "place": right},
    )
    assert judge_table({"both": group, "second": group.only(np.array([False, True]))}).splitlines()[2:] == [
        "| both | 4 | 100.0% | 50.0% | 100.0% | 100.0% | 50.0% |",
        "| second | 2 | 100.0% | 0.0% | 100.0% | 100.0% | 0.0% |",
    ]
    assert weak_captions(group) == "blue dotted star: texture (2 of 2)"
    assert weak_captions(group.only(np.array([True, False]))) == "none"


def test_judged_captions_are_right_of_the_base_model_and_wrong_where_the_rows_are(base_model: StableDiffusionPipeline):
    caption = "a photo of a red plain star on the snow"
    rows = np.stack([attributes_of("red", "plain", "star", "snow"), attributes_of("blue", "dotted", "heart", "sky")])
    judged = judge_captions(base_model, Asked(captions=[caption] * 2, attributes=rows), seeds=2)
    assert judged.samples.shape == (2, 2, 32, 32, 3)
    for name, values in judged.right.items():
        np.testing.assert_array_equal(values, [[True, False]] * 2, err_msg=name)


def test_clip_table_has_all_pictures_in_one_of_three_groups(clip: tuple[CLIPModel, CLIPTokenizer]):
    counts = [int(line.split("|")[2]) for line in clip_table(*clip, per_combination=1).splitlines()[2:]]
    assert counts == [133 * 4, 5 * 4, 6 * 4]
