"""Images built by `make test-images`: it needs podman or docker, and minutes.

Where containers cannot be built or run, the tests end with a reason and exit code 77.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.containers.recipes import LIGHT
from tests.images.engine import ROOT, CannotRunError, Engine

CANNOT_RUN = 77
REGISTRY = "localhost/textual-inversion-tests"
VERSION = "0.0.0-test"


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
def images(engine: Engine) -> dict[str, str]:
    """The references of the light images, built by `make images`."""
    try:
        base = engine.base_image()
    except CannotRunError as reason:
        pytest.exit(f"images cannot be tested here: {reason}", returncode=CANNOT_RUN)
    given = (f"CONTAINER_ENGINE={engine.name}", f"BASE={base}", f"REGISTRY={REGISTRY}", f"VERSION={VERSION}")
    done = make("--jobs=2", "--output-sync", "images", f"NAMES={' '.join(LIGHT)}", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: f"{REGISTRY}/{name}:{VERSION}" for name in LIGHT}


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that any user may write to; KFP shows steps a bucket of Cloud Storage as such a folder below /gcs."""
    os.umask(0o022)
    folder = tmp_path_factory.mktemp("gcs") / "bucket"
    folder.mkdir()
    folder.chmod(0o777)
    return folder
