from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest
from kfp import compiler, dsl

from components.common.errors import InputError
from components.publish.component import publish
from components.publish.config import PublishConfig
from tests.publish.conftest import Inputs, write_inputs


def run(inputs: Inputs, output: Path, **parameters: str) -> tuple[str, dsl.Artifact]:
    """The component's body as KFP calls it, on artifacts that lie in local folders."""
    entry = dsl.Artifact(name="registry_entry", uri=str(output))
    address = publish.python_func(
        base_model=dsl.Model(name="base_model", uri=str(inputs.base_model)),
        learned_embedding=dsl.Model(name="learned_embedding", uri=str(inputs.learned_embedding)),
        evaluation=dsl.Artifact(name="evaluation", uri=str(inputs.evaluation)),
        registry_entry=entry,
        **parameters,
    )
    return address, entry


def test_component_gives_the_address_and_describes_its_artifact(inputs: Inputs, tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    address, entry = run(inputs, tmp_path / "out", registry_uri=str(registry), run_id="run-1")
    assert address == f"{registry.as_uri()}/cat-toy/versions/1"
    assert entry.metadata == {
        "entry_uri": address,
        "concept": "cat-toy",
        "version": 1,
        "placeholder_token": "<cat-toy>",
    }
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_component_when_the_evaluation_did_not_pass(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inputs = write_inputs(tmp_path / "inputs", passed=False)
    with pytest.raises(SystemExit) as stop:
        run(inputs, tmp_path / "out", registry_uri=str(tmp_path / "registry"))
    assert stop.value.code == InputError.exit_code
    assert "publish failed: <cat-toy> did not pass its evaluation" in caplog.text


def test_component_takes_names_and_defaults_from_the_config() -> None:
    parameters = inspect.signature(publish.python_func).parameters
    for field in dataclasses.fields(PublishConfig):
        expected = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        assert parameters[field.name].default == expected, field.name


def test_component_compiles(tmp_path: Path) -> None:
    compiler.Compiler().compile(publish, str(tmp_path / "publish.yaml"))
    assert "components.publish.publish" in (tmp_path / "publish.yaml").read_text()
