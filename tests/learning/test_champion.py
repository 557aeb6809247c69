"""Better than the champion on the tiny world: who takes the alias, by samples that are drawn and scored.

The candidates' rows are known: those of the words of a caption, as long as they are, halfway there, or far too long.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from transformers import CLIPTokenizer

from components.common.artifacts import Evaluation, InitialEmbedding, LearnedEmbedding
from components.common.base_model import read_reference
from components.common.champion import judged_in
from components.common.registry.aliases import read_alias
from components.common.registry.registry import concept_store, list_versions, resolve, verify
from components.evaluate.config import EvaluateConfig
from components.evaluate.evaluation import evaluate
from components.ingest_images.config import IngestConfig
from components.ingest_images.ingest import ingest_images
from components.preflight.champion import find_champion, judged_against
from components.publish.config import PublishConfig
from components.publish.step import Said, publish_if_learned
from examples.sprites.concepts import CONCEPTS
from examples.sprites.concepts import FOLDER as CONCEPT_FOLDER
from examples.sprites.learning import HERE, import_models
from examples.sprites.world import SIZE

STAR = CONCEPTS["purple-dotted-star"]
TOKENS = (STAR.placeholder_token, f"{STAR.placeholder_token}_1", f"{STAR.placeholder_token}_2")
EVALUATION = EvaluateConfig(
    prompts=("a photo of a {}", "a photo of a {} on the snow"),
    images_per_prompt=6,
    num_inference_steps=10,
    guidance_scale=2.5,
    sampling_batch_size=12,
    min_clip_i_gain=-1.0,
)


def rows_of(caption: str) -> np.ndarray:
    """The rows of a caption's three words, float32 [3, d]: together they mean what it says."""
    tokenizer = CLIPTokenizer.from_pretrained(HERE / "base_model" / "tokenizer")
    ids = tokenizer.encode(caption, add_special_tokens=False)
    assert len(ids) == len(TOKENS)
    with safe_open(HERE / "base_model" / "text_encoder" / "model.safetensors", framework="numpy") as weights:
        [name] = [key for key in weights.keys() if key.endswith("token_embedding.weight")]  # noqa: SIM118
        return np.asarray(weights.get_tensor(name)[ids], np.float32)


@dataclasses.dataclass(kw_only=True)
class Registry:
    """A registry, and all that it takes to publish rows in it as a run does."""

    folder: Path
    models: tuple[Path, Path]

    @property
    def options(self) -> PublishConfig:
        return PublishConfig(registry_uri=str(self.folder / "registry"), concept_name="star")

    @property
    def champion(self) -> int:
        return read_alias(concept_store(self.options.registry_uri, "star"), "champion").version

    def judge(self, name: str, rows: np.ndarray) -> Path:
        """The evaluation of the rows, held against who is champion now; they and it are kept under the name."""
        folder, base_model = self.folder / name, read_reference(self.models[0])
        initial = rows_of("red plain circle")
        InitialEmbedding(
            placeholder_token=STAR.placeholder_token,
            tokens=TOKENS,
            token_ids=(0, 1, 2),
            initializer_token=STAR.true_caption,  # which CLIP-T is measured with
            initializer_token_id=0,
            rows={"text_encoder": initial},
            base_model_digest=base_model.digest,
        ).write(folder / "initial")
        LearnedEmbedding(
            placeholder_token=STAR.placeholder_token,
            tokens=TOKENS,
            initializer_token=STAR.true_caption,  # which CLIP-T is measured with
            learnable_property="object",
            rows={"text_encoder": rows.astype(np.float32)},
            initial_rows={"text_encoder": initial},
            snapshots=(),
            losses=np.ones(1, np.float32),
            training_key=name,
            config={"max_train_steps": 1},
            lineage={"framework": "torch", "base_model_digest": base_model.digest},
        ).write(folder / "learned")
        found = find_champion(self.options.registry_uri, self.options, STAR.placeholder_token)
        address = judged_against(found, self.options)
        assert address
        evaluation = self.folder / f"{name}-against-{address.version}"
        evaluate(
            dataclasses.replace(EVALUATION, champion=dataclasses.asdict(address)),
            base_model=self.models[0],
            scorer=self.models[1],
            initial_embedding=folder / "initial",
            learned_embedding=folder / "learned",
            scoring_set=self.folder / "scoring",
            accelerator="cpu",
            output=evaluation,
        )
        return evaluation

    def publish(self, name: str, evaluation: Path) -> Said:
        """What the publishing step says of it."""
        learned, output = self.folder / name / "learned", self.folder / "entry"
        return publish_if_learned(
            self.options,
            base_model=self.models[0],
            learned_embedding=learned,
            evaluation=evaluation,
            output=output,
        )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty registry."""
    pictures = IngestConfig(images_uri=str(CONCEPT_FOLDER / STAR.name / "scoring"), resolution=SIZE)
    ingest_images(pictures, tmp_path / "scoring")
    return Registry(folder=tmp_path, models=import_models(tmp_path))


def test_alias_is_taken_by_the_better_and_kept_from_the_worse(registry: Registry) -> None:
    good, start = rows_of("purple dotted star"), rows_of("red plain circle")
    under_trained = start + 0.4 * (good - start)
    first = registry.publish("under-trained", registry.judge("under-trained", under_trained))
    assert (first.metadata["promoted"], registry.champion) == (True, 1)

    better = registry.publish("good", registry.judge("good", good))
    assert "It is better than the champion (version 1): CLIP-I +" in better.metadata["promotion"]
    assert (better.metadata["promoted"], registry.champion) == (True, 2)

    for version, (name, rows) in enumerate(
        {"over-trained": 100 * good, "other pictures": rows_of("orange striped heart")}.items(), 3
    ):
        said = registry.publish(name, registry.judge(name, rows))
        assert (said.metadata["version"], said.metadata["promoted"], registry.champion) == (version, False, 2), name
        assert "It is worse than the champion (version 2): CLIP-I -" in said.text
        assert resolve(registry.options.registry_uri, "star", version).facts.lineage["champion_verdict"] in said.text


def test_alias_does_not_go_back_and_forth_between_candidates_that_are_alike(registry: Registry) -> None:
    """Two trainings that came to the same rows: each is drawn alike, and a file of its own."""
    good = rows_of("purple dotted star")
    for name in ("good", "like it"):
        registry.publish(name, registry.judge(name, good))
    assert registry.champion == 2, "the newer of two that are alike"
    again = {name: registry.judge(name, good) for name in ("good", "like it")}
    for _ in range(10):
        said = {name: registry.publish(name, evaluation) for name, evaluation in again.items()}
        assert {name: each.metadata["version"] for name, each in said.items()} == {"good": 1, "like it": 2}
        assert registry.champion == 2
    judged = {name: judged_in(Evaluation.read(evaluation).settings) for name, evaluation in again.items()}
    assert judged["good"] and judged["good"].verdict == "not_worse"
    assert judged["like it"] and judged["like it"].alone == "it is the champion (version 2) itself"
    assert [entry.version for entry in list_versions(registry.options.registry_uri, "star")] == [1, 2]
    assert verify(registry.options.registry_uri, "star") == []
