"""Parsers fed with sound input that was damaged by chance: they read it, or refuse it by an error of ours.

`TEXTUAL_INVERSION_FUZZ_EXAMPLES` says how many inputs each parser gets; set, they are others each time.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from components.common.artifact_folder import MANIFEST, canonical_json, sha256_of
from components.common.artifacts import learned_embeds_bytes, read_learned_embeds, safetensors_bytes
from components.common.base_model import reference_from
from components.common.errors import TextualInversionError
from components.common.registry.documents import from_document, to_document
from components.common.registry.entry import RegistryEntry
from components.common.sources import models
from components.common.sources.checks import check_safetensors
from components.common.sources.picture_listing import list_pictures
from components.common.sources.pictures import open_source
from components.common.start_word import StartWord
from components.common.storage import open_store
from components.common.storage.addresses import local_path, split_uri
from components.common.training.checkpoints import Checkpoint, CheckpointFolder, TrainingState
from components.flax_models.weights import read_weights
from components.ingest_images.captions import read_captions
from components.ingest_images.decoding import decode_picture
from components.init_embedding.token_table import read_token_row
from components.preflight.options import check_options, known_options
from tests.common.test_artifacts import MAKERS, Maker
from tests.hostile.fuzzing import damaged_bytes, damaged_json, damaged_safetensors, odd_values

_EXAMPLES = os.environ.get("TEXTUAL_INVERSION_FUZZ_EXAMPLES")
fuzzed = settings(
    max_examples=int(_EXAMPLES or 300),
    derandomize=_EXAMPLES is None,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")
"""What pictures are saved as, each with metadata where the format has any."""


@contextlib.contextmanager
def only_our_errors() -> Iterator[None]:
    """Lets an error of ours pass when it is one line."""
    try:
        yield
    except TextualInversionError as error:
        assert all("\n" not in mistake for mistake in error.mistakes)


def picture_file(format_: str, **more: Any) -> bytes:
    """A small picture with EXIF, in the given format of Pillow."""
    pixels = np.random.default_rng(1).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format_, **({} if format_ == "BMP" else {"exif": exif}), **more)
    return stream.getvalue()


@pytest.mark.parametrize("format_", PICTURE_FORMATS)
def test_damaged_pictures(format_: str) -> None:
    @fuzzed
    @given(damaged_bytes(picture_file(format_)))
    def decode(data: bytes) -> None:
        with only_our_errors():
            decode_picture(data)

    decode()


def test_damaged_captions(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture_file("PNG"))
    source = open_source(str(tmp_path))
    entry = {"file_name": "a.png", "text": "a toy 🐈"}
    lines = damaged_json(entry).map(lambda value: json.dumps(value).encode())

    @fuzzed
    @given(lines | damaged_bytes(canonical_json(entry)), damaged_bytes("a photo of a toy 🐈\n".encode()))
    def read(metadata: bytes, caption: bytes) -> None:
        (tmp_path / "metadata.jsonl").write_bytes(metadata)
        (tmp_path / "a.txt").write_bytes(caption)
        with only_our_errors():
            read_captions(source, list_pictures(source))

    read()


def start_word() -> StartWord:
    """What the search for a start word found."""
    losses = {"star": 0.17, "shape": 0.2}
    digests = {"base_model_digest": "b" * 64, "latent_set_digest": "l" * 64}
    return StartWord(
        word="star", was_given=False, template="a {}", loss=0.17, no_word_loss=0.21, best=losses, **digests
    )


@pytest.mark.parametrize("make", [*MAKERS, start_word], ids=lambda make: make.__name__)
def test_damaged_manifests_with_the_right_digest(make: Maker, tmp_path: Path) -> None:
    artifact = make()
    artifact.write(tmp_path)
    sound = json.loads((tmp_path / MANIFEST).read_text(encoding="utf-8"))
    del sound["digest"]

    @fuzzed
    @given(damaged_json(sound))
    def read(body: Any) -> None:
        if isinstance(body, dict):
            with contextlib.suppress(ValueError):
                body = {**body, "digest": sha256_of(canonical_json(body))}
        (tmp_path / MANIFEST).write_text(json.dumps(body), encoding="utf-8")
        with only_our_errors():
            type(artifact).read(tmp_path)

    read()


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_damaged_files_with_the_right_digest(make: Maker, tmp_path: Path) -> None:
    artifact = make()
    artifact.write(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text(encoding="utf-8"))
    files = {name: (tmp_path / name).read_bytes() for name in manifest["files"]}
    damages = {
        name: damaged_safetensors(data) | damaged_bytes(data) if name.endswith(".safetensors") else damaged_bytes(data)
        for name, data in files.items()
    }

    @fuzzed
    @given(st.sampled_from(sorted(files)).flatmap(lambda name: st.tuples(st.just(name), damages[name])))
    def read(changed: tuple[str, bytes]) -> None:
        name, data = changed
        body = json.loads(json.dumps({key: value for key, value in manifest.items() if key != "digest"}))
        body["files"][name] = {"sha256": sha256_of(data), "size": len(data)}
        (tmp_path / MANIFEST).write_text(json.dumps({**body, "digest": sha256_of(canonical_json(body))}))
        (tmp_path / name).write_bytes(data)
        try:
            with only_our_errors():
                type(artifact).read(tmp_path)
        finally:
            (tmp_path / name).write_bytes(files[name])

    read()


def test_damaged_references() -> None:
    sound = {
        "source": "hf://a/b",
        "repository": "a/b",
        "revision": "0" * 40,
        "kind": "clip",
        "variant": "",
        "store": "gs://bucket/models",
        "files": {"config.json": ["a" * 64, 12]},
    }

    @fuzzed
    @given(damaged_json(sound))
    def read(content: Any) -> None:
        with only_our_errors():
            reference_from(content, where="here")

    read()


def test_damaged_checkpoints(tmp_path: Path) -> None:
    folder = CheckpointFolder(open_store(str(tmp_path)), {"seed": 1})
    rows = {"text_encoder": np.ones((2, 4), np.float32)}
    state = TrainingState(step=3, rows=rows, first_moment=rows, second_moment=rows)
    losses = np.ones(3, np.float32)
    folder.save(Checkpoint(state=state, losses=losses, fixed_batch_losses=losses[:0], snapshots=()))
    [file] = tmp_path.rglob("step-*")
    sound = file.read_bytes()

    @fuzzed
    @given(damaged_bytes(sound) | damaged_safetensors(sound))
    def read(data: bytes) -> None:
        file.write_bytes(data)
        folder.latest(at_most=100)
        with only_our_errors():
            folder.named(file.stem)

    read()


def test_damaged_safetensors(tmp_path: Path) -> None:
    rows = np.ones((3, 4), np.float32)
    table = safetensors_bytes({"embeddings.token_embedding.weight": rows, "other": rows[0]}, {"format": "pt"})
    file = tmp_path / "model.safetensors"

    @fuzzed
    @given(damaged_bytes(table) | damaged_safetensors(table))
    def read(data: bytes) -> None:
        file.write_bytes(data)
        with only_our_errors():
            check_safetensors(file, file.name)
        with only_our_errors():
            read_token_row(tmp_path, 1)
        with only_our_errors():
            read_weights(tmp_path, "CLIPTextModel")

    read()


def test_damaged_learned_embeds(tmp_path: Path) -> None:
    sound = learned_embeds_bytes("<cat>", {"text_encoder": np.ones((2, 4), np.float32)}, {"steps": "3"})
    file = tmp_path / "learned_embeds.safetensors"

    @fuzzed
    @given(damaged_bytes(sound) | damaged_safetensors(sound))
    def read(data: bytes) -> None:
        file.write_bytes(data)
        with only_our_errors():
            read_learned_embeds(file)

    read()


def test_damaged_registry_documents() -> None:
    facts = {"concept": "cat", "concept_version": 1, "created": "2026-01-01T00:00:00Z", "bundle_digest": "0" * 64}
    facts |= {"placeholder_token": "<cat>", "learnable_property": "object", "tokens": ["<cat>"], "passed": True}
    content = {**facts, "scores": {}, "lineage": {}, "files": {"a.bin": {"sha256": "0" * 64, "size": 1}}}
    sound = to_document("registry-entry", content)

    @fuzzed
    @given(damaged_json(content), damaged_bytes(sound))
    def read(changed: Any, data: bytes) -> None:
        with only_our_errors():
            from_document("registry-entry", data, "here")
        if isinstance(changed, dict):
            with only_our_errors():
                RegistryEntry.from_bytes(to_document("registry-entry", changed), "here")

    read()


addresses = st.text(max_size=30) | st.builds(
    "{}{}{}".format,
    st.sampled_from(
        ("", "file://", "file:///", "gs://", "s3://", "minio://", "hf://", "~", "~nobody/", "GS://", "http://")
    ),
    st.text(alphabet="ab/.%~:@[]\\\0 \n?#0é", max_size=20),
    st.sampled_from(("", "/", "/../x", "/.", "%2e%2e", "%00", "@main", ".safetensors")),
)


@fuzzed
@given(addresses)
def test_odd_addresses(address: str) -> None:
    with only_our_errors():
        split_uri(address)
    if address.lower().startswith(("hf://", "gs://", "s3://", "minio://")):
        return  # these ask a server, or look for credentials
    with contextlib.suppress(TextualInversionError):
        if local_path(address).exists():
            return  # all of this machine
    for opened in (open_store, open_source, models.open_source):
        with only_our_errors():
            opened(address)


@fuzzed
@given(st.dictionaries(st.sampled_from(sorted(known_options())), odd_values, min_size=1, max_size=4))
def test_odd_options(options: dict[str, Any]) -> None:
    with only_our_errors():
        check_options(options)
