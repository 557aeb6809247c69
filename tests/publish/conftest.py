"""Artifacts to publish, and a registry on every kind of storage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.common.artifacts import Evaluation, LearnedEmbedding, Sample
from components.common.base_model import ModelFile, ModelReference, write_reference
from components.common.champion import SETTING, TOGETHER, Gain, Judged

REFERENCE = ModelReference(
    source="hf://stable-diffusion-v1-5/stable-diffusion-v1-5@main",
    repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
    revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    kind="diffusion",
    variant="",
    store="gs://bucket/models",
    files={"model_index.json": ModelFile(sha256="ab" * 32, size=541)},
)
PROMPTS = ("a photo of a <cat-toy>", "a <cat-toy> with a city | river in the background")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Folders of the artifacts that the step takes."""

    base_model: Path
    learned_embedding: Path
    evaluation: Path


def write_inputs(
    folder: Path,
    *,
    seed: int = 0,
    passed: bool = True,
    placeholder: str = "<cat-toy>",
    sdxl: bool = False,
    reference: ModelReference = REFERENCE,
    training: Mapping[str, Any] | None = None,
    judged: Judged | None = None,
    width: int = 8,
) -> Inputs:
    """Artifacts of an embedding whose rows depend on `seed`, with an evaluation of just this embedding.

    The evaluation held it against the champion that `judged` tells of.
    """
    inputs = Inputs(
        base_model=folder / "base_model",
        learned_embedding=folder / "learned_embedding",
        evaluation=folder / "evaluation",
    )
    generator = np.random.default_rng(seed)
    widths = {"text_encoder": width, "text_encoder_2": 12} if sdxl else {"text_encoder": width}
    rows = {name: generator.normal(size=(2, width)).astype(np.float32) for name, width in widths.items()}
    write_reference(reference, inputs.base_model)
    learned = LearnedEmbedding(
        placeholder_token=placeholder,
        tokens=(placeholder, f"{placeholder}_1"),
        initializer_token="toy",
        learnable_property="object",
        rows=rows,
        initial_rows={name: np.zeros_like(value) for name, value in rows.items()},
        snapshots=(),
        losses=np.linspace(0.2, 0.1, 3000, dtype=np.float32),
        training_key="key-of-training",
        config={"learning_rate": 5e-4, "scale_lr": True, "seed": seed, "train_batch_size": 1, **(training or {})},
        lineage={
            "framework": "torch",
            "devices": "1 x cpu",
            "base_model": reference.source,
            "base_model_digest": reference.digest,
            "image_set_digest": "12" * 32,
            "latent_set_digest": "34" * 32,
            "plan_version": 1,
        },
    ).write(inputs.learned_embedding)
    Evaluation(
        placeholder_token=placeholder,
        passed=passed,
        reasons=() if passed else ("CLIP-I 0.61 is below the 0.70 asked for.",),
        scores={"before": {"clip_i": 0.55, "clip_t": 0.31}, "after": {"clip_i": 0.78, "clip_t": 0.29}},
        settings={
            "num_inference_steps": 50,
            "guidance_scale": 7.5,
            **({SETTING: dataclasses.asdict(judged)} if judged else {}),
        },
        samples=tuple(
            Sample(
                variant=variant,
                prompt=prompt.replace("<cat-toy>", placeholder),
                seed=picture_seed,
                pixels=generator.integers(0, 255, (8, 8, 3), np.uint8),
            )
            for variant in ("before", "after")
            for prompt in PROMPTS
            for picture_seed in range(3)
        ),
        report_html="<!doctype html><title>report</title>",
        learned_embedding_digest=learned.digest,
    ).write(inputs.evaluation)
    return inputs


def judged_against(version: int, *, clip_i: float = 0.0, clip_t: float = 0.0, digest: str = "d" * 64) -> Judged:
    """What a candidate was held against whose scores are so much above the champion's, give or take 0.01.

    Version 0 stands for no champion.
    """
    scores = {"clip_i": clip_i, "clip_t": clip_t, TOGETHER: clip_i + clip_t}
    gains = {name: Gain(value=gain, low=gain - 0.01, high=gain + 0.01) for name, gain in scores.items()}
    alone = "" if version else "the concept had no champion"
    return Judged(alias="champion", version=version, digest=digest, gain=gains if version else {}, alone=alone)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """Artifacts to publish."""
    return write_inputs(tmp_path / "inputs")


@pytest.fixture
def make_inputs(tmp_path: Path) -> Callable[..., Inputs]:
    """Makes artifacts; see `write_inputs`."""
    made = iter(range(100))
    return lambda **options: write_inputs(tmp_path / f"inputs-{next(made)}", **options)


@pytest.fixture(params=["file", "gs", "s3"])
def registry_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A registry in a local folder, on fake-gcs-server and on SeaweedFS."""
    if request.param == "file":
        return str(tmp_path / "registry")
    return request.getfixturevalue({"gs": "gcs_bucket_uri", "s3": "s3_bucket_uri"}[request.param])
