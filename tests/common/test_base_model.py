"""References to base models, and the folders made from them, with stores in a folder and in buckets."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.common.artifact_folder import sha256_of
from components.common.base_model import (
    CACHE_VARIABLE,
    ModelFile,
    ModelReference,
    blob_key,
    human_size,
    materialize,
    read_reference,
    reference_key,
    write_reference,
)
from components.common.errors import ArtifactError, BaseModelError, StorageError
from components.common.storage import open_store
from tests.servers import Proxy, S3Server, running

REPOSITORY = Path(__file__).resolve().parents[2]

CONTENT = {
    "model_index.json": b"{}",
    "merges.txt": b"top-level, no JSON",
    "vae/config.json": b'{"part": "vae"}',
    "vae/diffusion_pytorch_model.safetensors": b"v" * 5000,
    "unet/config.json": b'{"part": "unet"}',
    "unet/diffusion_pytorch_model.safetensors": b"u" * 9000,
    "unet/the same again.safetensors": b"v" * 5000,
}


def stored(store_uri: str) -> ModelReference:
    """A reference whose files are in the store."""
    store = open_store(store_uri)
    for data in CONTENT.values():
        store.write(blob_key(sha256_of(data)), data)
    return reference_to(store.uri)


def reference_to(store_uri: str, **changes: object) -> ModelReference:
    fields: dict[str, object] = {
        "source": "hf://owner/name@main",
        "repository": "owner/name",
        "revision": "0123abc",
        "kind": "diffusion",
        "variant": "fp16",
        "store": store_uri,
        "files": {path: ModelFile(sha256_of(data), len(data)) for path, data in CONTENT.items()},
    }
    return ModelReference(**(fields | changes))  # type: ignore[arg-type]


def content_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(params=["file", "gs", "s3"])
def reference(request: pytest.FixtureRequest, tmp_path: Path) -> ModelReference:
    if request.param == "file":
        return stored(str(tmp_path / "store"))
    return stored(str(request.getfixturevalue({"gs": "gcs_bucket_uri", "s3": "s3_bucket_uri"}[request.param])))


@pytest.fixture
def local(tmp_path: Path) -> ModelReference:
    return stored(str(tmp_path / "store"))


def test_reference_when_written_and_read_is_the_same(tmp_path: Path) -> None:
    reference = reference_to("gs://bucket/models")

    write_reference(reference, tmp_path / "reference")

    assert read_reference(tmp_path / "reference") == reference
    document = json.loads((tmp_path / "reference" / "artifact.json").read_text())
    assert (document["format"], document["version"]) == ("textual-inversion/base-model-reference", 1)


def test_digest_when_a_model_came_from_elsewhere_is_the_same() -> None:
    one = reference_to("gs://bucket/models")
    other = reference_to("/store", source="/folder", repository="/folder", revision="x", variant="")

    assert one.digest == other.digest
    assert one.digest == "834a924792fd4d99779d1027ee48bd8aed9850a7db3163d8d679afd5debf3eef"


@pytest.mark.parametrize(
    "files",
    [
        {"renamed.json": ModelFile("a" * 64, 1)},
        {"x.json": ModelFile("b" * 64, 1)},
        {"x.json": ModelFile("a" * 64, 2)},
        {"x.json": ModelFile("a" * 64, 1), "y.json": ModelFile("a" * 64, 1)},
    ],
)
def test_digest_when_a_file_differs_is_another(files: dict[str, ModelFile]) -> None:
    assert reference_to("s", files=files).digest != reference_to("s", files={"x.json": ModelFile("a" * 64, 1)}).digest


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"files": {}}, "found no files"),
        ({"files": {"../../etc/passwd": ModelFile("a" * 64, 1)}}, "etc/passwd"),
        ({"files": {"/etc/passwd": ModelFile("a" * 64, 1)}}, "etc/passwd"),
        ({"files": {"x": ModelFile("../" * 21 + "a", 1)}}, "for x in the reference"),
        ({"files": {"x": ModelFile("a" * 64, -1)}}, "for x in the reference"),
        ({"kind": "gan"}, "expected one of diffusion, clip"),
    ],
)
def test_reference_when_a_field_cannot_be_right_is_refused(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(BaseModelError, match=expected):
        reference_to("s", **changes)


def test_read_when_the_document_is_of_another_kind_is_refused(tmp_path: Path) -> None:
    from components.common.artifact_folder import write_artifact

    write_artifact(tmp_path / "x", kind="base-model-reference", version=1, content={"files": {"a": 1}}, files={})

    with pytest.raises(ArtifactError, match=r"holds no reference to a base model .*import the model again"):
        read_reference(tmp_path / "x")


def test_hub_repository_when_the_source_is_no_hub_is_none() -> None:
    assert reference_to("s").hub_repository == "owner/name"
    assert reference_to("s", source="gs://bucket/sd15").hub_repository is None


def test_reference_key_when_sources_differ_differs() -> None:
    keys = {
        reference_key(repository, revision, kind, variant)
        for repository in ("owner/name", "owner-name", "file:///models/x")
        for revision in ("1", "2")
        for kind in ("diffusion", "clip")
        for variant in ("", "fp16")
    }

    assert len(keys) == 24
    assert (
        reference_key("owner/name", "1", "diffusion", "fp16") == "references/owner-name-a0a7498d/1/diffusion.fp16.json"
    )


def test_folder_when_parts_are_asked_for_has_these_and_top_level_json(
    reference: ModelReference, tmp_path: Path
) -> None:
    vae = materialize(reference, ["vae"], tmp_path / "cache")
    top = materialize(reference, [], tmp_path / "cache")
    whole = materialize(reference, None, tmp_path / "cache")

    assert sorted(content_of(vae)) == [
        "model_index.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert sorted(content_of(top)) == ["model_index.json"]
    assert content_of(whole) == CONTENT


def test_folder_when_made_before_needs_no_store(
    s3_bucket_uri: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reference = stored(s3_bucket_uri)
    with running(Proxy(s3_server.url)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)

        first = materialize(reference, ["vae"], tmp_path / "cache")
        downloads = [path for method, path in proxy.requests if method == "GET"]
        proxy.requests.clear()
        again = materialize(reference, ["vae"], tmp_path / "cache")
        requests_again = list(proxy.requests)
        materialize(reference, ["unet"], tmp_path / "cache")
        later = [path for method, path in proxy.requests if method == "GET"]

    assert first == again
    assert len(downloads) == 3
    assert requests_again == []
    assert len(later) == 2  # model_index.json and the weights that unet shares with vae are there


def test_folder_when_it_is_written_into_leaves_a_local_store_alone(local: ModelReference, tmp_path: Path) -> None:
    folder = materialize(local, ["unet"], tmp_path / "cache")

    (folder / "unet" / "diffusion_pytorch_model.safetensors").chmod(0o644)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x" * 9000)

    blob = tmp_path / "store" / blob_key(sha256_of(b"u" * 9000))
    assert blob.read_bytes() == b"u" * 9000


def test_folder_when_a_file_was_cut_off_is_repaired(gcs_bucket_uri: str, tmp_path: Path) -> None:
    reference = stored(gcs_bucket_uri)
    folder = materialize(reference, None, tmp_path / "cache")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").chmod(0o644)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut off")
    (folder / "model_index.json").unlink()

    assert content_of(materialize(reference, None, tmp_path / "cache")) == CONTENT


@pytest.mark.parametrize("damage", [b"x" * 9000, b"cut off", None])
def test_folder_when_the_store_is_damaged_says_which_object(
    reference: ModelReference, damage: bytes | None, tmp_path: Path
) -> None:
    store, key = open_store(reference.store), blob_key(sha256_of(b"u" * 9000))
    store.delete(key)
    if damage is not None:
        store.write(key, damage)

    with pytest.raises(ArtifactError, match=rf"{store.uri_of(key)}: .*import the base model again"):
        materialize(reference, ["unet"], tmp_path / "cache")

    store.write(key, b"u" * 9000)
    folder = materialize(reference, ["unet"], tmp_path / "cache")
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == b"u" * 9000


@pytest.mark.parametrize("subfolders", [["vae", "text_encoder_2"], "vae"])
def test_folder_when_the_model_has_no_such_part_lists_those_it_has(
    local: ModelReference, subfolders: list[str] | str, tmp_path: Path
) -> None:
    with pytest.raises(BaseModelError, match=r"found no part (text_encoder_2|vae) .*: it has unet, vae"):
        materialize(local, subfolders, tmp_path / "cache")


def test_folder_when_several_processes_ask_is_fetched_once(
    s3_bucket_uri: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_reference(stored(s3_bucket_uri), tmp_path / "reference")
    program = (
        "import sys; from pathlib import Path; from components.common.base_model import *;"
        "print(materialize(read_reference(Path(sys.argv[1]))))"
    )
    with running(Proxy(s3_server.url)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(tmp_path / "reference")],
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        folders = {racer.communicate(timeout=120)[0].strip() for racer in racers}
        downloads = [path for method, path in proxy.requests if method == "GET"]

    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert len(folders) == 1
    assert content_of(Path(folders.pop())) == CONTENT
    assert len(downloads) == len(set(CONTENT.values()))


def test_folder_when_the_cache_cannot_be_made_names_the_variable(
    local: ModelReference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))

    with pytest.raises(StorageError, match="set TEXTUAL_INVERSION_CACHE"):
        materialize(local)


def test_reference_when_moved_to_another_store_still_leads_to_the_files(local: ModelReference, tmp_path: Path) -> None:
    (tmp_path / "store").rename(tmp_path / "moved")
    moved = dataclasses.replace(local, store=str(tmp_path / "moved"))

    assert content_of(materialize(moved, None, tmp_path / "cache")) == CONTENT


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 kB"), (316_700, "317 kB"), (9_156_200, "9.2 MB"), (3_438_167_540, "3.44 GB")]
)
def test_human_size_is_as_a_person_says_it(size: int, text: str) -> None:
    assert human_size(size) == text
