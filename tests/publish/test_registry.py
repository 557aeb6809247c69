from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.common.errors import (
    ArtifactError,
    ConfigError,
    InputError,
    ObjectNotFoundError,
    StorageError,
)
from components.common.registry import registry
from components.common.registry.entry import RegistryEntry
from components.common.storage import open_store
from components.publish.config import PublishConfig
from components.publish.publish import publish
from tests.fixtures_servers import S3Server
from tests.publish.conftest import Inputs
from tests.servers import AnsweringServer, running

Publisher = Callable[..., RegistryEntry]


@pytest.fixture
def publish_one(make_inputs: Callable[..., Inputs], tmp_path: Path) -> Publisher:
    """Publishes an embedding of its own for every seed."""

    def publish_one(registry_uri: str, seed: int = 0, **options: str) -> RegistryEntry:
        inputs = make_inputs(seed=seed)
        return publish(
            PublishConfig(registry_uri=registry_uri, **options),
            base_model=inputs.base_model,
            learned_embedding=inputs.learned_embedding,
            evaluation=inputs.evaluation,
            output=tmp_path / f"out-{seed}",
        )

    return publish_one


@pytest.fixture
def local_uri(tmp_path: Path) -> str:
    return str(tmp_path / "registry")


def test_resolve_takes_versions_and_aliases(registry_uri: str, publish_one: Publisher) -> None:
    first, second = publish_one(registry_uri, 1), publish_one(registry_uri, 2)
    assert registry.resolve(registry_uri, "cat-toy", 1) == first
    assert registry.resolve(registry_uri, "cat-toy", "1") == first
    assert registry.resolve(registry_uri + "/", "cat-toy", "champion") == second


def test_resolve_when_there_is_no_such_alias(local_uri: str, publish_one: Publisher) -> None:
    publish_one(local_uri)
    with pytest.raises(ObjectNotFoundError, match=r"found no alias 'staging' of .*, whose aliases are: champion"):
        registry.resolve(local_uri, "cat-toy", "staging")


def test_resolve_when_there_is_no_such_concept(registry_uri: str) -> None:
    with pytest.raises(ObjectNotFoundError, match=r"whose aliases are: none"):
        registry.resolve(registry_uri, "cat-toy", "champion")
    with pytest.raises(ObjectNotFoundError, match=r"found no version 1 at .*, which has no versions"):
        registry.resolve(registry_uri, "cat-toy", 1)
    assert registry.list_versions(registry_uri, "cat-toy") == []
    assert registry.list_concepts(registry_uri) == []


@pytest.mark.parametrize("name", ["0", "01", "../x", "-1", ""])
def test_resolve_when_it_is_neither_version_nor_alias(local_uri: str, name: str) -> None:
    with pytest.raises(ConfigError, match="alias"):
        registry.resolve(local_uri, "cat-toy", name)


def test_list_concepts_gives_each_once(registry_uri: str, publish_one: Publisher) -> None:
    for seed, concept in enumerate(["b-toy", "a-toy", "b-toy"]):
        publish_one(registry_uri, seed, concept_name=concept)
    assert registry.list_concepts(registry_uri) == ["a-toy", "b-toy"]


def test_fetch_gives_every_file(registry_uri: str, publish_one: Publisher, tmp_path: Path) -> None:
    entry = publish_one(registry_uri)
    folder = registry.fetch(entry, tmp_path / "fetched")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {*entry.files, "manifest.json"}
    store = open_store(entry.uri)
    assert all((folder / name).read_bytes() == store.read(name) for name in files)
    assert registry.fetch(entry, _empty(tmp_path / "empty")) == tmp_path / "empty"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "does not match the SHA-256"),
        (lambda data: data + b"x", "bytes, the manifest says"),
        (None, "is missing"),
    ],
)
def test_fetch_when_a_file_is_damaged(
    registry_uri: str,
    publish_one: Publisher,
    tmp_path: Path,
    damage: Callable[[bytes], bytes] | None,
    message: str,
) -> None:
    entry = publish_one(registry_uri)
    store = open_store(entry.uri)
    if damage is None:
        store.delete("cat-toy.safetensors")
    else:
        store.write("cat-toy.safetensors", damage(store.read("cat-toy.safetensors")))
    with pytest.raises(ArtifactError, match=rf"versions/1/cat-toy\.safetensors.* {message}"):
        registry.fetch(entry, tmp_path / "fetched")
    assert not [path for path in tmp_path.iterdir() if "fetched" in path.name]


def test_fetch_when_there_is_something_already(local_uri: str, publish_one: Publisher, tmp_path: Path) -> None:
    entry = publish_one(local_uri)
    (tmp_path / "file").write_text("mine")
    (_empty(tmp_path / "folder") / "mine").touch()
    for taken in (tmp_path / "file", tmp_path / "folder"):
        with pytest.raises(InputError, match="expected a folder that is new or empty"):
            registry.fetch(entry, taken)


def test_resolve_when_the_manifest_is_damaged(registry_uri: str, publish_one: Publisher) -> None:
    store = open_store(publish_one(registry_uri).uri)
    store.write("manifest.json", store.read("manifest.json").replace(b"cat-toy", b"dog-toy"))
    with pytest.raises(ArtifactError, match=r"versions/1/manifest\.json does not match its own digest"):
        registry.resolve(registry_uri, "cat-toy", "champion")
    assert registry.list_versions(registry_uri, "cat-toy") == []


def test_move_alias_when_the_version_is_absent(local_uri: str, publish_one: Publisher) -> None:
    publish_one(local_uri)
    with pytest.raises(ObjectNotFoundError, match="found no version 2"):
        registry.move_alias(local_uri, "cat-toy", "champion", 2)
    assert registry.list_aliases(local_uri, "cat-toy")["champion"].version == 1


def test_move_alias_to_where_another_alias_points(local_uri: str, publish_one: Publisher) -> None:
    publish_one(local_uri, 1)
    publish_one(local_uri, 2, registry_alias="candidate")
    assert registry.move_alias(local_uri, "cat-toy", "champion", "candidate").version == 2


def test_rollback_when_the_version_before_is_gone(local_uri: str, publish_one: Publisher) -> None:
    first, _ = publish_one(local_uri, 1), publish_one(local_uri, 2)
    open_store(first.uri).delete("manifest.json")
    with pytest.raises(ObjectNotFoundError, match="version 1 at"):
        registry.rollback(local_uri, "cat-toy", "champion")
    assert registry.resolve(local_uri, "cat-toy", "champion").version == 2


def test_rollback_when_there_is_nothing_before(local_uri: str, publish_one: Publisher) -> None:
    publish_one(local_uri)
    with pytest.raises(ObjectNotFoundError, match="nothing to roll back to"):
        registry.rollback(local_uri, "cat-toy", "champion")
    with pytest.raises(ObjectNotFoundError, match="found no alias 'staging'"):
        registry.rollback(local_uri, "cat-toy", "staging")


def test_publishers_of_the_whole_step_when_they_race(
    registry_uri: str, make_inputs: Callable[..., Inputs], tmp_path: Path
) -> None:
    everything = [make_inputs(seed=seed) for seed in (1, 2, 1, 3)]
    barrier = threading.Barrier(len(everything))

    def run(number: int) -> RegistryEntry:
        barrier.wait()
        return publish(
            PublishConfig(registry_uri=registry_uri, run_id=f"run-{number}"),
            base_model=everything[number].base_model,
            learned_embedding=everything[number].learned_embedding,
            evaluation=everything[number].evaluation,
            output=tmp_path / f"out-{number}",
        )

    with ThreadPoolExecutor(len(everything)) as pool:
        entries = list(pool.map(run, range(len(everything))))
    assert entries[0] == entries[2]
    assert sorted({entry.version for entry in entries}) == [1, 2, 3]
    assert registry.resolve(registry_uri, "cat-toy", "champion").version == 3


def test_check_registry_leaves_nothing(registry_uri: str) -> None:
    registry.check_registry(registry_uri)
    assert open_store(registry_uri).list() == []


def test_check_registry_when_it_can_only_be_read(
    s3_bucket_uri: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.reading_environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=r"the registry s3://.* cannot be written: .*permission denied"):
        registry.check_registry(s3_bucket_uri)


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_check_registry_when_there_is_no_bucket(request: pytest.FixtureRequest, scheme: str) -> None:
    request.getfixturevalue({"gs": "gcs_bucket_uri", "s3": "s3_bucket_uri"}[scheme])
    with pytest.raises(StorageError, match=r"cannot be written: .*there is no bucket no-such-bucket"):
        registry.check_registry(f"{scheme}://no-such-bucket/registry")


def test_check_registry_when_the_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "registry").write_text("mine")
    with pytest.raises(StorageError, match=r"the registry .* cannot be written"):
        registry.check_registry(str(tmp_path / "registry"))


def test_check_registry_when_the_scheme_is_unknown() -> None:
    with pytest.raises(InputError, match="scheme 'ftp'"):
        registry.check_registry("ftp://server/registry")


def test_check_registry_when_conditions_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says yes to every write, as old S3 servers do."""
    with running(AnsweringServer(200, b"")) as server:
        server.answer = (200, {"ETag": '"d41d8cd98f00b204e9800998ecf8427e"'}, b"")
        account = {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        for name, value in {**account, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(StorageError, match="ignores the condition of a write"):
            registry.check_registry("s3://bucket/registry")


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder
