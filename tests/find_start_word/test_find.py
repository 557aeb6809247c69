"""The start word is the one that explains the pictures best; a given one is measured."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from kfp import dsl

from components.common.artifacts import ImageSet, LatentSet
from components.common.base_model import materialize, read_reference
from components.common.errors import ArtifactError, ConfigError, TokenError
from components.common.start_word import StartWord
from components.common.tokenizer import limit_to_text_encoder
from components.common.vocabulary import load_tokenizer, one_token_words
from components.find_start_word import find
from components.find_start_word.candidates import nearest_words, whole_words
from components.find_start_word.component import find_start_word as face
from components.find_start_word.config import FindStartWordConfig
from components.torch_models.clip_scorer import ClipScorer
from components.torch_models.denoising_loss import PromptLosses, held_out_loss
from components.torch_models.sampling import load_pipeline
from tests.find_start_word.conftest import Inputs
from tests.torch_runs import family_in

CPU = torch.device("cpu")
SPRITES = Path(__file__).parents[2] / "examples" / "sprites"


def measure(inputs: Inputs, output: Path, word: str) -> StartWord:
    config = FindStartWordConfig(initializer_token=word, accelerator="cpu")
    return find.find_start_word(config, **dataclasses.asdict(inputs), output=output)


def test_word_when_given_is_measured_and_those_worse_than_none_are_warned_of(
    inputs: Inputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        star = measure(inputs, tmp_path / "star", "star")
        assert not caplog.messages
        circle = measure(inputs, tmp_path / "circle", "circle")
    assert star.was_given and star.word == "star" and star.best == {}
    assert star.loss < star.no_word_loss == circle.no_word_loss < circle.loss
    assert StartWord.read(tmp_path / "star") == dataclasses.replace(
        star, digest=StartWord.read(tmp_path / "star").digest
    )
    assert star.base_model_digest == read_reference(inputs.base_model).digest
    assert star.latent_set_digest == LatentSet.read(inputs.latent_set).digest
    [warning] = caplog.messages
    told = f"no word at all (loss {circle.loss:.4f} against {circle.no_word_loss:.4f}); of some general words '"
    assert f"initializer_token: 'circle' explains the pictures worse than {told}" in warning
    assert warning.endswith("so choose another word, or auto")


def test_layers_that_training_leaves_out_are_left_out(inputs: Inputs, tmp_path: Path) -> None:
    def losses(clip_skip: int) -> list[float]:
        config = FindStartWordConfig(initializer_token="star", accelerator="cpu", clip_skip=clip_skip)
        found = find.find_start_word(config, **dataclasses.asdict(inputs), output=tmp_path / str(clip_skip))
        return [found.loss, found.no_word_loss]

    assert all(with_all != without for with_all, without in zip(losses(0), losses(1), strict=True))
    with pytest.raises(ConfigError, match="clip_skip: found 12, expected less than"):
        losses(12)


def test_words_when_several_are_measured_together(inputs: Inputs, tmp_path: Path) -> None:
    assert measure(inputs, tmp_path, "purple star").loss < measure(inputs, tmp_path, "star").loss


def test_best_words_are_those_of_least_loss(inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["circle", "purple", "grass", "star", "the", "heart"]
    monkeypatch.setattr(find, "whole_words", lambda tokenizer: words)
    found = measure(inputs, tmp_path / "out", "auto")
    assert not found.was_given and found.word == "star" == next(iter(found.best))
    assert set(found.best) == set(words) and list(found.best.values()) == sorted(found.best.values())
    assert found.loss == pytest.approx(measure(inputs, tmp_path / "star", "star").loss, rel=1e-6)
    assert list(StartWord.read(tmp_path / "out").best.items()) == list(found.best.items())


@pytest.mark.parametrize("clip_skip", [0, 1])
def test_loss_of_a_word_is_that_of_the_evaluation(inputs: Inputs, clip_skip: int) -> None:
    model = materialize(read_reference(inputs.base_model))
    tokenizers = {"text_encoder": limit_to_text_encoder(load_tokenizer(model / "tokenizer"), model / "text_encoder")}
    latents = LatentSet.read(inputs.latent_set)
    looked_at = {"strata": 20, "template": "a photo of a {}", "max_pictures": 9, "clip_skip": clip_skip}
    losses = PromptLosses(model, family_in(model), tokenizers, latents, device=CPU, **looked_at)
    pictures = ImageSet.read(inputs.image_set).pixels
    pipeline = load_pipeline(model, device=CPU, dtype=torch.float32)
    for word in ("star", ""):
        expected = held_out_loss(pipeline, pictures, f"a photo of a {word}".strip(), clip_skip=clip_skip)
        assert losses.loss(word) == pytest.approx(expected, rel=1e-4)
    parts = [losses.loss("star", [stratum]) for stratum in range(20)]
    assert np.mean(parts) == pytest.approx(losses.loss("star"), rel=1e-5)


def test_whole_words_are_words_of_captions_and_no_pieces() -> None:
    tokenizer = load_tokenizer(SPRITES / "base_model" / "tokenizer")
    words = whole_words(tokenizer)
    assert {"purple", "star", "ladybug", "windmill"} <= set(words) < set(one_token_words(tokenizer))
    assert {"hoto", "ellow", "dybug", "ing", "quare"}.isdisjoint(words)
    assert len(words) < find.NEAREST, "CLIP is not asked about so few"


def test_nearest_words_are_those_that_clip_finds_like_the_pictures(inputs: Inputs) -> None:
    clip = ClipScorer(SPRITES / "clip", device=CPU)
    pictures = ImageSet.read(inputs.image_set).pixels
    words = ["grass", "heart", "star", "red", "purple", "lime"]
    found = nearest_words(words, pictures, clip, template="a photo of a {}", count=2)
    assert set(found) == {"star", "purple"}


def test_best_word_of_a_large_vocabulary_is_among_those_nearest_to_the_pictures(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "NEAREST", 5)
    found = measure(inputs, tmp_path, "auto")
    assert len(found.best) == 5 and found.word in ("star", "purple")
    assert found.loss < found.no_word_loss


def test_word_when_unknown_is_refused_before_the_model_is_loaded(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(TokenError, match=r"initializer_token: 'zebra' is \d tokens"):
        measure(inputs, tmp_path / "out", "zebra")
    with pytest.raises(ConfigError, match="initializer_token: found ''"):
        FindStartWordConfig(initializer_token="")
    assert not (tmp_path / "out").exists()


def test_pictures_when_other_ones_were_encoded_are_refused(inputs: Inputs, tmp_path: Path) -> None:
    images = ImageSet.read(inputs.image_set)
    dataclasses.replace(images, pictures=images.pictures[:1], pixels=images.pixels[:1], masks=(None,)).write(tmp_path)
    with pytest.raises(ArtifactError, match=r"the latent set was made from the pictures .*, this step got"):
        measure(dataclasses.replace(inputs, image_set=tmp_path), tmp_path / "out", "star")


def test_component_says_what_it_found(inputs: Inputs, tmp_path: Path) -> None:
    output = dsl.Artifact(name="start_word", uri=str(tmp_path / "out"))
    face.python_func(
        FindStartWordConfig(initializer_token="star", accelerator="cpu").to_json(),
        **{name: dsl.Artifact(name=name, uri=str(path)) for name, path in dataclasses.asdict(inputs).items()},
        start_word=output,
    )
    found = StartWord.read(tmp_path / "out")
    assert output.metadata == {
        "display_name": "Start word",
        "word": "star",
        "loss": found.loss,
        "no_word_loss": found.no_word_loss,
    }
