"""Pictures as a user might have them, and a Hub with datasets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.servers import HubServer, _HubHandler, running


def random_pixels(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Uint8 [height, width, channels]; grey pictures have no third axis."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for pictures."""
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


@pytest.fixture
def three_pictures(folder: Path) -> Path:
    """A folder of three pictures of different shapes, with what usually lies beside pictures."""
    for index, (height, width) in enumerate([(40, 40), (40, 60), (61, 40)]):
        Image.fromarray(random_pixels(height, width, seed=index)).save(folder / f"{index}.png")
    (folder / "0.txt").write_text("a toy cat")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    return folder


class _DatasetHandler(_HubHandler):
    """Serves datasets where the Hub has them."""

    def do_GET(self) -> None:
        hub: DatasetHub = self.server.owner  # type: ignore[attr-defined]
        if hub.failures_left:
            hub.failures_left -= 1
            self.respond(503, {})
            return
        self.path = self.path.replace("/api/datasets/", "/api/models/").replace("/datasets/", "/")
        super().do_GET()

    do_HEAD = do_GET


class DatasetHub(HubServer):
    """A Hub of datasets, which may answer the first requests with 503."""

    failures_left = 0

    def __init__(self) -> None:
        super().__init__()
        self._handler = _DatasetHandler


@pytest.fixture
def dataset_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[DatasetHub]:
    """An empty Hub with the environment set for it; `add_repository` adds a dataset."""
    with running(DatasetHub()) as hub:
        for name, value in hub.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub
