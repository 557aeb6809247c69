"""The contract of the five artifacts: what is written is what is read, and nothing else is read as one."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from components.common.artifact_folder import (
    MANIFEST,
    canonical_json,
    read_artifact,
    sha256_of,
    write_artifact,
)
from components.common.artifacts import (
    LEARNED_EMBEDS,
    Evaluation,
    ImageSet,
    InitialEmbedding,
    Latents,
    LatentSet,
    LearnedEmbedding,
    Picture,
    Sample,
    Snapshot,
    learned_embeds_bytes,
    read_clip_skip,
    read_learned_embeds,
    safetensors_bytes,
)
from components.common.errors import ArtifactError
from components.common.tensors import STORED_AS

RANDOM = np.random.default_rng(5)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def bytes_of(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def picture(source: str = "cat/1.jpg", caption: str | None = "ein Kätzchen 🐈") -> Picture:
    return Picture(source=source, caption=caption, original_size=(48, 40), crop_top_left=(4, 0), size=(16, 16))


def image_set() -> ImageSet:
    return ImageSet(
        pictures=(picture(), picture("2.png", None)),
        pixels=(bytes_of(16, 16, 3), bytes_of(8, 24, 3)),
        masks=(None, bytes_of(8, 24)),
    )


def latent_set() -> LatentSet:
    plain = Latents(
        picture=picture(),
        mean=floats(4, 8, 8),
        std=floats(4, 8, 8),
        flipped_mean=floats(4, 8, 8),
        flipped_std=floats(4, 8, 8),
    )
    masked = dataclasses.replace(plain, picture=picture("2.png", None), mask=floats(8, 8))
    return LatentSet(
        latents=(plain, masked), scaling_factor=0.18215, base_model_digest="b" * 64, image_set_digest="i" * 64
    )


def initial_embedding() -> InitialEmbedding:
    return InitialEmbedding(
        placeholder_token="<猫>",
        tokens=("<猫>", "<猫>_1"),
        token_ids=(49408, 49409),
        initializer_token="toy",
        initializer_token_id=5988,
        rows={"text_encoder": floats(2, 8), "text_encoder_2": floats(2, 12)},
        base_model_digest="b" * 64,
    )


def learned_embedding() -> LearnedEmbedding:
    rows = {"text_encoder": floats(2, 8)}
    return LearnedEmbedding(
        placeholder_token="<cat-toy>",
        tokens=("<cat-toy>", "<cat-toy>_1"),
        initializer_token="toy",
        learnable_property="object",
        rows=rows,
        initial_rows={"text_encoder": floats(2, 8)},
        snapshots=(Snapshot(step=2, rows={"text_encoder": floats(2, 8)}), Snapshot(step=10, rows=rows)),
        losses=floats(10),
        fixed_batch_losses=floats(3),
        training_key="k" * 64,
        config={"learning_rate": 5e-4, "seed": None, "betas": [0.9, 0.999]},
        lineage={"latent_set_digest": "l" * 64, "framework": "torch"},
    )


def evaluation() -> Evaluation:
    return Evaluation(
        placeholder_token="<cat-toy>",
        passed=False,
        reasons=("clip_i is 0.1, expected 0.65 or more",),
        scores={"before": {"clip_i": 0.1, "clip_t": 0.2}, "after": {"clip_i": 0.1, "clip_t": 0.3}},
        settings={"steps": 20, "prompts": ["a photo of a {}"]},
        samples=(
            Sample(variant="before", prompt="a photo of a toy", seed=1, pixels=bytes_of(8, 8, 3)),
            Sample(variant="after", prompt="a photo of a <cat-toy>", seed=1, pixels=bytes_of(8, 8, 3)),
        ),
        report_html="<h1>größer</h1>\n",
        learned_embedding_digest="e" * 64,
    )


Maker = Callable[[], Any]
MAKERS: list[Maker] = [image_set, latent_set, initial_embedding, learned_embedding, evaluation]
every_artifact = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)


def assert_same(found: Any, expected: Any) -> None:
    """Holds two values against each other, arrays by dtype, shape and every element."""
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif dataclasses.is_dataclass(expected):
        assert type(found) is type(expected)
        for field in dataclasses.fields(expected):
            if field.name not in ("digest", "plain_digest"):  # which reading alone gives
                assert_same(getattr(found, field.name), getattr(expected, field.name))
    elif isinstance(expected, dict):
        assert sorted(found) == sorted(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, tuple):
        assert isinstance(found, tuple)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


def edit_manifest(path: Path, **changes: Any) -> None:
    """Changes a manifest and makes its digest right again, as another release would have done."""
    body = json.loads((path / MANIFEST).read_text(encoding="utf-8")) | changes
    covered = {key: body[key] for key in ("format", "version", "content", "files")}
    (path / MANIFEST).write_text(json.dumps({**body, "digest": sha256_of(canonical_json(covered))}))


@every_artifact
def test_artifact_when_written_and_read_is_the_same(make: Maker, tmp_path: Path) -> None:
    artifact = make()
    written = artifact.write(tmp_path / "deep" / "out")
    found = type(artifact).read(tmp_path / "deep" / "out")
    assert_same(found, artifact)
    assert found.digest == written.digest
    assert len(found.digest) == 64


@every_artifact
def test_digest_when_written_again_or_moved_is_the_same(make: Maker, tmp_path: Path) -> None:
    artifact = make()
    first = artifact.write(tmp_path / "one").digest
    assert artifact.write(tmp_path / "elsewhere" / "two").digest == first
    assert type(artifact).read(tmp_path / "one").write(tmp_path / "three").digest == first
    shutil.move(tmp_path / "one", tmp_path / "moved")
    assert type(artifact).read(tmp_path / "moved").digest == first


@every_artifact
def test_digest_when_something_differs_differs(make: Maker, tmp_path: Path) -> None:
    artifact = make()
    other = {
        ImageSet: lambda a: dataclasses.replace(a, pixels=(a.pixels[0] ^ 1, a.pixels[1])),
        LatentSet: lambda a: dataclasses.replace(a, scaling_factor=0.13025),
        InitialEmbedding: lambda a: dataclasses.replace(a, token_ids=(5, 6)),
        LearnedEmbedding: lambda a: dataclasses.replace(a, losses=a.losses + 1),
        Evaluation: lambda a: dataclasses.replace(a, passed=True),
    }[type(artifact)](artifact)
    assert other.write(tmp_path / "b").digest != artifact.write(tmp_path / "a").digest


def test_digest_when_written_by_other_processes_is_the_same(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from components.common.artifacts import LearnedEmbedding as L;"
        "print(L.read(Path(sys.argv[1])).write(Path(sys.argv[2])).digest)"
    )
    first = learned_embedding().write(tmp_path / "first").digest
    for attempt in range(3):
        arguments = [sys.executable, "-c", code, str(tmp_path / "first"), str(tmp_path / f"again{attempt}")]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == first


@every_artifact
def test_read_when_it_is_another_kind_names_both(make: Maker, tmp_path: Path) -> None:
    artifact = make()
    artifact.write(tmp_path / "out")
    for other in (ImageSet, LatentSet, InitialEmbedding, LearnedEmbedding, Evaluation):
        if other is not type(artifact):
            with pytest.raises(ArtifactError, match=f"{artifact.KIND}.*expected.*{other.KIND}"):
                other.read(tmp_path / "out")


@every_artifact
def test_read_when_it_is_newer_names_both_versions(make: Maker, tmp_path: Path) -> None:
    artifact = make()
    artifact.write(tmp_path / "out")
    edit_manifest(tmp_path / "out", version=artifact.VERSION + 1)
    with pytest.raises(ArtifactError, match=r"found version 2.*expected version 1.*another release"):
        type(artifact).read(tmp_path / "out")


@every_artifact
def test_read_when_any_file_is_missing_names_it(make: Maker, tmp_path: Path) -> None:
    artifact = make()
    artifact.write(tmp_path / "out")
    for file in files_under(tmp_path / "out"):
        kept = file.read_bytes()
        file.unlink()
        with pytest.raises(ArtifactError, match=f"{file.name}.*is missing"):
            type(artifact).read(tmp_path / "out")
        file.write_bytes(kept)


@every_artifact
def test_read_when_any_byte_changed_names_the_file(make: Maker, tmp_path: Path) -> None:
    artifact = make()
    artifact.write(tmp_path / "out")
    for file in files_under(tmp_path / "out"):
        kept = file.read_bytes()
        for place in (0, len(kept) // 2, len(kept) - 1):
            file.write_bytes(kept[:place] + bytes([kept[place] ^ 1]) + kept[place + 1 :])
            with pytest.raises(ArtifactError, match=rf"{file.name}.*SHA-256"):
                type(artifact).read(tmp_path / "out")
        file.write_bytes(kept)


@every_artifact
def test_read_when_any_file_is_cut_short_gives_both_sizes(make: Maker, tmp_path: Path) -> None:
    artifact = make()
    artifact.write(tmp_path / "out")
    for file in files_under(tmp_path / "out"):
        kept = file.read_bytes()
        file.write_bytes(kept[:-1])
        with pytest.raises(ArtifactError, match=f"{len(kept) - 1} bytes, expected {len(kept)}"):
            type(artifact).read(tmp_path / "out")
        file.write_bytes(kept)


def files_under(path: Path) -> list[Path]:
    found = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name != MANIFEST]
    assert found
    return found


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"passed": false', '"passed": true', "changed by hand"),
        ('"passed": false', '"passed": NaN', "changed by hand"),
        ('"passed": false', '"passed": "\\ud800"', "changed by hand"),
        ('"digest": "', '"digest": "0', "changed by hand"),
        ('"files"', '"filez"', "lacks 'files'"),
        ('"digest"', '"digezt"', "lacks 'digest'"),
        ('"version": 1', '"version": null', "found version None"),
        ('"format": "textual-inversion/', '"format": "', "found an artifact of format 'evaluation'"),
        ("}\n", "", "no JSON"),
    ],
)
def test_read_when_the_manifest_was_edited_is_an_artifact_error(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    evaluation().write(tmp_path / "out")
    manifest = tmp_path / "out" / MANIFEST
    text = manifest.read_text(encoding="utf-8")
    assert old in text
    place = text.rindex(old)
    manifest.write_text(text[:place] + new + text[place + len(old) :], encoding="utf-8")
    with pytest.raises(ArtifactError, match=message):
        Evaluation.read(tmp_path / "out")


@pytest.mark.parametrize("data", [b"", b"[1, 2]", b"\xff\xfe\x00", b"null", b"{}", b'{"format": "x"}'])
def test_read_when_the_manifest_is_something_else_is_an_artifact_error(data: bytes, tmp_path: Path) -> None:
    image_set().write(tmp_path / "out")
    (tmp_path / "out" / MANIFEST).write_bytes(data)
    with pytest.raises(ArtifactError, match=r"artifact\.json|found an artifact of format"):
        ImageSet.read(tmp_path / "out")


@given(data=st.data())
def test_manifest_when_any_byte_changes_never_reads_as_something_else(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("flip") / "out"
    write_artifact(path, kind="k", version=1, content={"a": [1, 2.5, "ä"]}, files={"f/x.bin": b"123"})
    manifest = path / MANIFEST
    raw = bytearray(manifest.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    manifest.write_bytes(raw)
    try:
        content = read_artifact(path, kind="k", version=1).content
    except ArtifactError:
        return
    assert content == {"a": [1, 2.5, "ä"]}


@every_artifact
def test_read_when_nothing_is_there_says_what_is(make: Maker, tmp_path: Path) -> None:
    cls = type(make())
    with pytest.raises(ArtifactError, match=r"found nothing at .*absent, expected an artifact folder"):
        cls.read(tmp_path / "absent")
    with pytest.raises(ArtifactError, match=r"found a folder without artifact\.json"):
        cls.read(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="found a file at"):
        cls.read(tmp_path / "file")


def test_write_when_a_file_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be written"):
        write_artifact(tmp_path / "out", kind="k", version=1, content={}, files={"a": b"1", "a/b": b"a is no folder"})
    assert list(tmp_path.iterdir()) == []


def test_write_when_it_fails_keeps_the_earlier_artifact(tmp_path: Path) -> None:
    first = image_set().write(tmp_path / "out")
    with pytest.raises(ArtifactError, match="cannot be written"):
        write_artifact(tmp_path / "out", kind="image-set", version=1, content={}, files={"a": b"", "a/b": b""})
    assert ImageSet.read(tmp_path / "out").digest == first.digest
    assert [child.name for child in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("event", "ending"), [("open", "b.bin"), ("open", MANIFEST), ("os.rename", "")])
def test_write_when_killed_in_the_middle_leaves_no_artifact(event: str, ending: str, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from components.common.artifact_folder import write_artifact\n"
        "path, event, ending = Path(sys.argv[1]), sys.argv[2], sys.argv[3]\n"
        "def die(name, arguments):\n"
        "    if name == event and str(arguments[0]).endswith(ending): os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(die)\n"
        "write_artifact(path, kind='k', version=1, content={}, files={'a.bin': b'1', 'b.bin': b'2'})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out"), event, ending], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    write_artifact(tmp_path / "out", kind="k", version=1, content={}, files={"a.bin": b"1"})
    assert read_artifact(tmp_path / "out", kind="k", version=1).path == tmp_path / "out"


@pytest.mark.parametrize(
    ("event", "number"), [("os.rename", 1), ("os.rename", 2), *(("os.remove", number) for number in (1, 2, 3))]
)
def test_write_when_killed_while_replacing_leaves_no_part(event: str, number: int, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from components.common.artifact_folder import write_artifact\n"
        "path, event, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])\n"
        "def die(name, arguments):\n"
        "    global number\n"
        "    number -= name == event\n"
        "    if name == event and number == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(die)\n"
        "write_artifact(path, kind='k', version=1, content={}, files={'a.bin': b'1', 'b.bin': b'2'})\n"
    )
    out = tmp_path / "out"
    write_artifact(out, kind="k", version=1, content={}, files={"a.bin": b"1", "c.bin": b"3"})
    done = subprocess.run([sys.executable, "-c", code, str(out), event, str(number)], check=False)
    assert done.returncode == -signal.SIGKILL
    if out.exists():
        read_artifact(out, kind="k", version=1)
    write_artifact(out, kind="k", version=1, content={}, files={"a.bin": b"1"})
    assert read_artifact(out, kind="k", version=1).path == out


@every_artifact
def test_write_when_an_earlier_artifact_is_there_replaces_it_whole(make: Maker, tmp_path: Path) -> None:
    write_artifact(tmp_path / "out", kind="k", version=1, content={}, files={"left/over.bin": b"old"})
    artifact = make()
    artifact.write(tmp_path / "out")
    assert_same(type(artifact).read(tmp_path / "out"), artifact)
    assert not (tmp_path / "out" / "left").exists()


def test_write_when_the_folder_is_empty_takes_it(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    image_set().write(tmp_path / "out")
    assert len(ImageSet.read(tmp_path / "out").pictures) == 2


def test_write_when_other_things_lie_there_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"home is a folder with other things in it: give an output folder"):
        image_set().write(tmp_path / "home")
    with pytest.raises(ArtifactError, match="is no folder: give an output folder"):
        image_set().write(tmp_path / "home" / "thesis.txt")
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"
    assert [child.name for child in tmp_path.iterdir()] == ["home"]


def test_write_when_written_is_readable_by_others(tmp_path: Path) -> None:
    image_set().write(tmp_path / "out")
    assert os.stat(tmp_path / "out").st_mode & 0o777 == 0o755


@pytest.mark.parametrize("score", [float("nan"), np.float32("inf")])
def test_write_when_a_score_is_no_number_says_so(score: float, tmp_path: Path) -> None:
    bad = dataclasses.replace(evaluation(), scores={"after": {"clip_i": score}})
    with pytest.raises(ArtifactError, match=r"content of the evaluation .* cannot be written as JSON"):
        bad.write(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_write_when_scores_are_numpy_numbers_reads_plain_ones(tmp_path: Path) -> None:
    scores = {"after": {"clip_i": np.float32(0.5), "clip_t": np.float64(0.25)}}
    dataclasses.replace(evaluation(), scores=scores, passed=np.bool_(True)).write(tmp_path / "out")
    found = Evaluation.read(tmp_path / "out")
    assert found.scores == {"after": {"clip_i": 0.5, "clip_t": 0.25}}
    assert found.passed is True


def test_learned_embedding_when_written_lies_in_the_files_of_the_reference_script(tmp_path: Path) -> None:
    embedding = learned_embedding()
    embedding.write(tmp_path / "out")
    assert (tmp_path / "out" / "token_identifier.txt").read_text() == "<cat-toy>"
    assert (tmp_path / "out" / "type_of_concept.txt").read_text() == "object"
    tensors = safetensors.numpy.load_file(tmp_path / "out" / LEARNED_EMBEDS)
    assert list(tensors) == ["<cat-toy>"]  # more than one key, and diffusers refuses the file
    np.testing.assert_array_equal(tensors["<cat-toy>"], embedding.rows["text_encoder"])


def test_learned_embeds_when_read_back_have_header_and_rows(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    rows = {"text_encoder": floats(3, 8), "text_encoder_2": floats(3, 12)}
    facts = {"placeholder_token": "<x>", "note": 'ä "quoted" \n line'}
    file.write_bytes(learned_embeds_bytes("<x>", rows, facts))
    assert sorted(safetensors.numpy.load_file(file)) == ["clip_g", "clip_l"]
    header, found = read_learned_embeds(file)
    assert header == facts
    assert_same(found, rows)


def test_learned_embeds_when_one_vector_from_elsewhere_has_one_row(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"<x>": floats(8)}, file)
    header, rows = read_learned_embeds(file)
    assert header == {"placeholder_token": "<x>"}
    assert rows["text_encoder"].shape == (1, 8)


@pytest.mark.parametrize(
    ("keys", "token", "encoders"),
    [
        (["<other>"], "<other>", ["text_encoder"]),
        (["emb_params"], "EasyNegative", ["text_encoder"]),
        (["clip_l", "clip_g"], "EasyNegative", ["text_encoder", "text_encoder_2"]),
    ],
)
def test_learned_embeds_when_others_wrote_them_are_named_as_there(
    keys: list[str], token: str, encoders: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "EasyNegative.safetensors"
    safetensors.numpy.save_file({key: floats(2, 8) for key in keys}, file, metadata={"format": "pt"})
    header, rows = read_learned_embeds(file)
    assert header["placeholder_token"] == token
    assert sorted(rows) == encoders


@pytest.mark.parametrize(("stored_as", "tolerance"), [("F32", 0), ("F64", 0), ("F16", 1e-3), ("BF16", 1e-2)])
def test_learned_embeds_when_stored_in_any_precision_are_float32(
    stored_as: str, tolerance: float, tmp_path: Path
) -> None:
    rows, file = floats(2, 8), tmp_path / "x.safetensors"
    data = (rows.view(np.uint32) >> 16).astype("<u2") if stored_as == "BF16" else rows.astype(STORED_AS[stored_as])
    tensor = {"dtype": stored_as, "shape": [2, 8], "data_offsets": [0, data.nbytes]}
    head = json.dumps({"<x>": tensor}).encode()
    file.write_bytes(len(head).to_bytes(8, "little") + head + data.tobytes())
    found = read_learned_embeds(file)[1]["text_encoder"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, rows, rtol=tolerance)


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (np.ones((2, 8), np.int64), "<x> has dtype I64, expected one of F32, F16, F64, BF16"),
        (np.ones((1, 2, 8), np.float32), r"a tensor of shape \[1, 2, 8\] for text_encoder, expected \[rows, width\]"),
        (np.ones((0, 8), np.float32), r"a tensor of shape \[0, 8\] for text_encoder"),
    ],
)
def test_learned_embeds_when_the_tensor_holds_no_rows_says_what_it_is(
    tensor: np.ndarray, expected: str, tmp_path: Path
) -> None:
    safetensors.numpy.save_file({"<x>": tensor}, tmp_path / "x.safetensors")
    with pytest.raises(ArtifactError, match=expected):
        read_learned_embeds(tmp_path / "x.safetensors")


@pytest.mark.parametrize("names", [(), ("<x>", "<y>"), ("clip_l", "<y>"), ("clip_l",), ("emb_params", "<y>")])
def test_learned_embeds_when_the_keys_are_others_names_them(names: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({name: floats(1, 8) for name in names}, file)
    with pytest.raises(ArtifactError, match=r"has the keys .*expected one placeholder token"):
        read_learned_embeds(file)


@pytest.mark.parametrize("data", [b"", b"not a tensor", b"\x80\x02}q\x00."])
def test_learned_embeds_when_no_safetensors_says_so(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"x\.safetensors is no safetensors file"):
        read_learned_embeds(tmp_path / "x.safetensors")
    with pytest.raises(ArtifactError, match=r"absent\.safetensors is no safetensors file"):
        read_learned_embeds(tmp_path / "absent.safetensors")


@given(
    names=st.lists(st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"), unique=True),
    facts=st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=4),
)
def test_safetensors_bytes_when_names_are_odd_load_alike(
    names: list[str], facts: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = {name: np.full((2, 3), index, np.float32) for index, name in enumerate(names)}
    data = safetensors_bytes(rows, facts)
    assert_same(dict(safetensors.numpy.load(data)), rows)
    file = tmp_path_factory.mktemp("odd") / "x.safetensors"
    file.write_bytes(data)
    with safetensors.safe_open(file, framework="numpy") as opened:
        assert dict(opened.metadata() or {}) == facts


@pytest.mark.parametrize("clip_skip", [0, 2])
def test_learned_embeds_say_how_many_layers_they_want_left_out(clip_skip: int, tmp_path: Path) -> None:
    learned = dataclasses.replace(learned_embedding(), config={"clip_skip": clip_skip})
    learned.write(tmp_path / "learned")
    assert LearnedEmbedding.read(tmp_path / "learned").clip_skip == clip_skip
    assert read_clip_skip(tmp_path / "learned" / LEARNED_EMBEDS) == clip_skip
    (tmp_path / "x.safetensors").write_bytes(learned_embeds_bytes("<x>", learned.rows, {}, clip_skip=clip_skip))
    assert read_clip_skip(tmp_path / "x.safetensors") == clip_skip
    assert ("clip_skip" in read_learned_embeds(tmp_path / "learned" / LEARNED_EMBEDS)[0]) is bool(clip_skip)


def test_learned_embeds_when_text_encoders_have_different_numbers_of_rows_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"clip_l": floats(2, 4), "clip_g": floats(1, 8)}, file)
    with pytest.raises(ArtifactError, match=r"\(2 for text_encoder, 1 for text_encoder_2\), expected as many for each"):
        read_learned_embeds(file)


def test_learned_embeds_when_the_layers_are_no_number_says_so(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(learned_embeds_bytes("<x>", {"text_encoder": floats(1, 4)}, {"clip_skip": "two"}))
    with pytest.raises(ArtifactError, match="clip_skip 'two' in its header, expected a number"):
        read_clip_skip(file)
