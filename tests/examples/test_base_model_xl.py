"""The committed Stable Diffusion XL draws what it is asked for, and obeys what it is told about size and crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from transformers import CLIPTokenizer

from examples.sprites.captions import full_caption
from examples.sprites.judge import agreement
from examples.sprites.samples import draw_samples
from examples.sprites.world import HELD_OUT_OBJECTS, PLACES, all_combinations, attributes_of

ROWS = np.stack(
    [attributes_of(*words, "grass") for words in HELD_OUT_OBJECTS] + [row for row in all_combinations()[::12]]
)
SNOW = np.array(PLACES["snow"])


def sticker_centre(picture: np.ndarray) -> np.ndarray:
    """The mean (row, column) of the pixels ``(32, 32, 3)`` that are not snow."""
    return np.argwhere(np.abs(picture.astype(int) - SNOW).max(axis=-1) > 40).mean(axis=0)


def test_samples_of_true_captions_show_what_they_say(base_model_xl: StableDiffusionXLPipeline):
    right = agreement(draw_samples(base_model_xl, [full_caption(row) for row in ROWS], seed=0), ROWS)
    assert {name: float(values.mean()) for name, values in right.items() if values.mean() < 0.9} == {}


@pytest.mark.parametrize(
    ("original_size", "top_left", "moved"),
    [
        ((32, 48), (0, 0), (0, 8)),
        ((32, 48), (0, 16), (0, -8)),
        ((96, 64), (16, 0), (-8, 0)),
        ((64, 96), (0, 8), (0, 0)),
    ],
)
def test_sticker_lies_where_the_crop_puts_it(
    base_model_xl: StableDiffusionXLPipeline,
    original_size: tuple[int, int],
    top_left: tuple[int, int],
    moved: tuple[int, int],
):
    captions = ["a photo of a blue plain circle on the snow"] * 4
    conditions = {"original_size": original_size, "crops_coords_top_left": top_left}
    pictures = draw_samples(base_model_xl, captions, seed=0, **conditions)
    centre = np.mean([sticker_centre(picture) for picture in pictures], axis=0)
    # What is cut off draws the mean of the rest back towards the middle.
    np.testing.assert_allclose(centre, 15.5 + np.array(moved) * 0.85, atol=2)


def test_no_caption_is_zeros(base_model_xl: StableDiffusionXLPipeline):
    _, negative, _, pooled = base_model_xl.encode_prompt("a photo of a star")
    assert negative.shape == (1, 24, 192)
    assert pooled.shape == (1, 64)
    assert not negative.any()
    assert not pooled.any()


def test_second_tokenizer_pads_with_another_token_of_the_same_vocabulary(sprites: Path):
    first, second = (CLIPTokenizer.from_pretrained(sprites / "base_model_xl" / f"tokenizer{n}") for n in ("", "_2"))
    assert first.get_vocab() == second.get_vocab()
    assert (first.pad_token, second.pad_token, second.pad_token_id) == ("<|endoftext|>", "!", 0)


def test_unet_has_another_depth_and_other_heads_at_each_level(base_model_xl: StableDiffusionXLPipeline):
    _, middle, deepest = base_model_xl.unet.down_blocks
    depths = [len(block.attentions[0].transformer_blocks) for block in (middle, deepest)]
    heads = [block.attentions[0].transformer_blocks[0].attn1.heads for block in (middle, deepest)]
    assert (depths, heads) == ([2, 1], [4, 8])
    assert isinstance(deepest.attentions[0].proj_in, torch.nn.Linear)
