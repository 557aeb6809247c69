"""Folders that somebody else has made: links that lead elsewhere or go round, no files at all, files without end."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from components.common.artifacts import ImageSet
from components.common.base_model import materialize
from components.common.errors import BaseModelError, ImageError, StorageError, TextualInversionError
from components.common.sources.checks import check_file
from components.common.sources.models import LARGEST_DOCUMENT
from components.common.sources.models import open_source as open_model
from components.common.sources.picture_listing import (
    LARGEST_CAPTION,
    LARGEST_METADATA,
    LARGEST_PICTURE,
    fingerprint_images,
    list_pictures,
    read_listed,
)
from components.common.sources.pictures import open_source as open_pictures
from components.common.storage import open_store
from components.common.storage.file_store import LARGEST_READ
from components.common.storage.local_files import files_below, open_regular
from components.import_base_model.importing import import_base_model
from components.ingest_images.config import IngestConfig
from components.ingest_images.ingest import ingest_images
from tests.model_folders import make_diffusion_folder

SECRET = "the key of the whole cluster"

pytestmark = pytest.mark.timeout(60)  # what hangs here hangs a run

Make = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a picture, beside which there are secrets."""
    (tmp_path / "secret.txt").write_text(SECRET)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.txt").write_text(SECRET)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "pictures" / "0.png")
    return tmp_path / "pictures"


def sparse(path: Path, size: int) -> None:
    """A file of any size that takes no room."""
    with path.open("wb") as file:
        file.truncate(size)


def listen(path: Path) -> None:
    """A socket, which stays when nobody listens any more."""
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path has room for 107 bytes
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def ingest(folder: Path) -> ImageSet:
    return ingest_images(IngestConfig(images_uri=str(folder), resolution=32), folder.parent / "out")


LEAVES, IRREGULAR = "leads out of .*: put a copy there instead", "expected a regular file: remove it"

REFUSED: dict[str, tuple[Make, str]] = {
    "caption to a secret": (lambda at: (at / "0.txt").symlink_to("../secret.txt"), LEAVES),
    "caption to a secret, absolute": (lambda at: (at / "0.txt").symlink_to(at.parent / "secret.txt"), LEAVES),
    "caption to the environment": (lambda at: (at / "0.txt").symlink_to("/proc/self/environ"), LEAVES),
    "caption to the passwords": (lambda at: (at / "0.txt").symlink_to("/etc/passwd"), LEAVES),
    "caption through a second link": (
        lambda at: ((at / "a.txt").symlink_to("../secret.txt"), (at / "0.txt").symlink_to("a.txt")),
        LEAVES,
    ),
    "metadata to a secret": (lambda at: (at / "metadata.jsonl").symlink_to("../secret.txt"), LEAVES),
    "picture from elsewhere": (lambda at: (at / "1.png").symlink_to("../elsewhere/1.png"), LEAVES),
    "folder from elsewhere": (lambda at: (at / "more").symlink_to("../elsewhere"), LEAVES),
    "the folder above": (lambda at: (at / "more").symlink_to(".."), LEAVES),
    "the root of all": (lambda at: (at / "more").symlink_to("/"), LEAVES),
    "processes": (lambda at: (at / "more").symlink_to("/proc"), LEAVES),
    "own descriptors": (lambda at: (at / "more").symlink_to("/proc/self/fd"), LEAVES),
    "a folder of nearly the same name": (
        lambda at: ((at.parent / "pictures-2").mkdir(), (at / "more").symlink_to("../pictures-2")),
        LEAVES,
    ),
    "picture that is a FIFO": (lambda at: os.mkfifo(at / "1.png"), f"a FIFO, {IRREGULAR}"),
    "caption that is a FIFO": (lambda at: os.mkfifo(at / "0.txt"), f"a FIFO, {IRREGULAR}"),
    "metadata that is a FIFO": (lambda at: os.mkfifo(at / "metadata.jsonl"), f"a FIFO, {IRREGULAR}"),
    "link to a FIFO": (
        lambda at: (os.mkfifo(at / ".fifo"), (at / "1.png").symlink_to(".fifo")),
        f"a FIFO, {IRREGULAR}",
    ),
    "picture that is a socket": (lambda at: listen(at / "1.png"), f"a socket, {IRREGULAR}"),
    "picture of /dev/zero": (lambda at: (at / "1.png").symlink_to("/dev/zero"), LEAVES),
    "picture of /dev/stdin": (lambda at: (at / "1.png").symlink_to("/dev/stdin"), "leads? (out of|nowhere)"),
    "link to itself": (lambda at: (at / "1.png").symlink_to("1.png"), "lead nowhere"),
    "link to nothing": (lambda at: (at / "1.png").symlink_to("../nothing"), "lead nowhere"),
    "two links to each other": (
        lambda at: ((at / "1.png").symlink_to("2.png"), (at / "2.png").symlink_to("1.png")),
        "found 2 symbolic links that lead nowhere",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_folder_when_a_file_is_none_of_it_is_refused(name: str, folder: Path) -> None:
    make, message = REFUSED[name]
    make(folder)
    for use in (lambda: fingerprint_images(str(folder)), lambda: ingest(folder)):
        with pytest.raises(StorageError, match=message) as caught:
            use()
        assert all("\n" not in mistake for mistake in caught.value.mistakes)
        assert SECRET not in str(caught.value)
    with pytest.raises(StorageError, match=message):  # as the folder of a model
        open_model(str(folder))
    with pytest.raises(TextualInversionError, match=f"{message}|found no file"):  # as somebody's results
        open_store(str(folder.parent / "store")).upload_folder(folder, "copy")


@pytest.mark.parametrize("name", REFUSED)
def test_folder_when_what_is_none_of_it_is_hidden_is_taken_without(
    name: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make, _ = REFUSED[name]
    (folder / ".hidden").mkdir()
    (folder.parent / "pictures" / "secret.txt").unlink(missing_ok=True)
    make(folder / ".hidden")
    with caplog.at_level(logging.WARNING):
        assert len(ingest(folder).pictures) == 1
    assert SECRET not in caplog.text


def _ladder(at: Path) -> None:
    """Thirty folders, each with four links to the next: a file in the last has 4^30 names."""
    for number in range(30):
        (at / f"{number:02d}").mkdir()
        for letter in "abcd":
            (at / f"{number:02d}" / letter).symlink_to(f"../{(number + 1) % 30:02d}")


def _everybody_knows_everybody(at: Path) -> None:
    for number in range(25):
        (at / f"{number:02d}").mkdir()
    for number in range(25):
        for other in range(25):
            (at / f"{number:02d}" / f"to {other:02d}").symlink_to(f"../{other:02d}")


def _deep(at: Path) -> None:
    here = at
    for _ in range(150):
        here = here / "folder"
        here.mkdir()
        (here / "up").symlink_to("..")


FARMS: dict[str, Make] = {
    "to itself": lambda at: (at / "a").symlink_to("."),
    "to itself, twice": lambda at: ((at / "a").symlink_to("."), (at / "b").symlink_to(".")),
    "to itself, from below": lambda at: ((at / "a").mkdir(), (at / "a" / "b").symlink_to("..")),
    "to each other": lambda at: (
        (at / "a").mkdir(),
        (at / "b").mkdir(),
        (at / "a" / "b").symlink_to("../b"),
        (at / "b" / "a").symlink_to("../a"),
    ),
    "fanning out": _ladder,
    "all to all": _everybody_knows_everybody,
    "deep": _deep,
}


@pytest.mark.parametrize("name", FARMS)
def test_folder_when_links_go_round_ends_and_has_each_file_once(name: str, folder: Path) -> None:
    FARMS[name](folder)
    assert [info.key for info in open_store(str(folder)).list()] == ["0.png"]
    assert [path.name for path in files_below(folder)] == ["0.png"]
    assert len(ingest(folder).pictures) == 1


SOUND: dict[str, tuple[Make, list[str]]] = {
    "mounted ConfigMap": (
        lambda at: (
            (at / "..2026_11").mkdir(),
            (at / "..2026_11" / "1.png").write_bytes((at / "0.png").read_bytes()),
            (at / "..data").symlink_to("..2026_11"),
            (at / "1.png").symlink_to("..data/1.png"),
        ),
        ["0.png", "1.png"],
    ),
    "mounted ConfigMap with a folder": (
        lambda at: (
            (at / "..2026_11" / "cats").mkdir(parents=True),
            (at / "..2026_11" / "cats" / "1.png").write_bytes((at / "0.png").read_bytes()),
            (at / "..data").symlink_to("..2026_11"),
            (at / "cats").symlink_to("..data/cats"),
        ),
        ["0.png", "cats/1.png"],
    ),
    "hidden folder nearer than its visible name": (
        lambda at: (
            (at / ".store").mkdir(),
            (at / ".store" / "1.png").write_bytes((at / "0.png").read_bytes()),
            (at / "a" / "b").mkdir(parents=True),
            (at / "a" / "b" / "c").symlink_to("../../.store"),
        ),
        ["0.png", "a/b/c/1.png"],
    ),
    "two names of a file": (lambda at: (at / "1.png").symlink_to("0.png"), ["0.png", "1.png"]),
    "absolute link that stays": (lambda at: (at / "1.png").symlink_to(at / "0.png"), ["0.png", "1.png"]),
    "hard link": (lambda at: os.link(at / "0.png", at / "1.png"), ["0.png", "1.png"]),
}


@pytest.mark.parametrize("name", SOUND)
def test_folder_when_links_stay_in_it_is_whole(name: str, folder: Path) -> None:
    make, keys = SOUND[name]
    make(folder)
    (folder.parent / "volume").symlink_to("pictures")
    for address in (folder, folder.parent / "volume"):
        store = open_store(str(address))
        shown = [info.key for info in store.list() if not any(part.startswith(".") for part in info.key.split("/"))]
        assert shown == keys
        assert all(store.read(key) == (folder / key).read_bytes() for key in keys)
    assert len(ingest(folder.parent / "volume").pictures) == 1  # all of them show the same


@pytest.mark.parametrize("below", [b"k\n.png", b"a\x1b[31m.png", b"\x07.txt"])
def test_folder_when_a_name_has_control_characters_is_taken_without(
    below: bytes, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / os.fsdecode(below)).write_bytes((folder / "0.png").read_bytes())
    assert [info.key for info in open_store(str(folder)).list()] == ["0.png"]
    assert [record.getMessage() for record in caplog.records if "\x1b" in record.getMessage()] == []
    assert "control character" in caplog.text


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A model as the Hugging Face Hub's client keeps it: links from a snapshot to blobs beside it."""
    repository = tmp_path / "hub" / "models--owner--name"
    (repository / "blobs").mkdir(parents=True)
    folder = make_diffusion_folder(repository / "snapshots" / "c0ffee")
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        blob = repository / "blobs" / f"{number:064x}"
        path.rename(blob)
        path.symlink_to(os.path.relpath(blob, path.parent))
    return folder


def test_model_when_in_the_cache_of_the_hub_is_imported(snapshot: Path, tmp_path: Path) -> None:
    plain = import_base_model(str(make_diffusion_folder(tmp_path / "plain")), str(tmp_path / "a"), tmp_path / "one")
    cached = import_base_model(str(snapshot), str(tmp_path / "b"), tmp_path / "two")
    assert cached.digest == plain.digest
    (tmp_path / "moved").symlink_to(tmp_path / "hub")
    moved = tmp_path / "moved" / "models--owner--name" / "snapshots" / "c0ffee"
    assert import_base_model(str(moved), str(tmp_path / "c"), tmp_path / "three").digest == plain.digest
    # The store's own links are hard ones or lead to it from outside: it is a source itself once it is a folder.
    folder = materialize(cached, cache_dir=tmp_path / "cache")
    assert (folder / "unet" / "config.json").read_bytes() == (snapshot / "unet" / "config.json").read_bytes()


@pytest.mark.parametrize(
    "target",
    ["../../refs/main", "../../../models--owner--other/blobs/secret", "../../../../secret", "../other/config.json"],
)
def test_model_when_a_snapshot_links_to_no_blob_of_its_own_is_refused(target: str, snapshot: Path) -> None:
    (snapshot / "config.json").symlink_to(target)
    outside = snapshot / target
    outside.parent.mkdir(parents=True, exist_ok=True)
    outside.write_text(SECRET)
    with pytest.raises(StorageError, match=LEAVES):
        open_model(str(snapshot))


@pytest.mark.parametrize("repository", ["models", "owner--name", "--"])
def test_model_when_folders_only_look_like_the_cache_is_refused(repository: str, tmp_path: Path) -> None:
    at = tmp_path / repository / "snapshots" / "1"
    at.mkdir(parents=True)
    (tmp_path / repository / "blobs").mkdir()
    (tmp_path / repository / "blobs" / "secret").write_text(SECRET)
    (at / "model_index.json").symlink_to("../../blobs/secret")
    with pytest.raises(StorageError, match=LEAVES):
        open_model(str(at))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("0.txt", LARGEST_CAPTION + 1),
        ("0.txt", 10 * 10**9),
        ("metadata.jsonl", LARGEST_METADATA + 1),
        ("metadata.jsonl", 10 * 10**9),
        ("1.png", LARGEST_PICTURE + 1),
        ("1.jpg", 10 * 10**9),
        ("1.tif", 2**43),
    ],
)
def test_picture_source_when_a_file_is_too_large_is_refused_by_its_listing(name: str, size: int, folder: Path) -> None:
    sparse(folder / name, size)
    for use in (lambda: fingerprint_images(str(folder)), lambda: ingest(folder)):
        with pytest.raises(ImageError, match=rf"{name} has {size} bytes, expected at most \d+: make them smaller"):
            use()


@pytest.mark.parametrize("bucket", ["gcs_bucket_uri", "s3_bucket_uri"])
def test_bucket_when_a_caption_is_too_large_is_refused_by_its_listing(
    bucket: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    uri = request.getfixturevalue(bucket)
    (folder / "0.txt").write_text("x" * (LARGEST_CAPTION + 1))
    open_store(uri).upload_folder(folder, "")
    with pytest.raises(ImageError, match=r"0\.txt has 65537 bytes, expected at most 65536"):
        fingerprint_images(uri)


@pytest.mark.parametrize("content", [b"", b"a cat", b"x" * 2**20])
def test_file_when_it_changes_after_it_was_listed_is_refused(content: bytes, folder: Path) -> None:
    source = open_pictures(str(folder))
    (info,) = list_pictures(source).pictures
    (folder / "0.png").write_bytes(content)
    with pytest.raises(ImageError, match=f"has {len(content)} bytes now, {info.size} when it was listed"):
        read_listed(source, info)


def test_text_when_large_and_no_caption_is_no_matter(folder: Path) -> None:
    (folder / "notes.txt").write_text("note" * LARGEST_CAPTION)
    assert len(ingest(folder).pictures) == 1


@pytest.mark.parametrize("name", ["model_index.json", "tokenizer/merges.txt", "vae/config.json"])
@pytest.mark.parametrize("size", [LARGEST_DOCUMENT + 1, 10 * 10**9])
def test_model_when_a_document_is_too_large_is_refused(name: str, size: int, tmp_path: Path) -> None:
    model = make_diffusion_folder(tmp_path / "model")
    sparse(model / name, size)
    with pytest.raises(BaseModelError, match=rf"{name} has {size} bytes, expected at most"):
        import_base_model(str(model), str(tmp_path / "store"), tmp_path / "out")


def test_file_when_too_large_for_memory_is_not_read(tmp_path: Path) -> None:
    sparse(tmp_path / "key", LARGEST_READ + 1)
    store = open_store(str(tmp_path))
    with pytest.raises(StorageError, match=f"has {LARGEST_READ + 1} bytes, expected at most"):
        store.read("key")
    assert store.stat("key").size == LARGEST_READ + 1


@pytest.mark.parametrize("key", ["link/1.txt", "link/new", "file.txt"])
def test_store_when_a_link_leads_out_of_it_neither_reads_nor_writes_there(key: str, folder: Path) -> None:
    (folder / "link").symlink_to("../elsewhere")
    (folder / "file.txt").symlink_to("../secret.txt")
    before = {path: path.read_bytes() for path in sorted(folder.parent.rglob("*.txt"))}
    store = open_store(str(folder))
    if (folder / key).exists():
        for use in (
            lambda: store.read(key),
            lambda: store.stat(key),
            lambda: store.download_file(key, folder / "copy"),
        ):
            with pytest.raises(StorageError, match=LEAVES):
                use()
    if key.startswith("link/"):
        for change in (lambda: store.write(key, b"mine"), lambda: store.delete(key), lambda: store.list("link/")):
            with pytest.raises(StorageError, match=r"leads out of .*: make it a folder"):
                change()
    else:  # the link gives way to the file
        store.write(key, b"mine")
        store.delete(key)
        del before[folder / key]
    assert {path: path.read_bytes() for path in before} == before


def test_file_when_exchanged_for_a_link_while_it_is_opened_is_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "1.txt").write_text("a toy cat")
    real_open = os.open

    def exchange(path: str, flags: int, **more: int) -> int:
        if os.path.islink(folder / "inner"):
            return real_open(path, flags, **more)
        (folder / "inner").rename(folder / "gone")  # between the checks and the opening, as only an attacker is so fast
        (folder / "inner").symlink_to("../elsewhere")
        return real_open(path, flags, **more)

    monkeypatch.setattr(os, "open", exchange)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        open_regular(folder / "inner" / "1.txt", folder)


@pytest.mark.parametrize("header", [b"[" * 10**6, b'{"a": ' * 10**5, b'{"a": NaN}', b"9" * 10**5, b'"\\ud800"'])
def test_model_document_when_hostile_is_refused(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(header)
    with pytest.raises(BaseModelError, match="is no JSON document") as caught:
        check_file(tmp_path / "config.json", "config.json")
    assert len(str(caught.value)) < 500
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(BaseModelError, match="safetensors"):
        check_file(weights, "model.safetensors")
