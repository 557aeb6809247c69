"""What the recipes of the container images say, and which parts of the source run in each image."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = ROOT / "containers"
LIGHT = ("dataset", "tokenizer", "publish", "launcher")
"""The images without a neural network."""

RUNS = {
    "dataset": ("import_base_model", "ingest_images"),
    "tokenizer": ("preflight", "init_embedding"),
    "train-torch": ("encode_latents", "find_start_word", "train/torch", "train/trackers"),
    "train-flax": ("train/flax", "train/trackers"),
    "train-flax-gpu": ("train/flax", "train/trackers"),
    "evaluate": ("evaluate",),
    "publish": ("publish",),
    "launcher": ("train/nodes",),
}
"""The folders of `components` that run in each image; what they import runs there too."""

ACCELERATOR_ONLY = re.compile(r"nvidia-.*|cuda-.*|jax-cuda.*|triton|libtpu")
"""Packages of GPUs and TPUs, which an environment without them (and so constraints.txt) does not have."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Locked:
    """One package of a lock."""

    version: str
    hashes: tuple[str, ...]


def read_requirements(file: Path) -> list[Requirement]:
    """The requirements of a file without options."""
    lines = (line.partition(" #")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def wanted(name: str) -> list[Requirement]:
    """What the image `name` asks for."""
    return read_requirements(CONTAINERS / name / "requirements.in")


def locked(name: str) -> dict[str, Locked]:
    """The lock of the image `name`, by canonical package name."""
    lines = (CONTAINERS / name / "requirements.txt").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.strip().startswith("#"))
    packages = {}
    for entry in re.split(r"(?<!\\)\n", text.strip()):
        requirement, *hashes = entry.replace("\\\n", " ").split()
        project, separator, version = requirement.partition("==")
        assert separator, f"{name}: {entry!r} has no exact version"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", part) for part in hashes), f"{name}: {entry!r}"
        packages[canonicalize_name(project)] = Locked(version=version, hashes=tuple(hashes))
    return packages


def constraints() -> dict[str, str]:
    """The version of each package of the development environment, by canonical name."""
    pins = read_requirements(ROOT / "constraints.txt")
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}


def dockerfile() -> list[str]:
    """The instructions of the Dockerfile, one a line, without comments."""
    lines = (CONTAINERS / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    return [re.sub(r"\s+", " ", line) for line in text.replace("\\\n", " ").splitlines() if line]
