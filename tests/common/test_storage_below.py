"""A part of a store is a store: what it does is done in the other one, below the prefix."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.common.errors import InputError, ObjectNotFoundError, PreconditionError
from components.common.storage import open_store
from components.common.storage.below import StoreBelow


def test_part_of_a_store_is_the_store_of_that_folder(tmp_path: Path) -> None:
    whole = open_store(str(tmp_path / "a registry"))
    part, alone = StoreBelow(whole, "cat-toy/versions"), open_store(str(tmp_path / "a registry" / "cat-toy/versions"))
    token = part.write("1/claim.json", b"one", if_absent=True)
    whole.write("cat-toy/versions-of-others/1", b"not in it")
    assert (part.uri, part.uri_of("1/ä.json")) == (alone.uri, alone.uri_of("1/ä.json"))
    assert part.list() == alone.list() == part.list("1/") and part.list("2") == []
    assert part.stat("1/claim.json") == alone.stat("1/claim.json")
    assert part.read_versioned("1/claim.json") == (b"one", token)
    with pytest.raises(PreconditionError):
        part.write("1/claim.json", b"two", if_absent=True)
    part.write("1/claim.json", b"two", if_version=token)
    (tmp_path / "file").write_bytes(b"three")
    part.upload_file(tmp_path / "file", "3")
    part.download_file("3", tmp_path / "copy")
    assert (alone.read("1/claim.json"), (tmp_path / "copy").read_bytes()) == (b"two", b"three")
    part.delete("3")
    with pytest.raises(ObjectNotFoundError):
        whole.read("cat-toy/versions/3")


@pytest.mark.parametrize("key", ["../x", "", "/etc/passwd"])
def test_part_of_a_store_is_not_left(key: str, tmp_path: Path) -> None:
    part = StoreBelow(open_store(str(tmp_path)), "cat-toy")
    for use in (part.read, part.stat, part.delete, part.uri_of):
        with pytest.raises(InputError):
            use(key)
