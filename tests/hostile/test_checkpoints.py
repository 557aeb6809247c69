"""Checkpoints that are damaged, old, misplaced or made by hand: passed over or refused, never believed."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from components.common.errors import ArtifactError, ConfigError, TextualInversionError
from components.common.training import checkpoints
from components.common.training.checkpoints import CheckpointFolder
from tests.common.training.bowl import BowlTrainer, bowl_checkpoints, train_bowl
from tests.common.training.test_loop import assert_same_outcome

TRIES = 300

Tensors = dict[str, np.ndarray]
Header = dict[str, str]


def file_of(root: Path, step: int) -> Path:
    return root / bowl_checkpoints(root).training_key / f"step-{step:08d}.safetensors"


def opened(file: Path) -> tuple[Header, Tensors]:
    with safetensors.safe_open(file, framework="numpy") as found:
        header = dict(found.metadata())
    return header, dict(safetensors.numpy.load_file(file))


def written(file: Path, header: Header, tensors: Tensors) -> None:
    """Writes a checkpoint by hand, with a digest that is right."""
    covered = {name: value for name, value in header.items() if name != "digest"}
    digest = checkpoints._digest_of(covered, tensors)
    file.write_bytes(safetensors.numpy.save(tensors, metadata={**covered, "digest": digest}))


def as_version_1(file: Path) -> None:
    """Writes a checkpoint as the release before wrote it."""
    header, tensors = opened(file)
    old = {name: header[name] for name in ("format", "step", "micro_batch_size", "key_fields")}
    digest = hashlib.sha256(b"".join(name.encode() + tensors[name].tobytes() for name in sorted(tensors))).hexdigest()
    file.write_bytes(safetensors.numpy.save(tensors, metadata={**old, "version": "1", "tensors_sha256": digest}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    train_bowl(tmp_path, max_train_steps=10)
    return tmp_path


def refused_in_a_line(folder: CheckpointFolder, name: str, kind: type[TextualInversionError]) -> str:
    with pytest.raises(kind) as refusal:
        folder.named(name)
    assert "\n" not in str(refusal.value)
    assert "delete it" in str(refusal.value)
    return str(refusal.value)


def header_with(**changes: str | None) -> Callable[[Header, Tensors], None]:
    def change(header: Header, tensors: Tensors) -> None:
        header.update({name: value for name, value in changes.items() if value is not None})
        for name in [name for name, value in changes.items() if value is None]:
            del header[name]

    return change


def tensors_with(**changes: np.ndarray | None) -> Callable[[Header, Tensors], None]:
    def change(header: Header, tensors: Tensors) -> None:
        for name, value in changes.items():
            tensors.pop(name.replace("__", "."), None)
            if value is not None:
                tensors[name.replace("__", ".")] = value

    return change


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


NONSENSE: dict[str, Callable[[Header, Tensors], None]] = {
    **{
        f"step {value[:12]!r}": header_with(step=value)
        for value in (
            "9",
            "11",
            "-1",
            "0",
            "1e1",
            "10.0",
            "ten",
            "",
            "null",
            "[10]",
            "\u0661\u0660",
            "1_0",
            "9" * 5000,
            '"10"',
        )
    },
    "no step": header_with(step=None),
    **{
        f"micro_batch_size {value[:12]!r}": header_with(micro_batch_size=value)
        for value in ("-1", "1.5", "true", "[]", "NaN", "", "[" * 100_000)
    },
    "no micro_batch_size": header_with(micro_batch_size=None),
    **{
        f"key_fields {value[:12]!r}": header_with(key_fields=value)
        for value in ("[]", "null", "7", "", "{", '{"seed": NaN}', '{"a":' * 100_000, '{"seed": "\\ud800"}')
    },
    "no key_fields": header_with(key_fields=None),
    "another format": header_with(format="somebody/checkpoint"),
    "a newer version": header_with(version="3"),
    "an older version": header_with(version="1"),
    "no version": header_with(version=None),
    "no losses": tensors_with(losses=None),
    "no fixed_batch_losses": tensors_with(fixed_batch_losses=None),
    "losses of fewer steps": tensors_with(losses=zeros(9)),
    "losses in a table": tensors_with(losses=zeros(10, 1)),
    "losses of doubles": tensors_with(losses=zeros(10, dtype=np.float64)),
    "infinite losses": tensors_with(losses=zeros(10) + np.inf),
    "no rows": tensors_with(rows__text_encoder=None),
    "no moment": tensors_with(first_moment__text_encoder=None),
    "nothing learned": tensors_with(
        **{f"{part}__text_encoder": None for part in ("rows", "first_moment", "second_moment", "snapshot.6")}
    ),
    "rows of another width": tensors_with(rows__text_encoder=zeros(2, 4)),
    "rows in a line": tensors_with(rows__text_encoder=zeros(6)),
    "rows of whole numbers": tensors_with(rows__text_encoder=zeros(2, 3, dtype=np.int32)),
    "rows of NaN": tensors_with(rows__text_encoder=zeros(2, 3) + np.nan),
    "infinite moment": tensors_with(second_moment__text_encoder=zeros(2, 3) + np.inf),
    "rows of another encoder": tensors_with(rows__text_encoder_2=zeros(2, 3)),
    "a snapshot of another shape": tensors_with(snapshot__6__text_encoder=zeros(1, 3)),
    "a snapshot of a later step": tensors_with(snapshot__11__text_encoder=zeros(2, 3)),
    "a snapshot of no step": tensors_with(snapshot__x__text_encoder=zeros(2, 3)),
    "a snapshot before the first step": tensors_with(**{"snapshot__-1__text_encoder": zeros(2, 3)}),
    "a snapshot of many digits": tensors_with(**{f"snapshot__{'9' * 5000}__text_encoder": zeros(2, 3)}),
    "a snapshot of NaN": tensors_with(snapshot__6__text_encoder=zeros(2, 3) + np.nan),
    "something else": tensors_with(**{"some\nthing": zeros(1)}),
}


@pytest.mark.parametrize("change", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_with_a_right_digest_is_passed_over_and_refused_by_name(
    change: Callable[[Header, Tensors], None], root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    header, tensors = opened(file_of(root, 10))
    change(header, tensors)
    written(file_of(root, 10), header, tensors)
    latest = bowl_checkpoints(root).latest(at_most=10)
    assert latest is not None and latest.state.step == 5
    assert "passing over a damaged checkpoint" in caplog.text
    refused_in_a_line(bowl_checkpoints(root), "step-00000010", ArtifactError)


@pytest.mark.parametrize("field", ["step", "micro_batch_size", "key_fields", "format", "version", "digest"])
def test_header_is_in_the_digest(field: str, root: Path) -> None:
    header, tensors = opened(file_of(root, 10))
    header[field] += " "  # the same in JSON
    file_of(root, 10).write_bytes(safetensors.numpy.save(tensors, metadata=header))
    latest = bowl_checkpoints(root).latest(at_most=10)
    assert latest is not None and latest.state.step == 5


def test_every_flip_and_cut_is_passed_over(root: Path, record_property: Callable[[str, int], None]) -> None:
    """The header's padding alone may change: it says nothing."""
    whole, chance = file_of(root, 10).read_bytes(), random.Random(0)
    expected = bowl_checkpoints(root).named("step-00000010")
    unharmed = 0
    for attempt in range(TRIES):
        data = bytearray(whole)
        if attempt % 3 == 0:
            del data[chance.randrange(len(data)) :]
        else:
            for _ in range(chance.choice((1, 1, 8))):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        file_of(root, 10).write_bytes(data)
        found = bowl_checkpoints(root).latest(at_most=10)
        assert found is not None
        if found.state.step == 10:
            unharmed += 1
            assert_same_outcome(found, expected)
    assert unharmed < TRIES / 50
    record_property("tried", TRIES)


def test_checkpoints_of_version_1_go_on_bit_by_bit(tmp_path: Path) -> None:
    whole = train_bowl(tmp_path / "whole")
    train_bowl(tmp_path / "old", max_train_steps=13)
    for file in (tmp_path / "old").rglob("step-*"):
        as_version_1(file)
    trainer = BowlTrainer()
    assert_same_outcome(train_bowl(tmp_path / "old", trainer), whole)
    assert trainer.steps_taken == 10


def test_version_1_with_a_changed_step_is_passed_over(root: Path) -> None:
    as_version_1(file_of(root, 10))
    header, tensors = opened(file_of(root, 10))
    file_of(root, 10).write_bytes(safetensors.numpy.save(tensors, metadata={**header, "step": "12"}))
    latest = bowl_checkpoints(root).latest(at_most=20)
    assert latest is not None and latest.state.step == 5


def test_checkpoint_under_another_name_is_passed_over(root: Path) -> None:
    file_of(root, 99).write_bytes(file_of(root, 10).read_bytes())
    latest = bowl_checkpoints(root).latest(at_most=100)
    assert latest is not None and latest.state.step == 10
    assert "is the checkpoint step-00000010" in refused_in_a_line(
        bowl_checkpoints(root), "step-00000099", ArtifactError
    )


def test_checkpoint_of_another_training_is_passed_over_where_a_sound_one_is(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    header, tensors = opened(file_of(root, 10))
    header["key_fields"] = json.dumps({"seed": 1, "task\nwith a line": "bowl"})
    written(file_of(root, 10), header, tensors)
    latest = bowl_checkpoints(root).latest(at_most=10)
    assert latest is not None and latest.state.step == 5
    assert "of another training, differs in seed: found 1, expected 0" in caplog.text
    refused_in_a_line(bowl_checkpoints(root), "step-00000010", ConfigError)
    file_of(root, 5).unlink()
    with pytest.raises(ConfigError, match="of another training"):
        bowl_checkpoints(root).latest(at_most=10)


def test_foreign_files_beside_the_checkpoints_are_left_alone(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    foreign = [file_of(root, 10).with_name(name) for name in ("notes.safetensors", "step-1.safetensors", "a.txt")]
    for file in foreign:
        file.write_bytes(b"mine")
    with caplog.at_level(logging.WARNING):
        train_bowl(root, max_train_steps=15, checkpoints_total_limit=1)
    assert [file.read_bytes() for file in foreign] == [b"mine"] * 3
    assert caplog.text == ""


HEADERS: dict[str, bytes] = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "a length of all bits": b"\xff" * 8 + b"{}",
    "no JSON": b"\x02\0\0\0\0\0\0\0{]",
    "a list": b"\x02\0\0\0\0\0\0\0[]",
    "deep": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "metadata in a list": (19).to_bytes(8, "little") + b'{"__metadata__":[]}',
    "metadata of numbers": (24).to_bytes(8, "little") + b'{"__metadata__":{"a":1}}',
}


@pytest.mark.parametrize("data", HEADERS.values(), ids=HEADERS.keys())
def test_bytes_that_are_no_checkpoint_stop_no_training(data: bytes, root: Path) -> None:
    file_of(root, 10).write_bytes(data)
    other = root / ("0" * 64) / "step-00000003.safetensors"
    other.parent.mkdir()
    other.write_bytes(data)
    latest = bowl_checkpoints(root).latest(at_most=10)
    assert latest is not None and latest.state.step == 5
    assert bowl_checkpoints(root).nearest_other() is None
    refused_in_a_line(bowl_checkpoints(root), "step-00000010", ArtifactError)
