"""The step as a command and as a pipeline component."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kfp import dsl

from components.common.artifacts import InitialEmbedding
from components.init_embedding.component import init_embedding
from components.init_embedding.config import InitConfig


def test_command_when_the_input_is_bad_ends_with_one_line(tmp_path: Path) -> None:
    flags = ["--placeholder-token", "a b", "--initializer-token", "toy"]
    command = [sys.executable, "-m", "components.init_embedding", *flags, "--base-model", "x", "--output", "y"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "ERROR placeholder_token: found 'a b'" in line


def test_command_when_asked_for_help_names_every_field() -> None:
    command = [sys.executable, "-m", "components.init_embedding", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for field in dataclasses.fields(InitConfig):
        assert f"--{field.name.replace('_', '-')}" in shown


def test_component_when_called_writes_the_embedding_and_says_what_it_is(
    model_folder: Path, refer_to: Callable[[Path], Path], tmp_path: Path
) -> None:
    output = dsl.Model(name="initial_embedding", uri=str(tmp_path / "out"))
    init_embedding.python_func(
        InitConfig(placeholder_token="<cat-toy>", initializer_token="toy", num_vectors=2).to_json(),
        base_model=dsl.Model(name="base_model", uri=str(refer_to(model_folder))),
        start_word=dsl.Artifact(name="start_word", uri=str(tmp_path / "not read")),
        initial_embedding=output,
    )
    assert output.metadata == {
        "display_name": "Initial embedding",
        "placeholder_token": "<cat-toy>",
        "initializer_token": "toy",
        "num_vectors": 2,
        "initializer_embedding": "",
        "initializer_embedding_sha256": "",
        "digest": InitialEmbedding.read(tmp_path / "out").digest,
    }


def test_component_when_the_initializer_is_bad_exits_with_the_code_of_its_kind(
    model_folder: Path, refer_to: Callable[[Path], Path], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as caught:
        init_embedding.python_func(
            InitConfig(placeholder_token="<cat-toy>", initializer_token="toys").to_json(),
            base_model=dsl.Model(name="base_model", uri=str(refer_to(model_folder))),
            start_word=dsl.Artifact(name="start_word", uri=str(tmp_path / "not read")),
            initial_embedding=dsl.Model(name="initial_embedding", uri=str(tmp_path / "out")),
        )
    assert caught.value.code == 2
