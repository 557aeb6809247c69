from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoConfig, CLIPTokenizer

from components.common.prompts import TEMPLATES
from examples.sprites.captions import NOUNS, PAINTING_TEMPLATES, STYLES, every_word
from examples.sprites.tokenizer import MAX_LENGTH, save_tokenizer, train_tokenizer
from examples.sprites.world import COLOURS, PLACES, SHAPES, TEXTURES


@pytest.fixture(scope="module", params=["trained", "base_model/tokenizer", "clip"])
def tokenizer(request: pytest.FixtureRequest, sprites: Path) -> CLIPTokenizer:
    """A fresh one, and the two that are committed."""
    return train_tokenizer() if request.param == "trained" else CLIPTokenizer.from_pretrained(sprites / request.param)


def test_every_word_is_one_token(tokenizer: CLIPTokenizer):
    words = {*COLOURS, *TEXTURES, *SHAPES, *PLACES, *NOUNS, *STYLES, *every_word()}
    assert {word: tokenizer.tokenize(word) for word in words if len(tokenizer.tokenize(word)) != 1} == {}


def test_templates_have_one_token_a_word(tokenizer: CLIPTokenizer):
    for template in (*TEMPLATES["object"], *TEMPLATES["style"], *PAINTING_TEMPLATES):
        caption = template.format("star")
        assert len(tokenizer.tokenize(caption)) == len(caption.replace("-", " - ").split())


def test_special_tokens_are_those_of_clip(tokenizer: CLIPTokenizer):
    start, *words, end = tokenizer("a star").input_ids
    assert [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token] == [
        "<|startoftext|>",
        "<|endoftext|>",
        "<|endoftext|>",
    ]
    assert (start, end) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert len(words) == 2
    assert tokenizer.model_max_length == MAX_LENGTH


def test_longest_template_leaves_room_for_several_vectors(tokenizer: CLIPTokenizer):
    longest = max(len(tokenizer(template.format("star")).input_ids) for template in TEMPLATES["style"])
    assert longest + 7 <= tokenizer.model_max_length


def test_committed_tokenizers_are_what_training_makes(sprites: Path):
    trained = train_tokenizer().get_vocab()
    assert CLIPTokenizer.from_pretrained(sprites / "base_model/tokenizer").get_vocab() == trained
    assert CLIPTokenizer.from_pretrained(sprites / "clip").get_vocab() == trained


def test_text_encoder_knows_where_the_text_ends(sprites: Path, tokenizer: CLIPTokenizer):
    for folder in ("base_model/text_encoder", "base_model_xl/text_encoder", "base_model_xl/text_encoder_2", "clip"):
        config = AutoConfig.from_pretrained(sprites / folder)
        text = getattr(config, "text_config", config)
        assert text.eos_token_id == tokenizer.eos_token_id
        assert text.bos_token_id == tokenizer.bos_token_id
        assert text.vocab_size == len(tokenizer)


def test_vocab_and_merges_read_as_the_same_tokenizer(tmp_path: Path):
    trained = train_tokenizer()
    save_tokenizer(trained, tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    reread = CLIPTokenizer.from_pretrained(tmp_path)
    caption = "a close-up photo of a yellow striped star in the style of marine"
    assert reread(caption).input_ids == trained(caption).input_ids
