"""The Dockerfiles: one pattern, and in each image the steps that run in it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from components.common.images import IMAGE_NAMES, image
from tests.containers.recipes import CONTAINERS, ROOT, dockerfile
from tests.servers import which

STEPS = sorted(file.parent.name for file in (ROOT / "components").glob("*/component.py"))
DRIVER = "ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64"


def shape(name: str) -> list[str]:
    """An image's Dockerfile without what is its own."""
    own = ("COPY components/", DRIVER)
    return [line.replace(name, "NAME") for line in dockerfile(name) if not line.startswith(own)]


def image_of(step: str) -> str:
    """The name of the image that a step's component names."""
    component = getattr(importlib.import_module(f"components.{step}.component"), step)
    reference = component.component_spec.implementation.container.image
    return next(name for name in IMAGE_NAMES if image(name) == reference)


def test_every_image_has_its_folder_and_no_other_file():
    assert {folder.name for folder in CONTAINERS.iterdir() if folder.is_dir() and folder.name != "__pycache__"} == set(
        IMAGE_NAMES
    )
    for name in IMAGE_NAMES:
        files = {file.name for file in (CONTAINERS / name).iterdir()}
        assert files == {"Dockerfile", "requirements.in", "requirements.txt"}, name


@pytest.mark.parametrize("name", IMAGE_NAMES)
def test_dockerfile_follows_the_one_pattern(name: str):
    assert shape(name) == shape("dataset")


@pytest.mark.parametrize("name", IMAGE_NAMES)
def test_image_runs_as_an_ordinary_user_and_leaves_the_command_to_kubernetes(name: str):
    instructions = [line.split()[0] for line in dockerfile(name)]
    assert not {"ENTRYPOINT", "CMD", "ADD", "VOLUME"} & set(instructions)
    assert [line for line in dockerfile(name) if line.startswith("USER")] == ["USER 1000:1000"]


@pytest.mark.parametrize("step", STEPS)
def test_step_is_in_the_image_of_its_component(step: str):
    assert f"COPY components/{step} components/{step}" in dockerfile(image_of(step))


def test_images_that_may_have_an_nvidia_gpu_find_its_driver():
    assert [name for name in IMAGE_NAMES if DRIVER in dockerfile(name)] == ["train-torch", "evaluate"]


@pytest.mark.parametrize("name", IMAGE_NAMES)
def test_hadolint_finds_nothing(name: str):
    checked = subprocess.run(
        [which("hadolint"), "--failure-threshold", "style", str(CONTAINERS / name / "Dockerfile")],
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
