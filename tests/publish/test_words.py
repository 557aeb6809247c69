"""Several words of a run: each is published or not by its own evaluation, and the run's summary tells of each."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import pytest
from kfp import dsl

from components.common.base_model import read_reference
from components.common.registry.registry import resolve
from components.common.words import config_text, word_folders, write_words
from components.import_base_model.importing import import_base_model
from components.publish.component import publish
from components.publish.config import PublishConfig
from pipelines.local_run import LocalRun
from pipelines.summary import summarize
from tests.model_folders import make_diffusion_folder
from tests.publish.conftest import Inputs, write_inputs

WORDS = {"<cat-toy>": True, "<b&w>": False, "<dog>": True}
"""Whether each has passed."""


@pytest.fixture
def several(tmp_path: Path) -> Inputs:
    """Artifacts of three words, of which the second did not pass."""
    model = make_diffusion_folder(tmp_path / "model")
    import_base_model(str(model), str(tmp_path / "store"), tmp_path / "reference")
    reference = read_reference(tmp_path / "reference")
    alone = [
        write_inputs(tmp_path / str(seed), seed=seed, placeholder=token, passed=passed, reference=reference)
        for seed, (token, passed) in enumerate(WORDS.items())
    ]
    for name in ("learned_embedding", "evaluation"):
        write_words(tmp_path / name, [functools.partial(shutil.copytree, getattr(each, name)) for each in alone])
    return Inputs(
        base_model=alone[0].base_model,
        learned_embedding=tmp_path / "learned_embedding",
        evaluation=tmp_path / "evaluation",
    )


def run(several: Inputs, folder: Path) -> tuple[str, dsl.Artifact]:
    """The component's body as KFP calls it."""
    entry = dsl.Artifact(name="registry_entry", uri=str(folder / "entry"))
    configs = [PublishConfig(registry_uri=str(folder / "registry"), concept_name=name) for name in ("", "", "hound")]
    answer = publish.python_func(
        config_text(configs),
        base_model=dsl.Model(name="base_model", uri=str(several.base_model)),
        learned_embedding=dsl.Model(name="learned_embedding", uri=str(several.learned_embedding)),
        evaluation=dsl.Artifact(name="evaluation", uri=str(several.evaluation)),
        registry_entry=entry,
        run_id="run-1",
    )
    return answer, entry


def test_word_that_did_not_pass_keeps_no_other_from_being_published(several: Inputs, tmp_path: Path) -> None:
    answer, entry = run(several, tmp_path)
    registry = (tmp_path / "registry").as_uri()
    assert answer.split("\n") == [
        f"<cat-toy>: {registry}/cat-toy/versions/1",
        "<b&w>: not published: CLIP-I 0.61 is below the 0.70 asked for.",
        f"<dog>: {registry}/hound/versions/1",
    ]
    assert entry.metadata["published"] == [True, False, True]
    assert resolve(registry, "hound", "champion").facts.placeholder_token == "<dog>"
    assert len(word_folders(tmp_path / "entry")) == 3
    assert run(several, tmp_path)[0] == answer
    assert sorted(path.name for path in (tmp_path / "registry").iterdir()) == ["cat-toy", "hound"]


def test_summary_tells_of_each_word(several: Inputs, tmp_path: Path) -> None:
    answer, _ = run(several, tmp_path)
    outputs = {
        "decision": "trains",
        "base_model": str(several.base_model),
        "learned_embedding": str(several.learned_embedding),
        "evaluation": str(several.evaluation),
        "published": answer,
    }
    ended = {"failures": (), "reused": (), "left_out": (), "folder": None}
    summary = summarize(LocalRun(outputs=outputs, seconds={"train": 1.0}, **ended))
    summary.write(tmp_path / "summary.json")
    told = json.loads((tmp_path / "summary.json").read_text())
    words = [told, *told["more_words"]]
    assert {word["placeholder_token"]: word["passed"] for word in words} == WORDS
    assert [word["registry_entry"] for word in words] == [
        str(tmp_path / "registry" / "cat-toy" / "versions" / "1"),
        None,
        str(tmp_path / "registry" / "hound" / "versions" / "1"),
    ]
    assert Path(words[2]["embedding"]).is_file() and Path(words[1]["report"]).is_file()
    shown = summary.for_people(str)
    assert [line for line in shown.split("\n") if line in WORDS] == list(WORDS)
    assert shown.count("not published     CLIP-I 0.61") == 1
