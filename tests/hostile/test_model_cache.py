"""Models whose files are changed behind one's back, in the cache or in the store: noticed, and fetched again."""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from components.common.artifact_folder import sha256_of
from components.common.base_model import ModelReference, blob_key, materialize
from components.common.errors import ArtifactError, StorageError
from components.common.storage import open_store
from components.import_base_model.importing import import_base_model
from tests.common.test_base_model import CONTENT, content_of, stored

NAME = "vae/diffusion_pytorch_model.safetensors"
KEY = blob_key(sha256_of(CONTENT[NAME]))
FLIPS = 60


@pytest.fixture
def reference(tmp_path: Path) -> ModelReference:
    return stored(str(tmp_path / "store"))


@pytest.fixture
def cache(reference: ModelReference, tmp_path: Path) -> Path:
    """A cache with all of the model."""
    materialize(reference, None, tmp_path / "cache")
    return tmp_path / "cache"


def overwrite(file: Path, data: bytes) -> None:
    file.resolve().chmod(0o644)
    file.write_bytes(data)


def in_place(file: Path) -> None:
    overwrite(file, b"x" * len(CONTENT[NAME]))


def with_old_times(file: Path) -> None:
    status = file.stat()
    in_place(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def one_bit(file: Path) -> None:
    overwrite(file, b"w" + CONTENT[NAME][1:])


def cut_off(file: Path) -> None:
    overwrite(file, CONTENT[NAME][:-1])


def emptied(file: Path) -> None:
    overwrite(file, b"")


def longer(file: Path) -> None:
    overwrite(file, CONTENT[NAME] + b"x")


def replaced(file: Path) -> None:
    file.resolve().unlink()
    file.resolve().write_bytes(b"x" * len(CONTENT[NAME]))


def removed(file: Path) -> None:
    file.resolve().unlink()


def link_removed(file: Path) -> None:
    file.unlink()


def link_replaced_by_a_file(file: Path) -> None:
    file.unlink()
    file.write_bytes(b"x" * len(CONTENT[NAME]))


def link_to_another_file(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"x" * len(CONTENT[NAME]))
    file.unlink()
    file.symlink_to(other)


def link_to_nowhere(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def link_to_itself(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def stamp_removed(file: Path) -> None:
    in_place(file)
    file.resolve().with_name(f"{file.resolve().name}.stat").unlink()


def stamp_of_nonsense(file: Path) -> None:
    in_place(file)
    file.resolve().with_name(f"{file.resolve().name}.stat").write_bytes(b"\xff[" * 1000)


def folder_removed(file: Path) -> None:
    shutil.rmtree(file.parent)


def blobs_removed(file: Path) -> None:
    shutil.rmtree(file.resolve().parents[3] / "blobs")


CHANGES: list[Callable[[Path], None]] = [
    *(in_place, with_old_times, one_bit, cut_off, emptied, longer, replaced, removed, link_removed),
    *(link_replaced_by_a_file, link_to_another_file, link_to_nowhere, link_to_itself),
    *(stamp_removed, stamp_of_nonsense, folder_removed, blobs_removed),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changed_file_is_fetched_again(change: Callable[[Path], None], reference: ModelReference, cache: Path) -> None:
    in_store = content_of(Path(open_store(reference.store).uri.removeprefix("file://")))
    change(materialize(reference, None, cache) / NAME)
    found = content_of(materialize(reference, None, cache))
    assert {name: found[name] for name in CONTENT} == CONTENT
    assert content_of(Path(open_store(reference.store).uri.removeprefix("file://"))) == in_store


def test_changed_file_is_told(reference: ModelReference, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    in_place(materialize(reference, None, cache) / NAME)
    materialize(reference, None, cache)
    assert f"{KEY} was damaged or changed: it is fetched again" in caplog.text


def test_file_changed_in_one_part_is_noticed_in_all(reference: ModelReference, cache: Path) -> None:
    in_place(materialize(reference, None, cache) / NAME)
    assert (materialize(reference, ["vae"], cache) / NAME).read_bytes() == CONTENT[NAME]


def test_every_flip_in_the_cache_is_noticed(
    reference: ModelReference, cache: Path, record_property: Callable[[str, int], None]
) -> None:
    chance = random.Random(0)
    folder = materialize(reference, None, cache)
    for _ in range(FLIPS):
        name = chance.choice(sorted(CONTENT))
        data = bytearray(CONTENT[name])
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        overwrite(folder / name, bytes(data))
        assert content_of(materialize(reference, None, cache)) == CONTENT
    record_property("tried", FLIPS)


def test_touched_file_and_moved_cache_are_verified_and_not_fetched(
    reference: ModelReference, cache: Path, tmp_path: Path
) -> None:
    (materialize(reference, None, cache) / NAME).touch()
    shutil.copytree(cache, tmp_path / "moved", symlinks=True)
    shutil.rmtree(tmp_path / "store")
    for folder in (cache, tmp_path / "moved"):
        assert content_of(materialize(reference, None, folder)) == CONTENT
        assert folder in (materialize(reference, None, folder) / NAME).resolve().parents


def test_cache_of_the_release_before_is_verified_and_not_fetched(
    reference: ModelReference, cache: Path, tmp_path: Path
) -> None:
    """Its folders held hard links, and its copies no stamp."""
    folder = materialize(reference, None, cache)
    for name in CONTENT:
        blob = (folder / name).resolve()
        (folder / name).unlink()
        os.link(blob, folder / name)
        blob.with_name(f"{blob.name}.stat").unlink(missing_ok=True)
    shutil.rmtree(tmp_path / "store")
    assert content_of(materialize(reference, None, cache)) == CONTENT
    assert (folder / NAME).is_symlink()


def test_damage_that_cannot_be_mended_is_one_line(reference: ModelReference, cache: Path, tmp_path: Path) -> None:
    in_place(materialize(reference, None, cache) / NAME)
    in_place(tmp_path / "store" / KEY)
    with pytest.raises(ArtifactError, match=r"does not match its SHA-256 .*import the base model again") as refusal:
        materialize(reference, None, cache)
    assert "\n" not in str(refusal.value)
    removed(tmp_path / "store" / KEY)
    with pytest.raises(ArtifactError, match="lacks this file"):
        materialize(reference, None, cache)


@pytest.mark.parametrize("taken", ["models", "blobs", "locks"])
def test_file_where_the_cache_has_a_folder_is_one_line(taken: str, reference: ModelReference, tmp_path: Path) -> None:
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / taken).write_bytes(b"")
    with pytest.raises(StorageError) as refusal:
        materialize(reference, None, tmp_path / "fresh")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "change", [in_place, one_bit, cut_off, emptied, longer, removed], ids=lambda each: each.__name__
)
@pytest.mark.parametrize("forgotten", [False, True], ids=["verified before", "of an earlier release"])
def test_import_replaces_what_is_damaged_in_the_store(
    change: Callable[[Path], None], forgotten: bool, tiny_sd15: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = import_base_model(str(tiny_sd15), str(tmp_path / "store"), tmp_path / "reference")
    blob = tmp_path / "store" / blob_key(first.files["unet/diffusion_pytorch_model.safetensors"].sha256)
    whole = blob.read_bytes()
    if forgotten:
        shutil.rmtree(tmp_path / "store" / "verified")
    if change in (in_place, one_bit):
        overwrite(blob, b"x" * len(whole) if change is in_place else b"x" + whole[1:])
    else:
        change(blob)
    with caplog.at_level(logging.WARNING):
        again = import_base_model(str(tiny_sd15), str(tmp_path / "store"), tmp_path / "reference")
    assert again == first
    assert blob.read_bytes() == whole
    assert ("is damaged: it is replaced" in caplog.text) is (change is not removed)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"a": NaN}', b"[" * 200_000, b"\xff", b'{"a": [1]}'])
@pytest.mark.parametrize("folder", ["references", "verified"])
def test_import_goes_on_past_a_damaged_document(folder: str, data: bytes, tiny_sd15: Path, tmp_path: Path) -> None:
    first = import_base_model(str(tiny_sd15), str(tmp_path / "store"), tmp_path / "reference")
    (document,) = (file for file in (tmp_path / "store" / folder).rglob("*.json"))
    whole = document.read_bytes()
    document.write_bytes(data)
    assert import_base_model(str(tiny_sd15), str(tmp_path / "store"), tmp_path / "reference") == first
    assert document.read_bytes() == whole
