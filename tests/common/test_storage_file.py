"""Addresses of stores, and what is special about a store in a local folder."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.common.errors import InputError, ObjectNotFoundError, PreconditionError, StorageError
from components.common.storage import open_store, split_uri
from components.common.storage.file_store import HASHED_BYTES

REPOSITORY = Path(__file__).resolve().parents[2]

# Writes two contents of 4 MiB in turn and tells when each one is there.
WRITE_FOR_EVER = """
import itertools, sys
from components.common.storage import open_store

store = open_store(sys.argv[1])
for letter in itertools.cycle([b"a", b"b"]):
    store.write("key", letter * 2**22)
    print(flush=True)
"""


def test_open_when_the_scheme_is_unknown_names_the_ones_expected() -> None:
    with pytest.raises(InputError, match=r"Unsupported storage URI scheme 'ftp' in .*gs://bucket/prefix, s3://"):
        open_store("ftp://host/folder")


@pytest.mark.parametrize("address", ["", "gs://", "s3:///prefix", "file://host/folder", "file://folder"])
def test_open_when_the_address_has_a_hole_says_what_is_expected(address: str) -> None:
    with pytest.raises(InputError, match="expected"):
        open_store(address)


def test_open_when_the_prefix_would_leave_the_bucket_is_refused(gcs_bucket_uri: str) -> None:
    with pytest.raises(InputError, match=r"without '\.\.'"):
        open_store(f"{gcs_bucket_uri}/../other")


def test_open_when_given_a_path_or_its_uri_is_the_same_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "100% cats" / "ß"
    monkeypatch.chdir(tmp_path)

    by_path, by_uri, relative = (
        open_store(str(folder)),
        open_store(folder.as_uri()),
        open_store(os.path.relpath(folder)),
    )

    by_path.write("key", b"content")
    assert by_path.uri == by_uri.uri == relative.uri == folder.as_uri()
    assert by_uri.read("key") == relative.read("key") == (folder / "key").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("gs://bucket/a/b.json", ("gs://bucket/a", "b.json")),
        ("gs://bucket/b.json", ("gs://bucket", "b.json")),
        ("file:///a/b%20c.json", ("file:///a", "b c.json")),
        ("/a/b.json", ("/a", "b.json")),
        ("/b.json", ("/", "b.json")),
        ("b.json", (".", "b.json")),
    ],
)
def test_split_when_given_one_object_gives_its_folder_and_name(uri: str, parts: tuple[str, str]) -> None:
    assert split_uri(uri) == parts


@pytest.mark.parametrize("uri", ["gs://bucket", "gs://bucket/", "gs://bucket/folder/", "/folder/", ""])
def test_split_when_there_is_no_object_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="expected the address of one object"):
        split_uri(uri)


def test_write_when_killed_leaves_a_whole_object(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    for _ in range(5):
        writer.stdout.readline()
    writer.kill()
    writer.communicate()

    store = open_store(str(tmp_path))
    content = store.read("key")
    assert [info.key for info in store.list()] == ["key"]
    assert content in (b"a" * 2**22, b"b" * 2**22)
    assert store.write("key", b"small") == store.stat("key").version  # the dead writer's lock is gone


@pytest.mark.parametrize("key", [".textual-inversion-lock", "folder/.textual-inversion-1-abc.part"])
def test_key_when_it_is_the_name_of_a_lock_or_part_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match="reserved"):
        open_store(str(tmp_path)).write(key, b"")


def test_upload_when_the_folder_is_a_store_leaves_its_lock_behind(tmp_path: Path) -> None:
    open_store(str(tmp_path / "one")).write("key", b"content")

    open_store(str(tmp_path / "two")).upload_folder(tmp_path / "one", "copy")

    assert [info.key for info in open_store(str(tmp_path / "two")).list()] == ["copy/key"]


def test_write_when_it_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("key", b"content")

    with pytest.raises(PreconditionError):
        store.write("key", b"other", if_absent=True)

    assert sorted(path.name for path in tmp_path.iterdir()) == [".textual-inversion-lock", "key"]


def test_version_when_a_large_file_is_overwritten_changes(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))

    first = store.write("key", b"a" * (HASHED_BYTES + 1))
    second = store.write("key", b"b" * (HASHED_BYTES + 1), if_version=first)

    assert first != second
    assert store.read_versioned("key")[1] == store.stat("key").version == second


def test_list_when_folders_are_links_shows_their_files_once(tmp_path: Path) -> None:
    (tmp_path / "store" / "parts" / "second").mkdir(parents=True)
    (tmp_path / "store" / "parts" / "second" / "weights").write_bytes(b"content")
    (tmp_path / "store" / "unet").symlink_to("parts/second")
    (tmp_path / "store" / "parts" / "around itself").symlink_to(tmp_path / "store")
    (tmp_path / "volume").symlink_to("store")

    store = open_store(str(tmp_path / "volume"))

    assert [info.key for info in store.list()] == ["unet/weights"]
    assert [info.key for info in store.list("parts/")] == ["parts/second/weights"]
    assert store.read("unet/weights") == store.read("parts/second/weights") == b"content"


def test_list_when_a_link_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "store" / "key").symlink_to("../secret")
    store = open_store(str(tmp_path / "store"))

    for use in (store.list, lambda: store.read("key"), lambda: store.stat("key")):
        with pytest.raises(StorageError, match=r"store/key leads out of .*/store, to .*/secret: put a copy there"):
            use()


def test_list_when_something_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")
    store = open_store(str(tmp_path))

    for use in (store.list, lambda: store.read("key"), lambda: store.upload_folder(tmp_path, "copy")):
        with pytest.raises(StorageError, match="key is a FIFO, expected a regular file: remove it"):
            use()


def test_write_when_a_file_stands_in_the_way_says_so(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("name", b"a file")
    store.write("folder/key", b"content")

    with pytest.raises(StorageError, match="a file and a folder have the same name"):
        store.write("name/below", b"")
    with pytest.raises(StorageError, match="a file and a folder have the same name"):
        store.write("folder", b"")
    assert not store.exists("folder")
    with pytest.raises(ObjectNotFoundError):
        store.read("name/below")


def test_write_when_the_file_system_refuses_says_where() -> None:
    with pytest.raises(StorageError, match="file:///proc/textual-inversion/key") as caught:
        open_store("/proc/textual-inversion").write("key", b"")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "shown"),
    [("../blobs/0", "../blobs/0"), ("a.png", "a.png"), ("whole/below", "whole/below")],
    ids=["nothing there", "itself", "below a file"],
)
def test_list_when_a_link_leads_nowhere_says_where(tmp_path: Path, target: str, shown: str) -> None:
    (tmp_path / "whole").write_bytes(b"content")
    (tmp_path / "a.png").symlink_to(target)

    with pytest.raises(
        StorageError, match=rf"found 1 symbolic links that lead nowhere.*: a\.png -> {shown}: bring back"
    ):
        open_store(str(tmp_path)).list()


def test_list_when_many_links_lead_nowhere_counts_them(tmp_path: Path) -> None:
    for index in range(7):
        (tmp_path / f"{index}.png").symlink_to("nowhere")

    with pytest.raises(StorageError, match=r"found 7 symbolic links .*4\.png -> nowhere and 2 more: bring back"):
        open_store(str(tmp_path)).list()
    (tmp_path / "nowhere").write_bytes(b"content")
    assert len(open_store(str(tmp_path)).list()) == 8


def test_list_when_a_hidden_link_leads_nowhere_leaves_it_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.png").write_bytes(b"content")
    (tmp_path / ".#notes.txt").symlink_to("somebody@host.123:456")

    assert [info.key for info in open_store(str(tmp_path)).list()] == ["a.png"]
    assert "left out links that lead nowhere: .#notes.txt -> somebody@host.123:456" in caplog.text


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextlib.contextmanager
def as_another_user() -> Iterator[None]:
    """Whoever runs the tests, permissions hold inside: root becomes nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("what", ["a", "a/b"])
def test_list_when_a_folder_cannot_be_read_says_so(open_folder: Path, what: str) -> None:
    (open_folder / "a" / "b").mkdir(parents=True)
    (open_folder / "a" / "b" / "1.png").write_bytes(b"content")
    (open_folder / "2.png").write_bytes(b"content")
    (open_folder / what).chmod(0)
    try:
        with as_another_user():
            for use in (
                lambda: open_store(str(open_folder)).list(),
                lambda: open_store(str(open_folder / "out")).upload_folder(open_folder, "copy"),
            ):
                with pytest.raises(StorageError, match=rf"Permission denied \({open_folder}/{what}\): give the user"):
                    use()
    finally:
        (open_folder / what).chmod(0o755)


def test_list_when_there_is_no_folder_is_empty(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")

    assert open_store(str(tmp_path / "absent")).list() == []
    assert open_store(str(tmp_path)).list("file/") == []


@pytest.mark.parametrize(
    ("name", "quoted"),
    [(b"k\xe4tzchen.png", "k%E4tzchen.png"), ("kätzchen.png".encode(), "k%C3%A4tzchen.png"), (b"\xff", "%FF")],
)
def test_file_when_its_name_is_any_bytes_is_read_by_it(tmp_path: Path, name: bytes, quoted: str) -> None:
    (tmp_path / os.fsdecode(name)).write_bytes(b"content")
    store = open_store(str(tmp_path))

    (info,) = store.list()

    assert store.read(info.key) == b"content"
    assert store.uri_of(info.key) == f"file://{tmp_path}/{quoted}"
    parent, found = split_uri(store.uri_of(info.key))
    assert open_store(parent).read(found) == b"content"


def test_upload_when_a_name_is_no_utf8_says_which(tmp_path: Path, gcs_bucket_uri: str, s3_bucket_uri: str) -> None:
    (tmp_path / os.fsdecode(b"k\xe4tzchen.png")).write_bytes(b"content")

    for uri in (gcs_bucket_uri, s3_bucket_uri):
        with pytest.raises(InputError, match=r"found the name copy/k\\xe4tzchen\.png, expected UTF-8"):
            open_store(uri).upload_folder(tmp_path, "copy")
