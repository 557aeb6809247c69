"""The champion that preflight finds in a registry."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from components.common.champion import ChampionAddress
from components.common.errors import StorageError
from components.common.registry.aliases import set_alias
from components.common.registry.entry import Bundle, Facts
from components.common.registry.registry import concept_store
from components.common.registry.versions import publish_version
from components.preflight.champion import find_champion, judged_against
from components.publish.config import PublishOptions
from tests.fixtures_servers import S3Server
from tests.publish.conftest import registry_uri  # noqa: F401 - a fixture

FACTS = Facts(
    placeholder_token="<dot>",
    learnable_property="object",
    tokens=(),
    passed=True,
    reasons=(),
    scores={},
    lineage={},
)


def publish(registry: str, content: bytes = b"rows", concept: str = "dot") -> ChampionAddress:
    """The address of a version that the alias points at now."""
    store = concept_store(registry, concept)
    entry = publish_version(store, Bundle(concept=concept, facts=FACTS, files={"rows": content}), "run-1")
    set_alias(store, "champion", entry.version)
    return ChampionAddress(alias="champion", version=entry.version, uri=entry.uri, digest=entry.bundle_digest)


def judged(
    registry: str, options: PublishOptions | None = None, placeholder_token: str = "<dot>"
) -> ChampionAddress | None:
    """What a new version is held against."""
    options = options or PublishOptions()
    return judged_against(find_champion(registry, options, placeholder_token), options)


def test_champion_is_where_the_alias_points(registry_uri: str) -> None:  # noqa: F811
    assert judged(registry_uri) == ChampionAddress(alias="champion")
    first = publish(registry_uri)
    assert judged(registry_uri) == first
    second = publish(registry_uri, b"other rows")
    assert judged(registry_uri) == second != first
    named = PublishOptions(concept_name="dot", registry_alias="challenger")
    assert judged(registry_uri, named, "<other>") == ChampionAddress(alias="challenger")


@pytest.mark.parametrize("options", [{"promote_if": "always"}, {"registry_alias": ""}])
def test_nobody_looks_for_a_champion_that_nothing_depends_on(options: dict[str, str], tmp_path: Path) -> None:
    publish(str(tmp_path))
    assert judged(str(tmp_path), PublishOptions(**options)) is None


@pytest.mark.parametrize("damaged", ["aliases/champion.json", "versions/1/manifest.json"])
def test_damaged_champion_is_a_warning(damaged: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = publish(str(tmp_path))
    (tmp_path / "dot" / damaged).write_bytes(b"{")
    with caplog.at_level(logging.WARNING):
        found = judged(str(tmp_path))
    is_alias = damaged.startswith("aliases")
    assert found == ChampionAddress(alias="champion", **({} if is_alias else {"version": 1, "uri": whole.uri}))
    assert "judged alone" in caplog.text and damaged in caplog.text


def test_alias_of_a_version_that_is_gone_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    set_alias(concept_store(str(tmp_path), "dot"), "champion", 7)
    found = judged(str(tmp_path))
    assert found and (found.version, found.digest) == (7, "")
    assert "found no version 7" in caplog.text


def test_registry_that_cannot_be_read_is_an_error(
    s3_bucket_uri: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"aliases/champion\.json"):
        find_champion(s3_bucket_uri, PublishOptions(), "<dot>")
