from __future__ import annotations

from pathlib import Path

from kfp import compiler, dsl

from components.publish.component import publish
from components.publish.config import PublishConfig
from components.publish.step import NOT_PUBLISHED
from tests.publish.conftest import Inputs, write_inputs


def run(inputs: Inputs, output: Path, **parameters: str) -> tuple[str, dsl.Artifact]:
    """The component's body as KFP calls it, on artifacts that lie in local folders."""
    entry = dsl.Artifact(name="registry_entry", uri=str(output))
    run_id = parameters.pop("run_id", "")
    address = publish.python_func(
        PublishConfig(**parameters).to_json(),
        base_model=dsl.Model(name="base_model", uri=str(inputs.base_model)),
        learned_embedding=dsl.Model(name="learned_embedding", uri=str(inputs.learned_embedding)),
        evaluation=dsl.Artifact(name="evaluation", uri=str(inputs.evaluation)),
        registry_entry=entry,
        run_id=run_id,
    )
    return address, entry


def test_component_gives_the_address_and_describes_its_artifact(inputs: Inputs, tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    address, entry = run(inputs, tmp_path / "out", registry_uri=str(registry), run_id="run-1")
    assert address == f"{registry.as_uri()}/cat-toy/versions/1"
    assert entry.metadata == {
        "display_name": "Registry entry",
        "published": True,
        "entry_uri": address,
        "concept": "cat-toy",
        "version": 1,
        "placeholder_token": "<cat-toy>",
        "promoted": True,
        "promotion": "champion points at version 1.",
    }
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_component_when_the_evaluation_did_not_pass_publishes_nothing_and_says_why(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path / "inputs", passed=False)
    answer, entry = run(inputs, tmp_path / "out", registry_uri=str(tmp_path / "registry"))
    assert answer.startswith(NOT_PUBLISHED) and answer.removeprefix(NOT_PUBLISHED) == entry.metadata["reasons"] != ""
    assert entry.metadata["published"] is False
    assert (tmp_path / "out" / "artifact.json").is_file()
    assert not (tmp_path / "registry").exists()


def test_component_compiles(tmp_path: Path) -> None:
    compiler.Compiler().compile(publish, str(tmp_path / "publish.yaml"))
    assert "components.publish.step" in (tmp_path / "publish.yaml").read_text()
