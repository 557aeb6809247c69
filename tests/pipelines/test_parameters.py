"""Options of a run as flags."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from pipelines.parameters import add_option_flags, given_options


def parsed(*flags: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_option_flags(parser, {})
    return given_options(parser.parse_args(flags))


def test_only_what_is_given_is_there():
    assert parsed() == {}
    assert parsed("--max-train-steps", "7", "--scale-lr") == {"max_train_steps": 7, "scale_lr": True}


def test_object_is_given_as_json():
    assert parsed("--accelerator-node-selector", '{"pool": "tpu"}') == {"accelerator_node_selector": {"pool": "tpu"}}


def test_what_is_no_json_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parsed("--accelerator-node-selector", "pool=tpu")
    assert "found 'pool=tpu', expected JSON" in capsys.readouterr().err


def test_prompts_are_texts_one_after_the_other_and_have_the_prefix_of_the_evaluation():
    texts = ["a {} on the snow", "{} on the beach", "{}"]
    assert parsed("--evaluation-prompts", *texts) == {"evaluation_prompts": texts}


def test_tolerations_are_a_list_of_objects_in_json():
    assert parsed("--accelerator-tolerations", '[{"key": "dedicated"}]') == {
        "accelerator_tolerations": [{"key": "dedicated"}]
    }
