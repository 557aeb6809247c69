"""A fleet of concepts on this machine: one that is broken keeps no other from being published."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from components.common.registry import registry
from examples.sprites.concepts import FOLDER
from pipelines.cli import main

SHORT = {
    "max_train_steps": 3,
    "initializer_token": "circle",
    "evaluation_prompts": ["a photo of a {}"],
    "evaluation_images_per_prompt": 1,
    "evaluation_num_inference_steps": 2,
    "evaluation_min_clip_i_gain": -1,
    "evaluation_min_clip_i": 0,
    "evaluation_min_clip_t": 0,
}


def test_a_broken_concept_of_three_keeps_no_other_from_being_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    empty = tmp_path / "nothing"
    empty.mkdir()
    pictures = {"star": "purple-dotted-star", "heart": "orange-striped-heart"}
    concepts = {name: {"images_uri": str(FOLDER / folder / "training")} for name, folder in pictures.items()}
    concepts = {"star": concepts["star"], "broken": {"images_uri": str(empty)}, "heart": concepts["heart"]}
    for entry in concepts.values():
        entry["scoring_images_uri"] = entry["images_uri"]
    file = tmp_path / "concepts.yaml"
    file.write_text(yaml.safe_dump({"defaults": SHORT, "concepts": concepts}, sort_keys=False), encoding="utf-8")
    out = tmp_path / "out"
    assert main(["run", "--preset", "sprites", "--concepts", str(file), "--out", str(out)]) == 1
    star, broken, heart = capsys.readouterr().out.splitlines()[-3:]
    assert star.startswith("star ") and "published: " in star and "not published" not in star
    assert heart.startswith("heart ") and "published: " in heart and "not published" not in heart
    assert "failed: " in broken and f"found no picture in {empty.as_uri()}" in broken
    uri = (out / "storage" / "registry").as_uri()
    assert registry.list_concepts(uri) == ["heart", "star"]
    assert registry.resolve(uri, "heart", "champion").facts.placeholder_token == "<heart>"
