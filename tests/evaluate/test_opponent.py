"""The champion beside the candidate: drawn as it is, compared pair by pair, or left out with a reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.common.artifacts import LEARNED_EMBEDS, Evaluation, LearnedEmbedding
from components.common.base_model import read_reference
from components.common.champion import ChampionAddress, judged_in
from components.common.registry.entry import Bundle, Facts
from components.common.registry.versions import publish_version
from components.common.storage import open_store
from components.evaluate.config import EvaluateConfig
from components.evaluate.drawing.painter import painter_for
from components.evaluate.drawing.samples import draw_samples
from components.evaluate.evaluation import metrics_of
from components.evaluate.opponent import Opponent, find_opponent, with_champion
from components.evaluate.scoring.scores import VariantScores
from tests.evaluate.conftest import Concept, World, write_concept
from tests.evaluate.test_evaluation import pixels_of, run

QUICK = EvaluateConfig(prompts=("a photo of a {}",), images_per_prompt=2, num_inference_steps=2)


def published(world: World, concept: Concept, folder: Path, **lineage: Any) -> ChampionAddress:
    """A version of a registry in `folder`: the concept's file and what is said of it."""
    learned = LearnedEmbedding.read(concept.learned_embedding)
    facts = Facts(
        placeholder_token=learned.placeholder_token,
        learnable_property=learned.learnable_property,
        tokens=learned.tokens,
        passed=True,
        reasons=(),
        scores={},
        lineage={"base_model_digest": read_reference(world.base_model).digest, **lineage},
    )
    files = {LEARNED_EMBEDS: (concept.learned_embedding / LEARNED_EMBEDS).read_bytes()}
    store = open_store(str(folder / "registry" / "concept"))
    entry = publish_version(store, Bundle(concept="concept", facts=facts, files=files), "run-1")
    return ChampionAddress(alias="champion", version=1, uri=entry.uri, digest=entry.bundle_digest)


@pytest.fixture(scope="module")
def candidate(world: World, tmp_path_factory: pytest.TempPathFactory) -> Concept:
    return write_concept(world, tmp_path_factory.mktemp("candidate"), vectors=2, steps=1)


@pytest.fixture(scope="module")
def other(world: World, tmp_path_factory: pytest.TempPathFactory) -> Concept:
    """Another concept, of one vector."""
    return write_concept(world, tmp_path_factory.mktemp("other"), moved=0.5, steps=1)


def test_champion_is_drawn_from_the_same_shots_and_compared_pair_by_pair(
    world: World, candidate: Concept, other: Concept, tmp_path: Path
) -> None:
    address = published(world, other, tmp_path)
    config = dataclasses.replace(QUICK, min_clip_i_gain=-1.0, champion=dataclasses.asdict(address))
    written = run(world, candidate, tmp_path / "out", config)
    found = Evaluation.read(tmp_path / "out")

    after, champion = ([s for s in found.samples if s.variant == variant] for variant in ("after", "champion"))
    assert [(s.prompt, s.seed) for s in champion] == [(s.prompt, s.seed) for s in after] and len(after) == 2
    assert (pixels_of(found, "champion") != pixels_of(found, "after")).any()
    judged = judged_in(found.settings)
    assert judged == judged_in(written.settings)
    assert judged and (judged.version, judged.digest, judged.alone) == (1, address.digest, "")
    metrics = metrics_of(found)
    assert list(judged.gain) == ["clip_i", "clip_t", "together"]
    after_scores, champion_scores = (
        {**found.scores[name], "together": found.scores[name]["clip_i"] + found.scores[name]["clip_t"]}
        for name in ("after", "champion")
    )
    for metric, gain in judged.gain.items():
        assert gain.value == pytest.approx(after_scores[metric] - champion_scores[metric])
        assert gain.low <= gain.value <= gain.high
        assert metrics[f"{metric}_over_champion"] == gain.value
    for told in ("version 1", "above the champion", judged.sentence[:40]):
        assert told in found.report_html
    assert found.passed and found.reasons == ()


def test_champion_of_the_same_rows_draws_the_same_pictures(world: World, candidate: Concept, tmp_path: Path) -> None:
    """It is another file; with the layers that it was learned without it draws others."""
    learned, painter = LearnedEmbedding.read(candidate.learned_embedding), painter_for("cpu")(world.model)
    drawn = draw_samples(painter, QUICK, learned, candidate.learned_embedding)
    for clip_skip in (0, 1):
        folder = tmp_path / str(clip_skip)
        same = write_concept(world, folder, vectors=2, steps=2, clip_skip=clip_skip)
        opponent = opponent_of(world, candidate, published(world, same, folder))
        beside = with_champion(drawn, painter, QUICK, learned, opponent)
        assert list(beside.variants) == ["before", "after", "champion"]
        assert beside.variants["after"] is drawn.variants["after"]
        pairs = zip(beside.variants["after"], beside.variants["champion"], strict=True)
        assert all((after.pixels == champion.pixels).all() for after, champion in pairs) == (clip_skip == 0)


def test_scores_that_are_alike_are_not_worse_and_have_no_gain(
    world: World, candidate: Concept, other: Concept, tmp_path: Path
) -> None:
    opponent = opponent_of(world, candidate, published(world, other, tmp_path))
    scores = VariantScores(clip_i=np.linspace(0, 1, 5), clip_t=np.linspace(0, 1, 5))
    judged = opponent.compared({"after": scores, "champion": scores}, seed=0)
    assert judged.verdict == "not_worse"
    assert {(gain.low, gain.value, gain.high) for gain in judged.gain.values()} == {(0, 0, 0)}
    better = VariantScores(clip_i=scores.clip_i + 0.1, clip_t=scores.clip_t)
    assert opponent.compared({"after": better, "champion": scores}, seed=0).verdict == "better"
    assert opponent.compared({"after": scores, "champion": better}, seed=0).verdict == "worse"


def test_candidate_that_is_the_champion_is_judged_alone(world: World, candidate: Concept, tmp_path: Path) -> None:
    opponent = opponent_of(world, candidate, published(world, candidate, tmp_path))
    assert opponent.rows == {}
    assert opponent.compared({}, seed=0).sentence == "It was judged alone: it is the champion (version 1) itself."


@pytest.mark.parametrize("damage", ["file", "missing file", "manifest", "missing manifest", "other version", "unread"])
def test_damaged_champion_is_told_and_the_candidate_judged_alone(
    damage: str,
    world: World,
    candidate: Concept,
    other: Concept,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = published(world, other, tmp_path)
    store = open_store(address.uri)
    match damage:
        case "file":
            store.write(LEARNED_EMBEDS, store.read(LEARNED_EMBEDS)[:-1] + b"\xff")
        case "missing file":
            store.delete(LEARNED_EMBEDS)
        case "manifest":
            store.write("manifest.json", b"{")
        case "missing manifest":
            store.delete("manifest.json")
        case "other version":
            address = dataclasses.replace(address, digest="0" * 64)
        case "unread":
            address = dataclasses.replace(address, digest="")
    opponent = opponent_of(world, candidate, address)
    assert opponent.judged.sentence == "It was judged alone: the champion (version 1) could not be used."
    assert not opponent.judged.on_another_model
    assert "the champion (version 1) cannot be used, and the candidate is judged alone: " in caplog.text


def test_champion_on_another_base_model_is_told_and_the_candidate_judged_alone(
    world: World, candidate: Concept, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = published(world, candidate, tmp_path, base_model_digest="0" * 64)
    assert opponent_of(world, candidate, address).alone == "the champion (version 1) was learned on another base model"
    assert "learned on another base model" in caplog.text
    found = opponent_of(world, candidate, address).judged
    assert found.on_another_model and not found.of_another_kind


def test_champion_for_other_text_encoders_is_of_another_kind(world: World, candidate: Concept, tmp_path: Path) -> None:
    learned = LearnedEmbedding.read(candidate.learned_embedding)
    of_two = dataclasses.replace(learned, rows={**learned.rows, "text_encoder_2": np.ones((2, 8), np.float32)})
    address = published(world, candidate, tmp_path)
    found = find_opponent(address, of_two, candidate.learned_embedding, "0" * 64).judged
    assert found.on_another_model and found.of_another_kind


def test_concept_without_a_champion_is_judged_alone(world: World, candidate: Concept) -> None:
    opponent = opponent_of(world, candidate, ChampionAddress(alias="champion"))
    assert opponent.judged.sentence == "It was judged alone: the concept had no champion."


def opponent_of(world: World, candidate: Concept, address: ChampionAddress) -> Opponent:
    learned = LearnedEmbedding.read(candidate.learned_embedding)
    return find_opponent(address, learned, candidate.learned_embedding, read_reference(world.base_model).digest)
