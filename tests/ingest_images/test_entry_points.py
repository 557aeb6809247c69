"""The step as a command and as a pipeline component."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from kfp import dsl

from components.common.artifacts import ImageSet
from components.ingest_images.component import ingest_images
from components.ingest_images.config import IngestConfig


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "components.ingest_images", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_command_when_given_a_folder_writes_the_image_set(three_pictures: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    done = run("--images-uri", str(three_pictures), "--resolution", "16", "--center-crop", "--output", output)
    assert done.returncode == 0, done.stderr
    images = ImageSet.read(tmp_path / "out")
    assert [pixels.shape for pixels in images.pixels] == [(16, 16, 3)] * 3
    assert "1.png: 60 x 40 -> 16 x 16 pixels" in done.stderr
    assert " done in " in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--images-uri", "absent"], "found no folder"),
        (["--images-uri", ""], "images_uri: found nothing"),
    ],
)
def test_command_when_the_input_is_bad_ends_with_one_line(flags: list[str], message: str, tmp_path: Path) -> None:
    done = run(*flags, "--output", str(tmp_path / "out"))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_command_when_asked_for_help_names_formats_and_fields() -> None:
    shown = run("--help").stdout
    assert "hf://datasets/diffusers/cat_toy_example" in shown
    for field in dataclasses.fields(IngestConfig):
        assert f"--{field.name.replace('_', '-')}" in shown


def test_component_when_called_writes_the_image_set_and_says_what_it_is(three_pictures: Path, tmp_path: Path) -> None:
    artifact = dsl.Dataset(name="image_set", uri=str(tmp_path / "out"))
    ingest_images.python_func(IngestConfig(images_uri=str(three_pictures), resolution=16).to_json(), artifact)
    assert artifact.metadata == {
        "display_name": "Pictures",
        "pictures": 3,
        "resolution": 16,
        "source": str(three_pictures),
        "digest": ImageSet.read(tmp_path / "out").digest,
    }


def test_component_when_input_is_bad_exits_with_the_code_of_its_kind(tmp_path: Path) -> None:
    artifact = dsl.Dataset(name="image_set", uri=str(tmp_path / "out"))
    with pytest.raises(SystemExit) as caught:
        ingest_images.python_func(IngestConfig(images_uri=str(tmp_path), resolution=16).to_json(), artifact)
    assert caught.value.code == 2
