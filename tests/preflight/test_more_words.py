"""More words of a run: each is checked as the first one is, and each step is told of all."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.common.errors import ConfigError, InputError
from components.common.words import configs_of
from components.evaluate.config import EvaluateConfig
from components.ingest_images.config import IngestConfig
from components.init_embedding.config import InitConfig
from components.preflight.options import check_options
from components.preflight.preflight import preflight
from components.publish.config import PublishConfig
from components.train.config import TrainStepConfig
from tests.preflight.test_preflight import SPRITES, given

__all__ = ["given"]

PER_WORD = (
    "prepare_pictures",
    "prepare_scoring_set",
    "encode_pictures",
    "find_the_start_word",
    "add_the_new_word",
    "train",
    "sample_and_score",
    "publish",
)


@pytest.fixture
def others(tmp_path: Path) -> str:
    """The pictures of another word."""
    (tmp_path / "others").mkdir()
    Image.fromarray(np.ones((8, 8, 3), np.uint8)).save(tmp_path / "others" / "1.png")
    return str(tmp_path / "others")


def test_each_step_is_told_of_every_word_what_it_is_told_of_it_alone(given: dict[str, Any], others: str):
    own = {
        "images_uri": others,
        "num_vectors": 2,
        "learnable_property": "style",
        "concept_name": "art",
        "evaluation_prompts": ["a {}"],
    }
    given = {**given, "seed": 7, "evaluation_reference_prompt": "a dot", "concept_name": "dot-x"}
    both = dataclasses.asdict(preflight({**given, "more_words": json.dumps({"<art>": own})}))
    first = dataclasses.asdict(preflight(given))
    alone = {**given, "evaluation_reference_prompt": "", "placeholder_token": "<art>", **own}
    second = dataclasses.asdict(preflight(alone))
    for name in PER_WORD:
        assert json.loads(both[name]) == [json.loads(first[name]), json.loads(second[name])]
        assert both[name] == f"[{first[name]},{second[name]}]"
    assert {name: value for name, value in both.items() if name not in PER_WORD} == {
        name: value for name, value in first.items() if name not in PER_WORD
    }


def test_what_a_word_has_not_of_its_own_is_the_first_words_or_nothing(given: dict[str, Any], others: str):
    first = {
        "scoring_images_uri": str(SPRITES / "concepts" / "purple-dotted-star" / "scoring"),
        "concept_name": "dot-x",
        "evaluation_reference_prompt": "a dot",
        "evaluation_prompts": ["a red {}"],
        "num_vectors": 2,
    }
    checked = preflight({**given, **first, "more_words": {"<art>": {"images_uri": others}}})
    scoring = configs_of(IngestConfig, checked.prepare_scoring_set)[1]
    word = configs_of(InitConfig, checked.add_the_new_word)[1]
    judged = configs_of(EvaluateConfig, checked.sample_and_score)[1]
    assert (scoring.images_uri, judged.reference_prompt) == (others, "")
    assert (word.placeholder_token, word.initializer_token, word.num_vectors) == ("<art>", "circle", 2)
    assert judged.prompts == ("a red {}",)
    assert configs_of(PublishConfig, checked.publish)[1].concept_name == ""
    assert configs_of(TrainStepConfig, checked.train)[1] == configs_of(TrainStepConfig, checked.train)[0]


def test_run_of_one_word_is_told_what_it_was_told_before_there_were_more(given: dict[str, Any]):
    checked = preflight({**given, "more_words": {}, "storage_uri": "/tmp/storage", "images_uri": given["images_uri"]})
    assert checked == preflight({**given, "storage_uri": "/tmp/storage"})
    assert "more_words" not in json.dumps(dataclasses.asdict(checked))


@pytest.mark.parametrize(
    ("more_words", "told"),
    [
        ({"<dot>": {"images_uri": "x"}}, r'more_words["<dot>"].placeholder_token: found <dot>, which is a token of'),
        ({"<DOT>": {"images_uri": "x"}}, r'more_words["<DOT>"].placeholder_token: found <DOT>, which is a token of'),
        (
            {"<b>": {"images_uri": "x", "concept_name": "dot"}},
            r"""more_words["<b>"].concept_name: found 'dot', under""",
        ),
        ({"<b>": {}}, r'more_words["<b>"].images_uri: found nothing, expected the pictures of this word'),
        ({"<b>": {"images_uri": "x", "seed": 3}}, r'more_words["<b>"].seed: no option that a word has of its own'),
        ({"<b>": {"images_uri": "x", "num_vectors": 0}}, r'more_words["<b>"].num_vectors: found 0, expected 1 or more'),
        (
            {"<b c>": {"images_uri": "x"}},
            r"""more_words["<b c>"].placeholder_token: found '<b c>', expected one""",
        ),
        ({"<b>": "x"}, r"more_words: found 'x' for <b>, expected its options by name"),
        ("[]", r"more_words: found"),
    ],
)
def test_word_that_cannot_be_right_is_named(given: dict[str, Any], more_words: Any, told: str):
    with pytest.raises(ConfigError) as raised:
        check_options(given, {"more_words": more_words})
    assert any(mistake.startswith(told) for mistake in raised.value.mistakes), raised.value.mistakes


@pytest.mark.parametrize(
    "changes",
    [
        {"validation_prompt": "a {}"},
        {"report_to": "wandb"},
        {"report_to": "all"},
        {"resume_from_checkpoint": "step-00000500"},
        {"cuda_graphs": True, "early_stopping_every": 5},
    ],
)
def test_what_cannot_be_done_with_several_words_is_refused(given: dict[str, Any], changes: Mapping[str, Any]):
    check_options({**given, **changes})
    with pytest.raises(ConfigError, match=f"{next(iter(changes))}: found .* more_words"):
        check_options({**given, **changes}, {"more_words": {"<b>": {"images_uri": "x"}}})


def test_mistake_of_the_run_is_told_once(given: dict[str, Any]):
    with pytest.raises(ConfigError) as raised:
        check_options({**given, "seed": -1}, {"more_words": {"<b>": {"images_uri": "x", "num_vectors": -1}}})
    assert raised.value.mistakes == (
        "seed: found -1, expected 0 or more and at most 9007199254740991",
        'more_words["<b>"].num_vectors: found -1, expected 1 or more',
    )


def test_sources_of_all_words_are_told_at_once(given: dict[str, Any], others: str):
    shutil.rmtree(given["images_uri"])
    words = {
        "<b>": {"images_uri": "/nothing/b", "scoring_images_uri": "/nothing/scoring"},
        "<c>": {"images_uri": others, "initializer_token": "circumference"},
    }
    with pytest.raises(InputError) as raised:
        preflight({**given, "more_words": words})
    starts = [
        "images_uri: ",
        'more_words["<b>"].images_uri: ',
        'more_words["<b>"].scoring_images_uri: ',
        'more_words["<c>"].initializer_token: ',
    ]
    for start in starts:
        assert any(mistake.startswith(start) for mistake in raised.value.mistakes), raised.value.mistakes
    assert len(raised.value.mistakes) == len(starts)
    with pytest.raises(ConfigError) as raised_with_options:
        preflight({**given, "seed": -1, "more_words": words})
    assert any(mistake.startswith(starts[1]) for mistake in raised_with_options.value.mistakes)


def test_more_than_a_step_can_be_told_is_refused(given: dict[str, Any], others: str):
    words = {f"<w{number}>": {"images_uri": others} for number in range(2)}
    prompts = ["a {} " + "photo " * 15] * 450
    preflight({**given, "evaluation_prompts": prompts})
    with pytest.raises(ConfigError, match=r"more_words: found \d+ bytes that the step sample_and_score would be told"):
        preflight({**given, "evaluation_prompts": prompts, "more_words": words})


def test_fingerprints_are_each_words_own(given: dict[str, Any], others: str):
    checked = preflight({**given, "more_words": {"<b>": {"images_uri": others}}})
    prints = [each.images_fingerprint for each in configs_of(IngestConfig, checked.prepare_pictures)]
    assert len(set(prints)) == 2
