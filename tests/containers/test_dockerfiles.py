"""The one Dockerfile, and the images that are built by it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kfp.dsl.base_component import BaseComponent

from components.common.images import IMAGE_NAMES, image
from tests.containers.imports import module_name
from tests.containers.recipes import CONTAINERS, ROOT, RUNS, dockerfile
from tests.servers import which

FACES = sorted((ROOT / "components").rglob("component.py"))


def images_of(face: Path) -> Iterator[str]:
    """The names of the images that a step's components name."""
    for component in vars(importlib.import_module(module_name(face))).values():
        if isinstance(component, BaseComponent):
            reference = component.component_spec.implementation.container.image
            yield next(name for name in IMAGE_NAMES if image(name) == reference)


def test_every_image_has_its_folder_and_no_other_file():
    folders = [folder for folder in CONTAINERS.iterdir() if folder.is_dir() and folder.name != "__pycache__"]
    assert {folder.name for folder in folders} == set(IMAGE_NAMES) == set(RUNS)
    for folder in folders:
        assert {file.name for file in folder.iterdir()} == {"requirements.in", "requirements.txt"}, folder.name


@pytest.mark.parametrize("name", IMAGE_NAMES)
def test_requirements_begin_with_what_the_image_is_for(name: str):
    first = (CONTAINERS / name / "requirements.in").read_text(encoding="utf-8").partition("\n")[0]
    assert first.startswith("# ") and first.endswith("."), first
    assert not set(first) & set('"$`\\'), "it stands in double quotes in the Makefile"


def test_images_run_as_an_ordinary_user_and_leave_the_command_to_kubernetes():
    instructions = [line.split()[0] for line in dockerfile()]
    assert not {"ENTRYPOINT", "CMD", "ADD", "VOLUME"} & set(instructions)
    assert [line for line in dockerfile() if line.startswith("USER")] == ["USER 1000:1000"]


def test_packages_are_those_of_the_lock_and_nothing_else():
    installing = [line for line in dockerfile() if "pip" in line.split() or "apt" in line]
    assert len(installing) == 1
    for option in ("--require-hashes", "--no-build-isolation", "--no-index --no-deps"):
        assert option in installing[0]
    assert [line for line in dockerfile() if line.startswith("COPY containers")] == [
        "COPY containers/${IMAGE}/requirements.txt /"
    ]


def test_images_find_the_driver_of_an_nvidia_gpu_on_gke():
    assert "ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64" in dockerfile()


@pytest.mark.parametrize("face", FACES, ids=module_name)
def test_step_runs_in_the_image_of_its_component(face: Path):
    step = face.parent.relative_to(ROOT / "components").as_posix()
    names = list(images_of(face))
    assert names
    for name in names:
        assert any(part == step or part.startswith(f"{step}/") for part in RUNS[name]), f"RUNS[{name!r}] lacks {step}"


def test_hadolint_finds_nothing():
    checked = subprocess.run(
        [which("hadolint"), "--failure-threshold", "style", str(CONTAINERS / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_names_and_references_are_listed_for_make():
    listing = [sys.executable, "-m", "components.common.images"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert names.split() == list(IMAGE_NAMES)
    environment = {**os.environ, "TEXTUAL_INVERSION_REGISTRY": "localhost:5000/team", "TEXTUAL_INVERSION_VERSION": "9"}
    references = subprocess.run(
        [*listing, "publish"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert references == "localhost:5000/team/publish:9\n"
