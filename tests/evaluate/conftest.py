"""A small world to evaluate in: a base model with random weights, a scorer, and the steps' artifacts."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import CLIPTextModel, CLIPTokenizer

from components.common.artifacts import ImageSet, InitialEmbedding, LearnedEmbedding, Snapshot
from components.common.base_model import CACHE_VARIABLE, read_reference
from components.common.prompts import placeholder_tokens
from tests.conftest import imported
from tests.evaluate.contents import image_set, learned_embedding


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """Folders of what the step takes that does not change from test to test."""

    base_model: Path
    scorer: Path
    scoring_set: Path
    model: Path


@pytest.fixture(scope="session")
def world(tiny_sd15: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A base model of 64 x 64 pixels, a scorer, and a scoring set of three pictures."""
    model = tmp_path_factory.mktemp("small") / "model"
    shutil.copytree(tiny_sd15, model)
    unet_config = model / "unet" / "config.json"
    unet_config.write_text(json.dumps({**json.loads(unet_config.read_text()), "sample_size": 8}))
    scoring_set = tmp_path_factory.mktemp("scoring") / "set"
    image_set(3).write(scoring_set)
    return World(
        base_model=imported(model, tmp_path_factory),
        scorer=imported(tiny_clip, tmp_path_factory, kind="clip"),
        scoring_set=scoring_set,
        model=model,
    )


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@dataclasses.dataclass(frozen=True, kw_only=True)
class Concept:
    """Folders of a concept's two embeddings."""

    initial_embedding: Path
    learned_embedding: Path


def write_concept(
    world: World,
    folder: Path,
    *,
    vectors: int = 1,
    steps: int = 4,
    moved: float = 1.0,
    token: str = "<concept>",
    initializer: str = "toy",
    clip_skip: int = 0,
) -> Concept:
    """A concept begun from the word `initializer`, whose rows moved by noise of the deviation `moved`.

    It says that it was learned from the scoring set, and without the text encoder's last `clip_skip` layers.
    """
    tokenizer = CLIPTokenizer.from_pretrained(world.model / "tokenizer")
    [token_id] = tokenizer.encode(initializer, add_special_tokens=False)
    table = CLIPTextModel.from_pretrained(world.model / "text_encoder").get_input_embeddings().weight
    row = table[token_id].detach().numpy()
    initial = np.repeat(row[None], vectors, axis=0)
    rows = (initial + np.random.default_rng(0).normal(0, moved, initial.shape)).astype(np.float32)
    tokens = placeholder_tokens(token, vectors)
    digest = read_reference(world.base_model).digest
    InitialEmbedding(
        placeholder_token=token,
        tokens=tokens,
        token_ids=tuple(range(len(tokenizer), len(tokenizer) + vectors)),
        initializer_token=initializer,
        initializer_token_id=token_id,
        rows={"text_encoder": initial},
        base_model_digest=digest,
    ).write(folder / "initial")
    halfway = Snapshot(step=steps // 2, rows={"text_encoder": (initial + rows) / 2})
    changes: dict[str, Any] = {
        "tokens": tokens,
        "rows": {"text_encoder": rows},
        "initial_rows": {"text_encoder": initial},
        "snapshots": (halfway,) if steps else (),
    }
    learned: LearnedEmbedding = learned_embedding(token=token, steps=steps)
    config = {**learned.config, "clip_skip": clip_skip}
    lineage = {**learned.lineage, "image_set_digest": ImageSet.read(world.scoring_set).digest}
    dataclasses.replace(learned, **changes, config=config, lineage=lineage).write(folder / "learned")
    return Concept(initial_embedding=folder / "initial", learned_embedding=folder / "learned")
