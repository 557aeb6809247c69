"""The locks of the images: complete, hashed, free of what the image does not need, and as tested."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from components.common.images import IMAGE_NAMES
from tests.containers.recipes import ACCELERATOR_ONLY, CONTAINERS, LIGHT, constraints, locked, wanted

FRAMEWORKS = ("torch", "jax", "jaxlib", "flax", "diffusers", "accelerate", "triton", "libtpu")
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "python_version": "3.11"}


@pytest.mark.parametrize("name", IMAGE_NAMES)
def test_lock_has_a_hash_for_every_package_and_no_address(name: str):
    packages = locked(name)
    assert packages
    for project, package in packages.items():
        assert package.hashes, f"{project} has no hash"
        assert "+" not in package.version, f"{project}=={package.version} is on no public index"
    assert "://" not in (CONTAINERS / name / "requirements.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", IMAGE_NAMES)
def test_lock_has_the_versions_that_are_tested(name: str):
    tested = constraints()
    for project, package in locked(name).items():
        if not ACCELERATOR_ONLY.fullmatch(project) and project != "setuptools":  # which pip freeze leaves out
            assert package.version == tested[project], f"{project}: run make lock-images"


@pytest.mark.parametrize("name", IMAGE_NAMES)
def test_lock_is_what_the_requirements_need_and_nothing_else(name: str):
    needed = set(closure(wanted(name)))
    found = set(locked(name))
    assert needed <= found, f"missing: {sorted(needed - found)}: run make lock-images"
    superfluous = {project for project in found - needed if not ACCELERATOR_ONLY.fullmatch(project)}
    assert not superfluous, "run make lock-images"


@pytest.mark.parametrize("name", LIGHT)
def test_lock_of_a_light_image_has_no_framework(name: str):
    packages = locked(name)
    assert not [project for project in packages if project in FRAMEWORKS or ACCELERATOR_ONLY.fullmatch(project)]


def test_each_trainer_has_its_own_framework_alone():
    assert {"torch", "triton", "nvidia-nccl-cu13"} <= set(locked("train-torch")), "PyTorch for CUDA"
    assert not {"jax", "flax"} & set(locked("train-torch"))
    assert {"jax", "libtpu"} <= set(locked("train-flax")), "JAX for TPU"
    assert {"jax", "jax-cuda13-plugin", "nvidia-cudnn-cu13"} <= set(locked("train-flax-gpu")), "JAX for CUDA"
    assert not {"torch", "diffusers"} & (set(locked("train-flax")) | set(locked("train-flax-gpu")))


def test_both_images_of_the_flax_trainer_differ_by_what_drives_the_device_alone():
    tpu, gpu = locked("train-flax"), locked("train-flax-gpu")
    differing = {project for project in {*tpu, *gpu} if tpu.get(project) != gpu.get(project)}
    assert all(ACCELERATOR_ONLY.fullmatch(project) for project in differing), differing
    assert gpu["jax-cuda13-plugin"].version == gpu["jax-cuda13-pjrt"].version == gpu["jax"].version


def closure(requirements: list[Requirement]) -> Iterator[str]:
    """Canonical names of all that the requirements need on Linux, by the metadata of what is installed."""
    seen: set[tuple[str, str]] = set()
    todo = [(requirement, extra) for requirement in requirements for extra in ("", *requirement.extras)]
    while todo:
        requirement, extra = todo.pop()
        project = canonicalize_name(requirement.name)
        if (project, extra) in seen:
            continue
        seen.add((project, extra))
        yield project
        if ACCELERATOR_ONLY.fullmatch(project):
            continue
        for text in importlib.metadata.requires(project) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({**LINUX, "extra": extra}):
                todo += [(needed, more) for more in ("", *needed.extras)]
