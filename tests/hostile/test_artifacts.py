"""Artifacts that are damaged, or made by hand with digests that are right: refused in one line, never half read."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from components.common.artifact_folder import MANIFEST, canonical_json, read_artifact, sha256_of, table_of
from components.common.artifacts import Evaluation, ImageSet, InitialEmbedding, LatentSet, LearnedEmbedding
from components.common.base_model import read_reference, write_reference
from components.common.errors import ArtifactError
from tests.common.test_artifacts import (
    assert_same,
    evaluation,
    image_set,
    initial_embedding,
    latent_set,
    learned_embedding,
)
from tests.common.test_base_model import reference_to

TRIES = 300

Reader = Callable[[Path], Any]
Files = dict[str, bytes]


def write_model_reference(path: Path) -> None:
    write_reference(reference_to("gs://bucket/models"), path)


KINDS: dict[str, tuple[Callable[[Path], Any], Reader]] = {
    "image-set": (lambda path: image_set().write(path), ImageSet.read),
    "latent-set": (lambda path: latent_set().write(path), LatentSet.read),
    "initial-embedding": (lambda path: initial_embedding().write(path), InitialEmbedding.read),
    "learned-embedding": (lambda path: learned_embedding().write(path), LearnedEmbedding.read),
    "evaluation": (lambda path: evaluation().write(path), Evaluation.read),
    "base-model-reference": (write_model_reference, read_reference),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
READERS = {kind: read for kind, (_, read) in KINDS.items()}


def made(kind: str, path: Path) -> Path:
    KINDS[kind][0](path)
    return path


def manifest_of(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((path / MANIFEST).read_bytes())
    return body


def sign(path: Path, body: dict[str, Any]) -> None:
    """Writes a manifest by hand, with a digest that is right."""
    covered = {name: body[name] for name in ("format", "version", "content", "files") if name in body}
    digest = sha256_of(canonical_json(covered))
    (path / MANIFEST).write_text(json.dumps({**body, "digest": digest}, ensure_ascii=False), encoding="utf-8")


def put(path: Path, files: Files) -> None:
    """Replaces files of an artifact by hand, with digests that are right."""
    for name, data in files.items():
        (path / name).write_bytes(data)
    body = manifest_of(path)
    sign(path, {**body, "files": {**body["files"], **table_of(files)}})


def refusal_of(kind: str, path: Path) -> str:
    with pytest.raises(ArtifactError) as refusal:
        READERS[kind](path)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 1000
    return str(refusal.value)


def is_refused(kind: str, path: Path) -> bool:
    try:
        READERS[kind](path)
    except ArtifactError as error:
        assert "\n" not in str(error)
        return True
    return False


@every_kind
def test_every_flip_and_cut_is_refused(kind: str, tmp_path: Path, record_property: Callable[[str, int], None]) -> None:
    path, chance = made(kind, tmp_path / "out"), random.Random(0)
    expected = READERS[kind](path)
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    for attempt in range(TRIES):
        file = path / MANIFEST if attempt % 2 else chance.choice(files)
        whole = file.read_bytes()
        data = bytearray(whole)
        if attempt % 5 == 0:
            del data[chance.randrange(len(data)) :]
        else:
            for _ in range(chance.choice((1, 1, 8))):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
        if not is_refused(kind, path):  # whitespace of the manifest, or the same flip twice
            assert_same(READERS[kind](path), expected)
        file.write_bytes(whole)
    record_property("tried", TRIES)


VALUES: list[Any] = [
    *(None, True, 0, -1, 7, 1.5, 1e308, 10**30, "", "x", "../../etc/passwd", "/etc/passwd", "a\0b", "a\nb"),
    *([], {}, [None], [[]], [[1, 2], [3]], ["x"], {"a": None}, {"": {}}, {"../x": {"sha256": "0", "size": 1}}),
]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the parts of a JSON value are, the first two of each list."""
    yield at
    if isinstance(value, dict):
        for key, each in value.items():
            yield from places(each, (*at, key))
    elif isinstance(value, list):
        for index, each in enumerate(value[:2]):
            yield from places(each, (*at, index))


@every_kind
def test_every_part_replaced_by_nonsense_raises_nothing_else(
    kind: str, tmp_path: Path, record_property: Callable[[str, int], None]
) -> None:
    path = made(kind, tmp_path / "out")
    body, tried, refused = manifest_of(path), 0, 0
    for at in places({name: body[name] for name in ("format", "version", "content", "files")}):
        for value in [..., *VALUES] if at else []:
            changed = copy.deepcopy(body)
            inner = changed
            for step in at[:-1]:
                inner = inner[step]
            if value is ...:
                del inner[at[-1]]
            else:
                inner[at[-1]] = value
            sign(path, changed)
            refused += is_refused(kind, path)
            tried += 1
    assert refused > tried / 2
    record_property("tried", tried)


@pytest.mark.parametrize(
    "files",
    [
        *([], None, "x", 7, {"x": None}, {"x": []}, {"x": {"size": 1}}, {"x": {"sha256": "0" * 64}}),
        *({"x": {"sha256": "0" * 64, "size": size}} for size in ("1", -1, 1.5, None, 10**30, True)),
        *({"x": {"sha256": digest, "size": 1}} for digest in (7, None, [], "0")),
        *(
            {name: {"sha256": sha256_of(b"x"), "size": 1}}
            for name in ("../x", "/etc/hostname", "a\0b", "", ".", "..", "a//b", "a/../../x", "x" * 300, "a\nb", "x/")
        ),
    ],
    ids=lambda files: repr(files)[:50],
)
def test_nonsense_in_the_table_of_files_is_refused(files: Any, tmp_path: Path) -> None:
    path = made("image-set", tmp_path / "out")
    (tmp_path / "x").write_bytes(b"x")
    sign(path, {**manifest_of(path), "files": files})
    with pytest.raises(ArtifactError) as refusal:
        read_artifact(path, kind="image-set", version=1)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [[], None, 7, "x", {}, [["pictures", []]], {"pictures": {}}, {"pictures": [7]}])
@every_kind
def test_nonsense_in_the_content_is_refused(kind: str, content: Any, tmp_path: Path) -> None:
    path = made(kind, tmp_path / "out")
    sign(path, {**manifest_of(path), "content": content})
    refusal_of(kind, path)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\0", b"\xff\xfe", b"null", b"7", b'"x"', b"[]", b"{", b"{}" * 2, b"[" * 200_000, b'{"a":' * 200_000),
        *(b"9" * 5000, b"1e999", b'{"format": "\\ud800"}', b'{"format": NaN}', "{}".encode("utf-16")),
    ],
    ids=lambda data: repr(data[:16]),
)
@every_kind
def test_manifest_that_is_no_json_is_refused(kind: str, data: bytes, tmp_path: Path) -> None:
    path = made(kind, tmp_path / "out")
    (path / MANIFEST).write_bytes(data)
    refusal_of(kind, path)


def png(mode: str, size: tuple[int, int] = (8, 8), file_format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, file_format)
    return stream.getvalue()


def bomb() -> bytes:
    """The header of a picture of 2^31 - 1 pixels squared."""
    data = bytearray(png("RGB"))
    data[16:24] = (2**31 - 1).to_bytes(4, "big") * 2
    return bytes(data)


PICTURES = {
    "nothing": b"",
    "text": b"hello",
    "half": png("RGB", (64, 64))[:60],
    "a signature": png("RGB")[:8],
    "a bomb": bomb(),
    "a broken chunk": png("RGB")[:40] + b"\xff" * 40,
    "a GIF": png("P", file_format="GIF"),
    "a TIFF": png("RGB", file_format="TIFF"),
    "RGBA": png("RGBA"),
    "palette": png("P"),
    "bits": png("1"),
    "16 bits": png("I;16"),
}


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES.keys())
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("image-set", "pictures/0001.png"),
        ("image-set", "masks/0001.png"),
        ("evaluation", "samples/0000-before.png"),
    ],
)
def test_picture_that_is_none_is_refused(kind: str, name: str, data: bytes, tmp_path: Path) -> None:
    path = made(kind, tmp_path / "out")
    put(path, {name: data})
    assert name in refusal_of(kind, path)


def tensors(kind_of: str = "F32", shape: tuple[int, ...] = (2, 8), key: str = "x", size: int = 4) -> bytes:
    """A safetensors file of one tensor, of a type that numpy may not have."""
    length = int(np.prod(shape)) * size
    head = json.dumps({key: {"dtype": kind_of, "shape": shape, "data_offsets": [0, length]}}).encode()
    return len(head).to_bytes(8, "little") + head + bytes(length)


TENSOR_FILES = {
    "nothing": b"",
    "text": b"hello, world",
    "a length of all bits": b"\xff" * 8 + b"{}",
    "deep": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "no tensor": safetensors.numpy.save({}),
    "another tensor": tensors(),
    "BF16": tensors("BF16", size=2),
    "F8": tensors("F8_E4M3", size=1),
    "bits": tensors("BOOL", size=1),
    "whole numbers": tensors("I64", size=8),
    "no rows": tensors(shape=(0, 8)),
    "a scalar": tensors(shape=()),
    "a name of two lines": tensors(key="a\nb"),
}


@pytest.mark.parametrize("data", TENSOR_FILES.values(), ids=TENSOR_FILES.keys())
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("latent-set", LatentSet.FILE),
        ("learned-embedding", LearnedEmbedding.HISTORY),
    ],
)
def test_tensors_that_are_none_of_ours_are_refused(kind: str, name: str, data: bytes, tmp_path: Path) -> None:
    path = made(kind, tmp_path / "out")
    put(path, {name: data})
    refusal_of(kind, path)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        *(("latent-set", {f"0000.{name}": None}) for name in ("mean", "std", "flipped_mean", "flipped_std")),
        *(
            ("latent-set", {f"0000.{name}": np.zeros((4, 8, 7), np.float32)})
            for name in ("mean", "std", "flipped_mean", "flipped_std")
        ),
        ("latent-set", {"0001.mask": np.zeros((4, 8, 8), np.float32)}),
        ("latent-set", {"0001.mask": np.zeros((8, 7), np.float32)}),
        ("latent-set", {"0001.mask": np.zeros((8, 8), np.int64)}),
        ("initial-embedding", {"text_encoder": np.zeros((3, 8), np.float32)}),
        ("initial-embedding", {"text_encoder": np.zeros(8, np.float32)}),
        ("initial-embedding", {"text_encoder": np.zeros((2, 8), np.int32)}),
        ("initial-embedding", {"text_encoder": None, "text_encoder_2": None}),
        ("learned-embedding", {"losses": None}),
        ("learned-embedding", {"losses": np.zeros((2, 2), np.float32)}),
        ("learned-embedding", {"losses": np.zeros(10, np.int64)}),
        ("learned-embedding", {"initial.text_encoder": None}),
        ("learned-embedding", {"initial.text_encoder": np.zeros((2, 9), np.float32)}),
        ("learned-embedding", {"00000002.text_encoder": None, "00000002.other": np.zeros((2, 8), np.float32)}),
        ("learned-embedding", {"00000002.text_encoder": np.zeros((1, 8), np.float32)}),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_tensors_that_do_not_fit_are_refused(kind: str, changes: dict[str, np.ndarray | None], tmp_path: Path) -> None:
    path = made(kind, tmp_path / "out")
    name = {"latent-set": LatentSet.FILE, "initial-embedding": InitialEmbedding.FILE}.get(
        kind, LearnedEmbedding.HISTORY
    )
    found = {**safetensors.numpy.load_file(path / name), **changes}
    put(path, {name: safetensors.numpy.save({key: value for key, value in found.items() if value is not None})})
    refusal_of(kind, path)


@every_kind
def test_file_that_the_table_lacks_is_not_read(kind: str, tmp_path: Path) -> None:
    path = made(kind, tmp_path / "out")
    body = manifest_of(path)
    for name in body["files"]:
        sign(path, {**body, "files": {other: entry for other, entry in body["files"].items() if other != name}})
        assert name in refusal_of(kind, path)


def test_sample_in_the_place_of_another_file_is_refused(tmp_path: Path) -> None:
    path = made("evaluation", tmp_path / "out")
    put(path, {"learned_embeds.safetensors": png("RGB")})
    body = manifest_of(path)
    body["content"]["samples"][0]["file"] = "learned_embeds.safetensors"
    sign(path, body)
    assert "is not below samples/" in refusal_of("evaluation", path)


def test_report_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = made("evaluation", tmp_path / "out")
    put(path, {Evaluation.REPORT: b"\xff\xfe"})
    refusal_of("evaluation", path)


@every_kind
def test_folder_in_the_place_of_a_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = made(kind, tmp_path / "out")
    for name in [*manifest_of(path)["files"], MANIFEST]:
        data = (path / name).read_bytes()
        (path / name).unlink()
        (path / name).mkdir()
        refusal_of(kind, path)
        (path / name).rmdir()
        (path / name).write_bytes(data)
