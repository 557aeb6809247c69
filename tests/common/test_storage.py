"""The contract of every object store, held by a folder, by Google Cloud Storage and by S3, each for real."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.common.errors import InputError, ObjectNotFoundError, PreconditionError
from components.common.storage import ObjectInfo, ObjectStore, open_store, split_uri

REPOSITORY = Path(__file__).resolve().parents[2]

# Keys as people name their pictures and tokens.
KEYS = [
    "plain.txt",
    "folder/with spaces/and more.txt",
    "słowo/喵/ß.json",
    "100%25 #1?x=y&z+1.txt",
    "<cat-toy>/learned.safetensors",
    "a'b\"c.txt",
]

COUNT_UP = """
import json, sys
from components.common.errors import PreconditionError
from components.common.storage import open_store

store, rounds = open_store(sys.argv[1]), int(sys.argv[2])
for _ in range(rounds):
    while True:
        data, version = store.read_versioned("counter.json")
        count = json.loads(data)
        try:
            store.write("counter.json", json.dumps(count + 1).encode(), if_version=version)
            break
        except PreconditionError:
            continue
"""


@pytest.fixture(params=["file", "gs", "s3"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store of each kind."""
    if request.param == "file":
        return str(tmp_path / "store")
    return str(request.getfixturevalue({"gs": "gcs_bucket_uri", "s3": "s3_bucket_uri"}[request.param]))


@pytest.fixture
def store(store_uri: str) -> ObjectStore:
    return open_store(store_uri)


def keys_of(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


@pytest.mark.parametrize("key", KEYS)
def test_object_when_written_is_found_by_every_way_of_asking(store: ObjectStore, key: str) -> None:
    version = store.write(key, b"\x00content\xff")

    assert store.read(key) == b"\x00content\xff"
    assert store.read_versioned(key) == (b"\x00content\xff", version)
    assert store.stat(key) == ObjectInfo(key=key, size=9, version=version)
    assert store.list() == [ObjectInfo(key=key, size=9, version=version)]
    assert store.exists(key)


def test_object_when_written_has_the_time_of_it(store: ObjectStore) -> None:
    before = datetime.datetime.now(datetime.UTC)
    store.write("key", b"content")
    after = datetime.datetime.now(datetime.UTC)

    for info in (store.stat("key"), *store.list()):
        assert info.modified is not None
        # S3 leaves the parts of a second out.
        assert before.replace(microsecond=0) <= info.modified <= after


@pytest.mark.parametrize("key", KEYS)
def test_uri_of_object_when_split_leads_to_it_again(store: ObjectStore, key: str) -> None:
    store.write(key, b"content")

    parent, name = split_uri(store.uri_of(key))

    assert open_store(parent).read(name) == b"content"


def test_object_when_overwritten_has_another_version(store: ObjectStore) -> None:
    first = store.write("key", b"one")
    second = store.write("key", b"two")

    assert first != second
    assert store.read_versioned("key") == (b"two", second)


def test_object_when_empty_is_an_object(store: ObjectStore, tmp_path: Path) -> None:
    store.write("empty", b"")
    (tmp_path / "nothing").touch()
    store.upload_file(tmp_path / "nothing", "uploaded")
    store.download_file("uploaded", tmp_path / "copies" / "nothing")

    assert store.read("empty") == b""
    assert [(info.key, info.size) for info in store.list()] == [("empty", 0), ("uploaded", 0)]
    assert (tmp_path / "copies" / "nothing").read_bytes() == b""


def test_object_when_absent_is_an_error_with_its_address(store: ObjectStore, tmp_path: Path) -> None:
    store.write("folder/other", b"")

    for ask in (
        store.read,
        store.read_versioned,
        store.stat,
        lambda key: store.download_file(key, tmp_path / "x"),
    ):
        for key in ("missing", "folder", "folder/other/below"):
            with pytest.raises(ObjectNotFoundError, match=f"{key}: there is no such"):
                ask(key)
    assert not store.exists("missing")
    assert not (tmp_path / "x").exists()


def test_delete_when_repeated_is_fine(store: ObjectStore) -> None:
    store.write("folder/key", b"content")

    store.delete("folder/key")
    store.delete("folder/key")
    store.delete("never/was")

    assert store.list() == []


def test_list_when_given_a_prefix_takes_it_as_text(store: ObjectStore) -> None:
    for key in ("b", "a/2", "a/10", "ab/x", "a/1/deep"):
        store.write(key, b"")

    assert keys_of(store) == ["a/1/deep", "a/10", "a/2", "ab/x", "b"]
    assert keys_of(store, "a") == ["a/1/deep", "a/10", "a/2", "ab/x"]
    assert keys_of(store, "a/") == ["a/1/deep", "a/10", "a/2"]
    assert keys_of(store, "a/1") == ["a/1/deep", "a/10"]
    assert keys_of(store, "absent/") == []


def test_list_when_a_sibling_has_a_longer_name_does_not_show_it(store_uri: str) -> None:
    open_store(store_uri + "-2").write("key", b"of the sibling")

    assert open_store(store_uri).list() == []
    assert keys_of(open_store(store_uri + "-2/")) == ["key"]


@pytest.mark.parametrize(
    "key", ["../x", "a/../../x", "/etc/passwd", "", "a//b", "folder/", ".", "a/./b", "a\nb", "a\0b"]
)
def test_key_when_it_would_leave_the_store_is_refused(store: ObjectStore, key: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")

    for use in (
        store.read,
        store.exists,
        store.delete,
        store.uri_of,
        lambda key: store.write(key, b""),
        lambda key: store.upload_file(tmp_path / "file", key),
        lambda key: store.download_file(key, tmp_path / "file"),
    ):
        with pytest.raises(InputError, match="expected a relative name"):
            use(key)


def test_write_when_the_version_is_current_replaces(store: ObjectStore) -> None:
    first = store.write("key", b"one", if_absent=True)
    second = store.write("key", b"two", if_version=first)

    assert store.read_versioned("key") == (b"two", second)
    assert store.write("key", b"three", if_version=store.stat("key").version) == store.list()[0].version


def test_write_when_somebody_else_was_first_changes_nothing(store: ObjectStore) -> None:
    first = store.write("key", b"one")
    store.write("key", b"two")

    with pytest.raises(PreconditionError, match="key"):
        store.write("key", b"three", if_version=first)
    with pytest.raises(PreconditionError, match="key: exists already"):
        store.write("key", b"three", if_absent=True)
    assert store.read("key") == b"two"


def test_write_when_the_object_is_gone_does_not_make_it_again(store: ObjectStore) -> None:
    version = store.write("key", b"one")
    store.delete("key")

    with pytest.raises(PreconditionError, match="key"):
        store.write("key", b"two", if_version=version)
    assert not store.exists("key")


def test_write_when_given_both_conditions_is_refused(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        store.write("key", b"", if_version="1", if_absent=True)


def test_upload_when_the_object_exists_and_must_not_changes_nothing(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    store.upload_file(tmp_path / "file", "key", if_absent=True)
    (tmp_path / "file").write_bytes(b"other")

    with pytest.raises(PreconditionError, match="exists already"):
        store.upload_file(tmp_path / "file", "key", if_absent=True)
    assert store.read("key") == b"mine"


def test_write_when_threads_race_to_make_an_object_has_one_winner(store: ObjectStore) -> None:
    together = threading.Barrier(8)

    def make(number: int) -> int | None:
        together.wait()
        try:
            store.write("lease", f"held by {number}".encode(), if_absent=True)
        except PreconditionError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(make, range(8)) if number is not None]

    assert len(winners) == 1
    assert store.read("lease") == f"held by {winners[0]}".encode()


def test_write_when_processes_race_loses_no_update(store_uri: str, store: ObjectStore) -> None:
    # Clients of the clouds take a second of processor time to import: half as many processes there.
    processes, rounds = (8, 40) if "://" not in store_uri else (4, 10)
    store.write("counter.json", b"0")

    racers = [
        subprocess.Popen([sys.executable, "-c", COUNT_UP, store_uri, str(rounds)], cwd=REPOSITORY)
        for _ in range(processes)
    ]

    assert [racer.wait(timeout=120) for racer in racers] == [0] * processes
    assert json.loads(store.read("counter.json")) == processes * rounds
    assert keys_of(store) == ["counter.json"]


def test_folder_when_uploaded_and_downloaded_is_the_same(store: ObjectStore, tmp_path: Path) -> None:
    files = {
        "weights/big.bin": os.urandom(20 * 2**20),
        "weights/empty": b"",
        "pictures/a cat 喵.png": os.urandom(3000),
        "top.json": b"{}",
    }
    for name, data in files.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(data)

    store.upload_folder(tmp_path / "source", "runs/1")
    store.write("runs/10/other", b"not of this folder")
    store.download_folder("runs/1/", tmp_path / "copy")

    assert keys_of(store, "runs/1/") == sorted(f"runs/1/{name}" for name in files)
    assert _digests(tmp_path / "copy") == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def test_folder_when_the_prefix_is_empty_is_the_whole_store(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "one").write_bytes(b"1")

    store.upload_folder(tmp_path / "source", "")
    store.download_folder("", tmp_path / "copy")

    assert keys_of(store) == ["one"]
    assert (tmp_path / "copy" / "one").read_bytes() == b"1"


def test_folder_when_there_is_none_is_an_error(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFoundError, match="absent/: there is no object"):
        store.download_folder("absent", tmp_path / "copy")
    with pytest.raises(InputError, match="found no folder"):
        store.upload_folder(tmp_path / "absent", "prefix")


def test_upload_when_one_file_of_a_folder_fails_raises(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "good").write_bytes(b"1")
    (tmp_path / "folder" / "gone").symlink_to(tmp_path / "nowhere")

    with pytest.raises(InputError, match=r"found no file .*gone"):
        store.upload_folder(tmp_path / "folder", "prefix")


def test_download_when_it_fails_leaves_the_earlier_file(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "file").write_bytes(b"earlier")

    with pytest.raises(ObjectNotFoundError):
        store.download_file("missing", tmp_path / "local" / "file")

    assert {path.name: path.read_bytes() for path in (tmp_path / "local").iterdir()} == {"file": b"earlier"}


def test_download_when_it_succeeds_replaces_the_earlier_file(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "file").write_bytes(b"earlier and longer")
    store.write("key", b"new")

    store.download_file("key", tmp_path / "local" / "file")

    assert {path.name: path.read_bytes() for path in (tmp_path / "local").iterdir()} == {"file": b"new"}


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
