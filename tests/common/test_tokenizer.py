"""Prompts are as long as the text encoder takes, whatever a tokenizer says of itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.common.artifacts import InitialEmbedding
from components.common.errors import BaseModelError
from components.common.tokenizer import limit_to_text_encoder
from components.common.training.prompt_ids import load_tokenizers, training_prompt_ids

MODEL = Path(__file__).parents[2] / "examples" / "sprites" / "base_model"
POSITIONS = 24  # of the tiny model's text encoder


def model_saying(folder: Path, length: int | None) -> Path:
    """The tiny model, whose tokenizer says `length`, or none."""
    shutil.copytree(MODEL, folder)
    file = folder / "tokenizer" / "tokenizer_config.json"
    content = json.loads(file.read_text())
    del content["model_max_length"]
    file.write_text(json.dumps(content | ({} if length is None else {"model_max_length": length})))
    return folder


def tokenizer_of(model: Path) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(model / "tokenizer", local_files_only=True)


@pytest.mark.parametrize(("said", "expected"), [(None, POSITIONS), (77, POSITIONS), (POSITIONS, POSITIONS), (16, 16)])
def test_length_when_limited_is_the_shorter_one(said: int | None, expected: int, tmp_path: Path) -> None:
    model = model_saying(tmp_path / "model", said)
    assert limit_to_text_encoder(tokenizer_of(model), model / "text_encoder").model_max_length == expected


@pytest.mark.parametrize("config", ["{}", "[]", "{cut off", '{"max_position_embeddings": null}'])
def test_length_when_the_text_encoder_does_not_tell_is_refused(config: str, tmp_path: Path) -> None:
    model = model_saying(tmp_path / "model", None)
    (model / "text_encoder" / "config.json").write_text(config)
    told = r"text_encoder/config\.json (does not say max_position_embeddings|is no JSON|holds a list)"
    with pytest.raises(BaseModelError, match=told):
        limit_to_text_encoder(tokenizer_of(model), model / "text_encoder")


def training_ids(model: Path) -> np.ndarray:
    tokenizer = tokenizer_of(model)
    embedding = InitialEmbedding(
        placeholder_token="<x>",
        tokens=("<x>",),
        token_ids=(len(tokenizer),),
        initializer_token="circle",
        initializer_token_id=1,
        rows={"text_encoder": np.zeros((1, 96), np.float32)},
        base_model_digest="",
    )
    return training_prompt_ids(load_tokenizers(model, embedding), embedding, "object")["text_encoder"]


def flax_ids(model: Path) -> np.ndarray:
    from components.flax_models.devices import mesh_for
    from components.flax_models.pipeline import FlaxPipeline

    return FlaxPipeline(model, mesh=mesh_for("cpu")).prompt_ids(["a red circle", "circle " * 40])["text_encoder"]


def torch_picture(model: Path) -> np.ndarray:
    import torch

    from components.torch_models.sampling import SamplingConfig, load_pipeline, sample

    pipeline = load_pipeline(model, device=torch.device("cpu"), dtype=torch.float32)
    return sample(pipeline, ["a red circle", "circle " * 40], [0, 1], SamplingConfig(num_inference_steps=2))[1]


def torch_held_out_loss(model: Path) -> np.ndarray:
    import torch

    from components.torch_models.denoising_loss import held_out_loss
    from components.torch_models.sampling import load_pipeline

    pipeline = load_pipeline(model, device=torch.device("cpu"), dtype=torch.float32)
    return np.array(held_out_loss(pipeline, [np.zeros((32, 32, 3), np.uint8)], "a red circle"))


@pytest.mark.parametrize("use", [training_ids, flax_ids, torch_picture, torch_held_out_loss])
def test_tokenizer_without_a_length_when_used_is_like_one_with_the_text_encoders(
    use: Callable[[Path], np.ndarray], tmp_path: Path
) -> None:
    np.testing.assert_array_equal(use(model_saying(tmp_path / "model", None)), use(MODEL))
