"""Fixtures for all tests: random-weight base models and object stores, made once a session."""

from __future__ import annotations

import gc
import logging
import signal
from pathlib import Path

import pytest

from components.import_base_model.importing import import_base_model
from tests.fixtures_servers import (  # noqa: F401 - pytest finds fixtures by name
    gcs_bucket_uri,
    gcs_server,
    hub_endpoint,
    hub_server,
    s3_bucket_uri,
    s3_server,
)
from tests.tiny_models import make_tiny_clip, make_tiny_model, make_tiny_sdxl

for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:  # as of a command in the background; what tests start would keep it
        signal.signal(_number, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """Keeps the collector of garbage from going through all that is imported by now, which stays, again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _levels_of_loggers() -> None:
    """A test hears what it asks `caplog` for, also after one that set up logging as a step does."""
    for package in ("components", "pipelines"):
        logging.getLogger(package).setLevel(logging.NOTSET)


@pytest.fixture(scope="session", params=["sd15", "sd21"])
def tiny_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with random weights; once with the configuration of SD 1.5, once with that of SD 2.1."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture(scope="session")
def tiny_sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with random weights and the configuration of SD 1.5."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "sd15", "sd15")


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with random weights and the parts of SDXL, for 16 x 16 pictures."""
    return make_tiny_sdxl(tmp_path_factory.mktemp("models") / "sdxl")


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP model folder with random weights."""
    return make_tiny_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="session")
def sd15_reference(tiny_sd15: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imported base model's reference, of `tiny_sd15`."""
    return imported(tiny_sd15, tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_reference(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imported base model's reference, of `tiny_model`: once SD 1.5, once SD 2.1."""
    return imported(tiny_model, tmp_path_factory)


def imported(model: Path, tmp_path_factory: pytest.TempPathFactory, kind: str = "diffusion") -> Path:
    """The folder of a reference to `model`, imported into a store of its own."""
    folder = tmp_path_factory.mktemp("imported")
    import_base_model(str(model), str(folder / "store"), folder / "reference", kind=kind)
    return folder / "reference"
