"""The committed models do what the examples and the end-to-end tests need of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from transformers import CLIPModel, CLIPTokenizer

from examples.sprites.captions import full_caption
from examples.sprites.judge import agreement
from examples.sprites.measure import clip_is_right
from examples.sprites.samples import draw_samples
from examples.sprites.world import HELD_OUT_OBJECTS, HELD_OUT_STYLE, SHAPES, all_combinations, attributes_of

HELD_OUT = np.stack(
    [attributes_of(*words, "grass") for words in HELD_OUT_OBJECTS]
    + [attributes_of(*HELD_OUT_STYLE, shape, "sky") for shape in SHAPES]
)


def test_samples_of_true_captions_show_what_was_never_trained_on(base_model: StableDiffusionPipeline):
    right = agreement(draw_samples(base_model, [full_caption(row) for row in HELD_OUT], seed=0), HELD_OUT)
    assert {name: float(values.mean()) for name, values in right.items() if values.mean() < 0.9} == {}


def test_samples_of_true_captions_show_what_was_trained_on(base_model: StableDiffusionPipeline):
    rows = all_combinations()[::7]
    right = agreement(draw_samples(base_model, [full_caption(row) for row in rows], seed=1), rows)
    assert right["shape"].mean() >= 0.95
    assert right["colour"].mean() >= 0.9
    assert right["texture"].mean() >= 0.85
    assert right["place"].mean() >= 0.95


def test_samples_of_a_style_word_show_its_colour_and_texture(base_model: StableDiffusionPipeline):
    rows = np.stack([attributes_of("blue", "striped", shape, "snow") for shape in SHAPES])
    captions = [f"a {shape} in the style of marine on the snow" for shape in SHAPES]
    right = agreement(draw_samples(base_model, captions, seed=2), rows)
    assert {name: int(values.sum()) for name, values in right.items() if values.sum() < 5} == {}


def test_clip_finds_the_right_caption_among_those_wrong_in_one_word(clip: tuple[CLIPModel, CLIPTokenizer]):
    rows = np.concatenate([all_combinations()[::3], HELD_OUT])
    assert clip_is_right(*clip, rows, seed=31).mean() >= 0.95


def test_clip_finds_the_right_caption_of_what_it_was_never_trained_on(clip: tuple[CLIPModel, CLIPTokenizer]):
    assert clip_is_right(*clip, np.concatenate([HELD_OUT] * 4), seed=32).mean() >= 0.9


@pytest.mark.parametrize("folders", [("base_model", "clip"), ("base_model_xl",)])
def test_committed_weights_are_small_and_in_half_precision(sprites: Path, folders: tuple[str, ...]):
    files = [file for folder in folders for file in (sprites / folder).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 12e6
    weights = [file for file in files if file.suffix == ".safetensors"]
    assert len(weights) == 4
    for file in weights:
        with safe_open(file, framework="np") as tensors:
            assert {str(tensors.get_slice(key).get_dtype()) for key in tensors.keys()} <= {"F16", "I64"}  # noqa: SIM118


def test_base_model_is_a_v_prediction_model_without_a_safety_checker(sprites: Path):
    scheduler = json.loads((sprites / "base_model/scheduler/scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == "v_prediction"
    assert scheduler["beta_schedule"] == "linear"
    assert json.loads((sprites / "base_model/model_index.json").read_text())["safety_checker"] == [None, None]


@pytest.mark.parametrize("folder", ["base_model", "base_model_xl", "clip"])
def test_no_pickled_weights_are_committed(sprites: Path, folder: str):
    assert {file.suffix for file in (sprites / folder).rglob("*") if file.is_file()} == {
        ".json",
        ".txt",
        ".safetensors",
    }
