"""Images built by `make test-images`: it needs podman or docker, and minutes.

Where containers cannot be built or run, the tests end with a reason and exit code 77.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.images.engine import ROOT, CannotRunError, Engine

CANNOT_RUN = 77
REGISTRY = "localhost/textual-inversion-tests"
VERSION = "0.0.0-test"

Build = Callable[[str], str]
"""Builds an image once and gives its reference."""


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`make` in the repository."""
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The container engine."""
    try:
        return Engine()
    except CannotRunError as reason:
        pytest.exit(f"images cannot be tested here: {reason}", returncode=CANNOT_RUN)


@pytest.fixture(scope="session")
def build(engine: Engine) -> Build:
    """Builds images as `make images` does."""
    try:
        base = engine.base_image()
    except CannotRunError as reason:
        pytest.exit(f"images cannot be tested here: {reason}", returncode=CANNOT_RUN)
    built: dict[str, str] = {}
    given = (f"CONTAINER_ENGINE={engine.name}", f"BASE={base}", f"REGISTRY={REGISTRY}", f"VERSION={VERSION}")

    def build_once(name: str) -> str:
        if name not in built:
            done = make("images", f"NAMES={name}", *given)
            assert done.returncode == 0, done.stdout + done.stderr
            built[name] = f"{REGISTRY}/{name}:{VERSION}"
        return built[name]

    return build_once


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that any user may write to; KFP shows steps a bucket of Cloud Storage as such a folder below /gcs."""
    os.umask(0o022)
    folder = tmp_path_factory.mktemp("gcs") / "bucket"
    folder.mkdir()
    folder.chmod(0o777)
    return folder
