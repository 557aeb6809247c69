"""A publisher that is killed at any write while a champion is there: its retry leaves a whole registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from components.common.registry.aliases import read_alias
from components.common.registry.registry import concept_store, list_versions, verify
from components.common.storage import ObjectStore
from components.publish import publish as step
from components.publish.config import PublishConfig
from components.publish.step import Said, publish_if_learned
from tests.publish.conftest import (
    Inputs,
    judged_against,
    registry_uri,  # noqa: F401 - a fixture
    write_inputs,
)
from tests.publish.faulty_store import Killed, MortalStore


def publish(inputs: Inputs, registry: str, output: Path) -> Said:
    return publish_if_learned(PublishConfig(registry_uri=registry), **vars(inputs), output=output)


def publish_and_die(
    inputs: Inputs, registry: str, output: Path, writes: int, monkeypatch: pytest.MonkeyPatch
) -> Said | None:
    """What the publisher says; None when it was killed after so many writes."""

    def mortal(uri: str, concept: str) -> ObjectStore:
        return MortalStore(concept_store(uri, concept), writes=writes)

    with monkeypatch.context() as patch:
        patch.setattr(step, "concept_store", mortal)
        try:
            return publish(inputs, registry, output)
        except Killed:
            return None


def champion(registry: str) -> int:
    return read_alias(concept_store(registry, "cat-toy"), "champion").version


@pytest.mark.parametrize("gain", [0.5, -0.5], ids=["wins", "loses"])
def test_retry_leaves_one_version_and_the_alias_where_the_verdict_wants_it(
    gain: float,
    registry_uri: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count_faults: Callable[[int, str], None],
) -> None:
    """Each kill in a registry of its own, whose champion is version 1."""
    first = write_inputs(tmp_path / "first", seed=1, judged=judged_against(0))
    candidate = write_inputs(tmp_path / "candidate", seed=2, judged=judged_against(1, clip_i=gain))
    publish(first, f"{registry_uri}/whole", tmp_path / "out")
    publish(candidate, f"{registry_uri}/whole", tmp_path / "out")
    files = len(list_versions(f"{registry_uri}/whole", "cat-toy")[1].files)
    writes = 1 + files + 1 + (gain > 0)  # claim, files, manifest, alias
    remote = "://" in registry_uri  # where a kill costs seconds: the claim, the manifest and the alias are tried there
    kills = (0, 1, writes - 2, writes - 1) if remote else range(writes)
    count_faults(len(kills), "publishers killed beside a champion")
    for allowed in kills:
        registry = f"{registry_uri}/{allowed}"
        publish(first, registry, tmp_path / "out")
        assert publish_and_die(candidate, registry, tmp_path / "out", allowed, monkeypatch) is None
        assert champion(registry) == 1, "the alias moves last"
        for _ in range(2):
            said = publish(candidate, registry, tmp_path / "out")
            assert (said.metadata["version"], said.metadata["promoted"]) == (2, gain > 0)
            assert champion(registry) == (2 if gain > 0 else 1)
        assert verify(registry, "cat-toy") == []
    last = f"{registry_uri}/last"
    publish(first, last, tmp_path / "out")
    assert publish_and_die(candidate, last, tmp_path / "out", writes, monkeypatch), "there is no further write"
