"""Pictures in object stores and on the Hub, read by the real client libraries from servers on loopback."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.common.artifacts import ImageSet
from components.common.errors import ImageError, StorageError
from components.common.sources.picture_listing import fingerprint_images
from components.common.storage import open_store
from components.common.storage.retries import RETRY_SECONDS_VARIABLE
from components.ingest_images.config import IngestConfig
from components.ingest_images.ingest import ingest_images
from tests.ingest_images.conftest import DatasetHub, random_pixels


def ingest(uri: str, output: Path) -> ImageSet:
    ingest_images(IngestConfig(images_uri=uri, resolution=32, center_crop=True), output)
    return ImageSet.read(output)


def assert_same_pictures(one: ImageSet, other: ImageSet) -> None:
    assert one.pictures == other.pictures
    assert len(one.pixels) == len(other.pixels) > 0
    for found, expected in zip(one.pixels, other.pixels, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.fixture(params=["gs", "s3"])
def bucket_uri(request: pytest.FixtureRequest) -> str:
    """A prefix in a bucket of each kind."""
    return request.getfixturevalue({"gs": "gcs_bucket_uri", "s3": "s3_bucket_uri"}[request.param])


def test_pictures_when_in_a_bucket_are_those_of_the_folder(
    bucket_uri: str, three_pictures: Path, tmp_path: Path
) -> None:
    open_store(bucket_uri).upload_folder(three_pictures, "cat")
    open_store(bucket_uri).write("cat-toy/else.png", b"of another folder with a similar name")
    assert_same_pictures(ingest(f"{bucket_uri}/cat/", tmp_path / "a"), ingest(str(three_pictures), tmp_path / "b"))


def test_fingerprint_when_a_picture_in_a_bucket_is_replaced_is_another(bucket_uri: str, three_pictures: Path) -> None:
    store = open_store(bucket_uri)
    store.upload_folder(three_pictures, "")
    first = fingerprint_images(bucket_uri)
    assert fingerprint_images(bucket_uri + "/") == first
    data = bytearray(store.read("0.png"))
    data[-1] ^= 1
    store.write("0.png", bytes(data))
    assert fingerprint_images(bucket_uri) != first


def test_bucket_when_empty_below_the_prefix_says_so(bucket_uri: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=f"found no picture in {bucket_uri}/cat: it holds nothing"):
        ingest(f"{bucket_uri}/cat", tmp_path / "out")


def test_bucket_when_absent_says_so(bucket_uri: str, tmp_path: Path) -> None:
    absent = bucket_uri.partition("://")[0] + "://no-such-bucket-here/cat"
    with pytest.raises(StorageError, match="no-such-bucket-here"):
        ingest(absent, tmp_path / "out")


def test_pictures_when_on_the_hub_are_those_of_the_folder(
    dataset_hub: DatasetHub, three_pictures: Path, tmp_path: Path
) -> None:
    (three_pictures / ".gitattributes").write_text("*.png filter=lfs")
    (three_pictures / "README.md").write_text("---\nlicense: mit\n---\n")
    dataset_hub.add_repository("diffusers/cat_toy_example", three_pictures)
    images = ingest("hf://datasets/diffusers/cat_toy_example", tmp_path / "a")
    assert_same_pictures(images, ingest(str(three_pictures), tmp_path / "b"))
    assert images.pictures[0].caption == "a toy cat"
    fetched = {path.rpartition("/")[2] for path in dataset_hub.downloads()}
    assert fetched == {"0.png", "1.png", "2.png", "0.txt"}


def test_fingerprint_when_on_the_hub_downloads_nothing(dataset_hub: DatasetHub, three_pictures: Path) -> None:
    dataset_hub.add_repository("o/n", three_pictures)
    first = fingerprint_images("hf://datasets/o/n")
    assert fingerprint_images("hf://datasets/o/n/") == first
    assert dataset_hub.downloads() == []
    Image.fromarray(random_pixels(40, 40, seed=7)).save(three_pictures / "0.png")
    dataset_hub.add_repository("o/n", three_pictures)
    assert fingerprint_images("hf://datasets/o/n") != first


def test_revision_when_given_is_read(dataset_hub: DatasetHub, three_pictures: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(three_pictures, old)
    (old / "2.png").unlink()
    commit = dataset_hub.add_repository("o/n", old, branch="v1")
    dataset_hub.add_repository("o/n", three_pictures)
    assert len(ingest("hf://datasets/o/n", tmp_path / "a").pictures) == 3
    assert len(ingest("hf://datasets/o/n@v1", tmp_path / "b").pictures) == 2
    assert len(ingest(f"hf://datasets/o/n@{commit}", tmp_path / "c").pictures) == 2


def test_folder_of_a_dataset_when_given_is_read(dataset_hub: DatasetHub, three_pictures: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(three_pictures, repository / "cats" / "toys")
    Image.fromarray(random_pixels(40, 40, seed=8)).save(repository / "other.png")
    dataset_hub.add_repository("o/n", repository)
    images = ingest("hf://datasets/o/n@main/cats/toys", tmp_path / "a")
    assert [picture.source for picture in images.pictures] == ["0.png", "1.png", "2.png"]
    assert images.pictures[0].caption == "a toy cat"


def test_token_when_the_dataset_is_gated_is_sent(
    dataset_hub: DatasetHub, three_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset_hub.add_repository("o/n", three_pictures)
    dataset_hub.token = "hf_secret"
    with pytest.raises(ImageError, match=r"shows no dataset o/n: check its name.*HF_TOKEN"):
        ingest("hf://datasets/o/n", tmp_path / "a")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert len(ingest("hf://datasets/o/n", tmp_path / "a").pictures) == 3


def test_dataset_when_absent_says_so(dataset_hub: DatasetHub, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=rf"{dataset_hub.url} shows no dataset o/n"):
        ingest("hf://datasets/o/n", tmp_path / "out")


def test_revision_when_absent_says_so(dataset_hub: DatasetHub, three_pictures: Path, tmp_path: Path) -> None:
    dataset_hub.add_repository("o/n", three_pictures)
    with pytest.raises(ImageError, match="no such revision: give a branch, tag or commit"):
        ingest("hf://datasets/o/n@v9", tmp_path / "out")


def test_hub_when_it_does_not_answer_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(RETRY_SECONDS_VARIABLE, "0.1")
    with pytest.raises(StorageError, match=r"hf://datasets/o/n: no usable answer"):
        ingest("hf://datasets/o/n", tmp_path / "out")


def test_hub_when_it_fails_for_a_while_is_asked_again(
    dataset_hub: DatasetHub, three_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.common.storage.retries.FIRST_DELAY_S", 0.01)
    dataset_hub.add_repository("o/n", three_pictures)
    dataset_hub.failures_left = 2
    assert len(ingest("hf://datasets/o/n", tmp_path / "a").pictures) == 3
    assert dataset_hub.failures_left == 0


@pytest.mark.parametrize("uri", ["hf://o/n", "hf://datasets/n", "hf://datasets/o/n@", "hf://datasets/", "hf://"])
def test_address_when_it_names_no_dataset_says_how_one_is_written(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="expected hf://datasets/owner/name"):
        ingest(uri, tmp_path / "out")
