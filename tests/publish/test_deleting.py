from __future__ import annotations

import dataclasses
import hashlib
import itertools
from pathlib import Path

import pytest

from components.common.errors import InputError, ObjectNotFoundError
from components.common.registry import registry
from components.common.registry.aliases import read_alias, set_alias
from components.common.registry.collecting import collect_garbage
from components.common.registry.deleting import delete_concept, delete_version, plan_deletion
from components.common.registry.entry import Bundle, RegistryEntry
from components.common.registry.versions import publish_version, read_tombstones
from components.common.storage import ObjectStore, open_store
from components.common.training.beside import metrics_key, previews_key, snapshot_key
from tests.publish.faulty_store import Killed, MortalStore, OvertakenStore
from tests.publish.test_collecting import check_sound, in_days
from tests.publish.test_versions import make_bundle


def key_of(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def bundle(content: str, **lineage: str) -> Bundle:
    plain = make_bundle(content)
    facts = dataclasses.replace(plain.facts, lineage={"training_key": key_of(content), **lineage})
    return dataclasses.replace(plain, facts=facts)


def publish(uri: str, concept: str, content: str, **lineage: str) -> RegistryEntry:
    made = dataclasses.replace(bundle(content, **lineage), concept=concept)
    return publish_version(registry.concept_store(uri, concept), made, f"run-{content}")


def keys_of(store: ObjectStore) -> set[str]:
    return {info.key for info in store.list()}


def fill(storage_uri: str) -> None:
    """Makes a registry of a concept of two versions and an incomplete one, two concepts beside it, and checkpoints."""
    uri = f"{storage_uri}/registry"
    for content in ("one", "shared"):
        version = publish(uri, "cat-toy", content).version
        set_alias(registry.concept_store(uri, "cat-toy"), "champion", version)
    with pytest.raises(Killed):
        publish_version(MortalStore(open_store(f"{uri}/cat-toy"), writes=2), make_bundle("half"), "run-half")
    for name in ("unet/weights", "vae/weights"):
        open_store(f"{uri}/cat-toy").write(f"full-pipelines/1/{name}", b"")
    publish(uri, "twin", "shared")
    publish(uri, "heir", "heir", initializer_embedding=f"{open_store(uri).uri}/cat-toy/versions/1/x.safetensors")
    checkpoints = open_store(f"{storage_uri}/checkpoints")
    for content in ("one", "shared", "heir"):
        for key in (metrics_key(key_of(content)), snapshot_key(key_of(content), 5)):
            checkpoints.write(key, b"")
        checkpoints.write(f"{key_of(content)}/step-00000005.safetensors", b"")
        checkpoints.write(f"{previews_key(key_of(content), 5)}/0.png", b"")
    checkpoints.write(f"{key_of('one')}/notes.txt", b"mine")


def test_concept_is_deleted_with_what_was_made_on_the_way_to_it(tmp_path: Path) -> None:
    check_that_a_concept_is_deleted(str(tmp_path))


def check_that_a_concept_is_deleted(storage_uri: str) -> None:
    fill(storage_uri)
    uri, checkpoints = f"{storage_uri}/registry", open_store(f"{storage_uri}/checkpoints")
    before = keys_of(open_store(storage_uri))
    plan = plan_deletion(uri, "cat-toy", storage_uri)
    assert keys_of(open_store(storage_uri)) == before
    told = "\n".join(plan.deleted)
    assert [f"version {number}," in told for number in (1, 2, 3)] == [True] * 3
    assert (
        "2 objects beside them: " in told
        and "alias champion" in told
        and f"training, 4 objects: {checkpoints.uri_of(key_of('one'))}" in told
    )
    assert plan.kept == (
        f"training {key_of('shared')}: version 1 of twin was learned in it, too",
        "version 1 of heir, which started from cat-toy",
    )
    assert "the training of version 3, which has no sound manifest" in plan.unknown
    assert "what Kubeflow Pipelines keeps of the runs run-one, run-shared" in plan.unknown
    delete_concept(plan)
    left = {key for key in before if not key.startswith(("registry/cat-toy", f"checkpoints/{key_of('one')}"))}
    tombstones = {f"registry/cat-toy/versions/{number}/manifest.json" for number in (1, 2, 3)}
    assert keys_of(open_store(storage_uri)) == left | tombstones | {f"checkpoints/{key_of('one')}/notes.txt"}
    assert registry.list_concepts(uri) == ["heir", "twin"]
    assert registry.verify(uri, "cat-toy") == []
    with pytest.raises(ObjectNotFoundError, match="found nothing of cat-toy"):
        plan_deletion(uri, "cat-toy", storage_uri)
    assert publish(uri, "cat-toy", "one").version == 4


def test_checkpoints_are_found_when_the_versions_are_gone_already(tmp_path: Path) -> None:
    uri, checkpoint = f"{tmp_path}/registry", f"{key_of('one')}/step-00000005.safetensors"
    publish(uri, "cat-toy", "one")
    open_store(f"{tmp_path}/checkpoints").write(checkpoint, b"")
    plan = plan_deletion(uri, "cat-toy")
    assert "checkpoints, curves and previews of 1 training: say by --storage-uri" in plan.unknown[0]
    delete_concept(plan)
    late = plan_deletion(uri, "cat-toy", str(tmp_path))
    assert late.checkpoint_keys == (checkpoint,)
    delete_concept(late)
    assert open_store(f"{tmp_path}/checkpoints").list() == []


def test_version_that_an_alias_points_at_stays(tmp_path: Path) -> None:
    for content in ("one", "two"):
        publish(str(tmp_path), "cat-toy", content)
    store = registry.concept_store(str(tmp_path), "cat-toy")
    set_alias(store, "champion", 2)
    before = keys_of(store)
    for dry_run in (True, False):
        with pytest.raises(InputError, match=r"version 2 at .* stays: the alias champion points at it"):
            delete_version(str(tmp_path), "cat-toy", 2, dry_run=dry_run)
    assert delete_version(str(tmp_path), "cat-toy", 1, dry_run=True) == store.uri_of("versions/1")
    assert keys_of(store) == before
    delete_version(str(tmp_path), "cat-toy", 1)
    assert [entry.version for entry in registry.list_versions(str(tmp_path), "cat-toy")] == [2]
    assert read_tombstones(store)[1].training_key == key_of("one")
    for number in (1, 3):
        with pytest.raises(ObjectNotFoundError, match=f"version {number} at"):
            delete_version(str(tmp_path), "cat-toy", number)
    assert publish(str(tmp_path), "cat-toy", "one").version == 3


def test_version_that_is_promoted_while_it_is_deleted_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(str(tmp_path), "cat-toy", "one")
    store = registry.concept_store(str(tmp_path), "cat-toy")

    def promoted(uri: str, concept: str) -> ObjectStore:
        return OvertakenStore(store, at=0, meanwhile=lambda: set_alias(store, "champion", 1))

    with monkeypatch.context() as patch:
        patch.setattr("components.common.registry.deleting.concept_store", promoted)
        with pytest.raises(InputError, match="the alias champion points at it"):
            delete_version(str(tmp_path), "cat-toy", 1)
    assert read_alias(store, "champion").version == 1
    assert registry.verify(str(tmp_path), "cat-toy") == []
    assert registry.resolve(str(tmp_path), "cat-toy", "champion").version == 1


def test_promoting_a_version_that_is_deleted_meanwhile_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(str(tmp_path), "cat-toy", "one")
    store = registry.concept_store(str(tmp_path), "cat-toy")

    def deleted(uri: str, concept: str) -> ObjectStore:
        return OvertakenStore(store, at=0, meanwhile=lambda: delete_version(str(tmp_path), "cat-toy", 1))

    monkeypatch.setattr("components.common.registry.registry.concept_store", deleted)
    with pytest.raises(ObjectNotFoundError, match=r"version 1 at .* was deleted"):
        registry.move_alias(str(tmp_path), "cat-toy", "champion", 1)


def test_publisher_at_any_moment_of_a_deletion_leaves_no_torn_version(tmp_path: Path) -> None:
    for at in itertools.count():
        uri = f"{tmp_path}/{at}"
        publish(uri, "cat-toy", "one")
        plan = plan_deletion(uri, "cat-toy")
        store = registry.concept_store(uri, "cat-toy")
        overtaken = OvertakenStore(store, at=at, meanwhile=lambda uri=uri: publish(uri, "cat-toy", "one"))
        try:
            delete_concept(dataclasses.replace(plan, store=overtaken))
        except Exception as error:
            assert "somebody writes into it" in str(error)
        publish(uri, "cat-toy", "one")
        assert registry.verify(uri, "cat-toy") == []
        assert len(registry.list_versions(uri, "cat-toy")) == 1
        if not overtaken.was_overtaken:
            break
    assert at > 3


def test_publisher_that_mends_a_version_while_it_is_deleted_leaves_no_torn_one(tmp_path: Path) -> None:
    for at in itertools.count():
        uri = f"{tmp_path}/{at}"
        publish(uri, "cat-toy", "one")
        store = registry.concept_store(uri, "cat-toy")
        store.write("versions/1/manifest.json", b"damaged")
        mending = OvertakenStore(store, at=at, meanwhile=lambda uri=uri: delete_version(uri, "cat-toy", 1))
        entry = publish_version(mending, bundle("one"), "run-2")
        assert registry.verify(uri, "cat-toy") == []
        if not mending.was_overtaken:
            break
        assert entry.version == 2
    assert at > 2


def test_interrupted_deletion_goes_on(tmp_path: Path) -> None:
    uri = str(tmp_path)
    publish(uri, "cat-toy", "one")
    store = registry.concept_store(uri, "cat-toy")
    plan = plan_deletion(uri, "cat-toy")

    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        delete_concept(dataclasses.replace(plan, store=OvertakenStore(store, at=2, meanwhile=stop)))
    assert registry.list_versions(uri, "cat-toy") == []
    delete_concept(plan_deletion(uri, "cat-toy"))
    assert keys_of(store) == {"versions/1/manifest.json"}
    assert collect_garbage(store, now=in_days(2)) and keys_of(store) == set()
    check_sound(store, set())
