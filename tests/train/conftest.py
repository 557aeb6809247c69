"""A micro training's inputs, made by the steps before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import flax_runs as runs
from tests.conftest import imported
from tests.train.torch.conftest import make_inputs


@pytest.fixture(scope="session")
def micro_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of two levels in the style of SD 1.5."""
    return runs.make_micro_model(tmp_path_factory.mktemp("models") / "micro")


@pytest.fixture(scope="session")
def micro_inputs(micro_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The inputs of a training on `micro_model`."""
    return make_inputs(tmp_path_factory.mktemp("inputs"), imported(micro_model, tmp_path_factory), num_vectors=2)
