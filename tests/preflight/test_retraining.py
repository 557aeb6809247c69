"""Whether preflight lets a run go on: by what changed since the champion was learned."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from components.common.artifacts import LEARNED_EMBEDS
from components.common.errors import ConfigError
from components.common.registry.aliases import set_alias
from components.common.registry.registry import concept_store
from components.common.words import configs_of
from components.preflight.options import check_options
from components.preflight.preflight import Checked, preflight
from components.publish.config import PublishConfig
from tests.preflight.test_more_words import PER_WORD
from tests.preflight.test_preflight import given, publish_rows, told

__all__ = ["given"]

STEPS = ("import_base_model", "import_scorer", *PER_WORD)


@pytest.fixture
def changed_only(given: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a run that trains if something changed."""
    return {**given, "retrain_if": "changed"}


def learn(options: dict[str, Any], value: float = 0.5) -> Checked:
    """What preflight gives a run, whose rows are published as it says and become the champion."""
    checked = preflight(options)
    (config,) = configs_of(PublishConfig, checked.publish)
    publish_rows(options["storage_uri"], value, learned_from=config.learned_from)
    return checked


def test_run_that_would_learn_the_same_tells_no_step_anything(changed_only: dict[str, Any]):
    first = learn(changed_only)
    assert first.decision == "trains: no champion yet"
    assert all(getattr(first, name) for name in STEPS)
    again = preflight({**changed_only, "evaluation_prompts": ["a {}"], "license": "mit", "log_steps": 3})
    assert again.decision == "nothing to do: the champion (version 1) was learned from the same"
    assert {name: getattr(again, name) for name in STEPS} == dict.fromkeys(STEPS, "")
    differing = {name for name, value in vars(first).items() if getattr(again, name) != value}
    assert differing == {"decision", *STEPS}


def test_run_that_always_trains_says_so_and_keeps_nothing_for_a_comparison(given: dict[str, Any]):
    checked = preflight(given)
    assert checked.decision == "trains: retrain_if is always"
    assert told(checked, "publish")["learned_from"] == {}


def _another_picture(folder: Path) -> dict[str, Any]:
    Image.fromarray(np.ones((8, 8, 3), np.uint8)).save(folder / "images" / "2.png")
    return {}


def _another_base_model(folder: Path) -> dict[str, Any]:
    with (folder / "model" / "model_index.json").open("a") as file:
        file.write("\n")
    return {}


def _rows_to_start_from(folder: Path) -> dict[str, Any]:
    safetensors.numpy.save_file({"<old>": np.ones((1, 96), np.float32)}, folder / "old.safetensors")
    return {"initializer_embedding": str(folder / "old.safetensors")}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_another_picture, r"pictures [0-9a-f]{12}\.\.\. -> [0-9a-f]{12}\.\.\."),
        (_another_base_model, r"base_model [0-9a-f]{12}\.\.\. -> [0-9a-f]{12}\.\.\."),
        (
            _rows_to_start_from,
            r"initializer_embedding none -> .+, initializer_embedding_sha256 none -> [0-9a-f]{12}\.\.\.",
        ),
        (lambda _: {"max_train_steps": 7, "seed": 3}, r"max_train_steps 5000 -> 7, seed 0 -> 3"),
        (lambda _: {"learning_rate": 0.25, "scale_lr": False}, r"peak_learning_rate 0.0001 -> 0.25"),
        (
            lambda _: {"initializer_token": "star", "num_vectors": 2},
            r"initializer_token circle -> star, num_vectors 1 -> 2",
        ),
        (lambda _: {"resolution": 16, "center_crop": True}, r"center_crop False -> True, resolution 32 -> 16"),
        (lambda _: {"loss_type": "huber"}, r"loss_type not set -> huber"),
    ],
)
def test_what_changed_is_named_with_both_values(
    changed_only: dict[str, Any], tmp_path: Path, change: Callable[[Path], dict[str, Any]], said: str
):
    learn(changed_only)
    checked = preflight({**changed_only, **change(tmp_path)})
    assert checked.train
    start = "trains: changed since the champion (version 1) was learned: "
    assert checked.decision.startswith(start)
    assert re.fullmatch(said, checked.decision.removeprefix(start)), checked.decision


def test_scorer_counts_where_it_finds_the_start_word(changed_only: dict[str, Any], tmp_path: Path):
    learn(changed_only)
    learn({**changed_only, "initializer_token": "auto"}, 0.25)
    (tmp_path / "clip" / "more.txt").write_text("another state of the model")
    assert preflight(changed_only).decision.startswith("nothing to do")
    assert "scorer " in preflight({**changed_only, "initializer_token": "auto"}).decision


def test_candidate_that_lost_is_not_learned_again(changed_only: dict[str, Any]):
    learn(changed_only)
    learn({**changed_only, "seed": 3}, 0.25)
    store = concept_store(f"{changed_only['storage_uri']}/registry", "dot")
    set_alias(store, "champion", 1)
    assert preflight({**changed_only, "seed": 3}).decision == (
        "nothing to do: version 2 was learned from the same and is not the champion (version 1)"
    )
    assert preflight({**changed_only, "seed": 4}).train


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (None, "the champion (version 1) does not say what it was learned from"),
        ("aliases/champion.json", "the champion cannot be used: "),
        ("versions/1/manifest.json", "the champion (version 1) cannot be used: "),
    ],
)
def test_champion_that_does_not_say_counts_as_changed(
    changed_only: dict[str, Any], tmp_path: Path, damaged: str | None, said: str
):
    publish_rows(changed_only["storage_uri"], 0.5)
    if damaged:
        (tmp_path / "storage" / "registry" / "dot" / damaged).write_bytes(b"{")
    checked = preflight(changed_only)
    assert checked.train and checked.decision.startswith(f"trains: {said}")


def test_of_several_words_the_one_that_changed_is_named(changed_only: dict[str, Any], tmp_path: Path):
    learn(changed_only)
    shutil.copytree(tmp_path / "images", tmp_path / "others")
    both = {**changed_only, "more_words": {"<art>": {"images_uri": str(tmp_path / "others")}}}
    checked = preflight(both)
    assert checked.decision == (
        "trains: <dot>: the champion (version 1) was learned from the same; <art>: no champion yet"
    )
    records = [config.learned_from for config in configs_of(PublishConfig, checked.publish)]
    assert [record["placeholder_token"] for record in records] == ["<dot>", "<art>"]
    assert json.loads(checked.train)


@pytest.mark.parametrize("option", [{"retrain_if": "changed"}, {"initializer_embedding": "champion"}])
def test_alias_is_needed_where_the_champion_is(given: dict[str, Any], option: dict[str, str]):
    with pytest.raises(ConfigError, match=f"{next(iter(option))}: found .* without registry_alias"):
        check_options({**given, **option, "registry_alias": ""})


def test_word_starts_from_its_champion_where_there_is_one(
    changed_only: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    warm = {**changed_only, "initializer_embedding": "champion"}
    with caplog.at_level(logging.INFO):
        first = preflight(warm)
    assert "there is no champion yet: the word starts from initializer_token" in caplog.text
    entry = publish_rows(warm["storage_uri"], 0.5, learned_from=told(first, "publish")["learned_from"])
    assert told(first, "add_the_new_word")["initializer_embedding"] == ""
    assert preflight(warm).decision.startswith("nothing to do: "), "the champion's own rows are no change"
    second = preflight({**warm, "seed": 3})
    assert second.decision.endswith("was learned: seed 0 -> 3")
    gains = [told(checked, "sample_and_score")["min_clip_i_gain"] for checked in (first, second)]
    assert gains == [0.02, -1.0], "what starts from the champion is held against it, and asked for no gain over it"
    assert told(second, "add_the_new_word") == {
        **told(first, "add_the_new_word"),
        "initializer_embedding": f"{entry.uri}/{LEARNED_EMBEDS}",
        "initializer_embedding_sha256": entry.files[LEARNED_EMBEDS].sha256,
    }


@pytest.mark.parametrize(("width", "promote_if"), [(97, "not_worse"), (97, "always"), (96, "not_worse")])
def test_alias_that_will_stay_is_told_of_before_anything_is_trained(
    given: dict[str, Any], caplog: pytest.LogCaptureFixture, width: int, promote_if: str
):
    publish_rows(given["storage_uri"], 0.5, width=width)
    preflight({**given, "promote_if": promote_if})
    told = "the champion (version 1) is for other text encoders than the base model's: it stays where it is"
    assert (told in caplog.text) is (width == 97 and promote_if != "always")


@pytest.mark.parametrize("unfit", ["damaged", "of another width"])
def test_word_starts_as_usual_where_its_champion_cannot_be_used(
    given: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, unfit: str
):
    publish_rows(given["storage_uri"], 0.5, width=96 if unfit == "damaged" else 97)
    if unfit == "damaged":
        (tmp_path / "storage" / "registry" / "dot" / "versions" / "1" / LEARNED_EMBEDS).write_bytes(b"{")
    checked = preflight({**given, "initializer_embedding": "champion"})
    assert told(checked, "add_the_new_word")["initializer_embedding"] == ""
    assert "the champion (version 1) cannot be used, and the word starts from initializer_token: " in caplog.text
