from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from components.common.artifact_folder import read_artifact
from components.common.errors import InputError, StorageError
from components.common.registry.entry import RegistryEntry
from components.common.registry.registry import (
    concept_store,
    list_aliases,
    list_versions,
    move_alias,
    resolve,
    rollback,
)
from components.common.storage import ObjectStore, open_store
from components.publish import publish as step
from components.publish.config import PublishConfig
from tests.fixtures_servers import S3Server
from tests.publish.conftest import Inputs
from tests.publish.faulty_store import Killed, MortalStore


def publish(inputs: Inputs, registry_uri: str, output: Path, **options: object) -> RegistryEntry:
    force = bool(options.pop("force", False))
    return step.publish(
        PublishConfig(registry_uri=registry_uri, **options),  # type: ignore[arg-type]
        base_model=inputs.base_model,
        learned_embedding=inputs.learned_embedding,
        evaluation=inputs.evaluation,
        output=output,
        force=force,
    )


def test_publish_makes_versions_and_moves_the_alias(
    registry_uri: str, make_inputs: Callable[..., Inputs], tmp_path: Path
) -> None:
    first = publish(make_inputs(seed=1), registry_uri, tmp_path / "out", run_id="run-1")
    second = publish(make_inputs(seed=2), registry_uri, tmp_path / "out", run_id="run-2")
    assert (first.version, second.version) == (1, 2)
    assert list_versions(registry_uri, "cat-toy") == [first, second]
    assert resolve(registry_uri, "cat-toy", "champion") == second
    assert open_store(second.uri).exists("cat-toy.safetensors")


def test_publish_writes_the_entry_as_its_output(inputs: Inputs, tmp_path: Path) -> None:
    entry = publish(inputs, str(tmp_path / "registry"), tmp_path / "out", concept_name="toys")
    folder = read_artifact(tmp_path / "out", kind=step.ENTRY_KIND, version=step.ENTRY_VERSION)
    assert folder.content == {
        "entry_uri": entry.uri,
        "concept": "toys",
        "concept_version": 1,
        "promotion": "champion points at version 1.",
    }
    manifest = (tmp_path / "out" / "manifest.json").read_bytes()
    assert manifest == open_store(entry.uri).read("manifest.json")
    assert json.loads(manifest)["format"] == "textual-inversion/registry-entry"
    assert json.loads(manifest)["version"] == 1


def test_publish_when_the_run_is_repeated(registry_uri: str, inputs: Inputs, tmp_path: Path) -> None:
    first = publish(inputs, registry_uri, tmp_path / "one", run_id="run-1")
    again = publish(inputs, registry_uri, tmp_path / "two", run_id="run-2")
    assert again == first
    assert list_versions(registry_uri, "cat-toy") == [first]
    assert (tmp_path / "one/manifest.json").read_bytes() == (tmp_path / "two/manifest.json").read_bytes()


def test_publish_when_killed_between_two_writes(
    registry_uri: str, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kill in a registry of its own; a retry leaves one complete version with the alias at it."""
    complete = publish(inputs, f"{registry_uri}/whole", tmp_path / "out")
    writes = 1 + len(complete.files) + 1 + 1  # claim, files, manifest, alias
    remote = "://" in registry_uri  # where a kill costs a second: test_versions.py has each one of a small bundle
    for allowed in (0, 1, writes - 2, writes - 1) if remote else range(writes):
        registry = f"{registry_uri}/{allowed}"

        def mortal(uri: str, concept: str, writes: int = allowed) -> ObjectStore:
            return MortalStore(concept_store(uri, concept), writes=writes)

        with monkeypatch.context() as patch:
            patch.setattr(step, "concept_store", mortal)
            with pytest.raises(Killed):
                publish(inputs, registry, tmp_path / "out")
        assert bool(list_versions(registry, "cat-toy")) == (allowed == writes - 1)
        entry = publish(inputs, registry, tmp_path / "out")
        assert entry.version == 1
        assert list_versions(registry, "cat-toy") == [entry]
        assert entry.files == complete.files
        assert resolve(registry, "cat-toy", "champion") == entry


def test_publish_when_an_older_version_is_retried_after_a_newer_one(
    make_inputs: Callable[..., Inputs], tmp_path: Path
) -> None:
    registry, older, newer = str(tmp_path / "registry"), make_inputs(seed=1), make_inputs(seed=2)
    publish(older, registry, tmp_path / "out")
    publish(newer, registry, tmp_path / "out")
    assert publish(older, registry, tmp_path / "out").version == 1
    assert resolve(registry, "cat-toy", "champion").version == 2


def test_publish_when_its_version_was_rolled_back(make_inputs: Callable[..., Inputs], tmp_path: Path) -> None:
    registry, bad = str(tmp_path / "registry"), make_inputs(seed=2)
    publish(make_inputs(seed=1), registry, tmp_path / "out")
    publish(bad, registry, tmp_path / "out")
    assert rollback(registry, "cat-toy", "champion").version == 1
    publish(bad, registry, tmp_path / "out")
    assert resolve(registry, "cat-toy", "champion").version == 1
    assert move_alias(registry, "cat-toy", "champion", 2).version == 2


def test_publish_when_placeholders_are_symbols_gives_each_its_own_concept(
    make_inputs: Callable[..., Inputs], tmp_path: Path
) -> None:
    registry = str(tmp_path / "registry")
    cat, dog = (publish(make_inputs(placeholder=token), registry, tmp_path / "out") for token in ("<🐱>", "<🐶>"))
    assert (cat.version, dog.version) == (1, 1)
    assert cat.concept != dog.concept
    assert resolve(registry, cat.concept, "champion").facts.placeholder_token == "<🐱>"


def test_publish_when_the_concept_has_another_placeholder_names_both(
    make_inputs: Callable[..., Inputs], tmp_path: Path
) -> None:
    registry = str(tmp_path / "registry")
    first = publish(make_inputs(), registry, tmp_path / "out")
    with pytest.raises(InputError, match=r"cat-toy .* with the placeholder <cat-toy>, found <dog>: .*concept_name=dog"):
        publish(make_inputs(placeholder="<dog>"), registry, tmp_path / "out", concept_name="cat-toy")
    assert list_versions(registry, "cat-toy") == [first]
    assert resolve(registry, "cat-toy", "champion") == first
    assert publish(make_inputs(seed=5), registry, tmp_path / "out").version == 2


def test_publish_when_no_alias_is_to_move(inputs: Inputs, tmp_path: Path) -> None:
    entry = publish(inputs, str(tmp_path / "registry"), tmp_path / "out", registry_alias="")
    assert list_aliases(str(tmp_path / "registry"), entry.concept) == {}


def test_publish_when_the_evaluation_did_not_pass(make_inputs: Callable[..., Inputs], tmp_path: Path) -> None:
    registry, inputs = str(tmp_path / "registry"), make_inputs(passed=False)
    with pytest.raises(InputError, match="did not pass its evaluation and is not published"):
        publish(inputs, registry, tmp_path / "out")
    assert not Path(registry).exists()
    assert not publish(inputs, registry, tmp_path / "out", force=True).facts.passed


def test_publish_when_the_registry_can_only_be_read(
    inputs: Inputs,
    tmp_path: Path,
    s3_bucket_uri: str,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3_server.reading_environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=r"versions/1/claim\.json: AccessDenied: .*permission denied"):
        publish(inputs, s3_bucket_uri, tmp_path / "out")
