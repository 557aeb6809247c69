"""Parameters of a compiled pipeline as flags."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from pipelines.parameters import add_parameter_flags, given_parameters

PIPELINE: dict[str, Any] = {
    "root": {
        "inputDefinitions": {
            "parameters": {
                "labels": {"parameterType": "STRUCT", "description": "labels", "defaultValue": {}},
                "entries": {"parameterType": "LIST", "description": "entries", "defaultValue": []},
            }
        }
    }
}


def parsed(*flags: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_parameter_flags(parser, PIPELINE)
    return given_parameters(parser.parse_args(flags), PIPELINE)


def test_object_is_given_as_json():
    assert parsed("--labels", '{"pool": "tpu"}') == {"labels": {"pool": "tpu"}}


@pytest.mark.parametrize("text", ["pool=tpu", '["tpu"]'])
def test_what_is_no_object_is_refused(text: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parsed("--labels", text)
    assert f"found {text!r}" in capsys.readouterr().err


def test_list_holds_texts_or_objects():
    texts = ["a {} on the snow", "{} on the beach", "{}"]
    assert parsed("--entries", *texts) == {"entries": texts}
    assert parsed("--entries", '{"key": "dedicated"}', "plain") == {"entries": [{"key": "dedicated"}, "plain"]}
