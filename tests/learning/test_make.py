from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import CLIPModel

from examples.sprites.concepts import CONCEPTS
from examples.sprites.make import FOLDER
from examples.sprites.samples import draw_samples, load_pipeline


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole recipe, run as its users do, with a few steps of everything."""
    out = tmp_path_factory.mktemp("sprites")
    command = [sys.executable, "-m", "examples.sprites.make", "--scale", "short"]
    subprocess.run(
        [*command, "--out", str(out), "--scratch", str(out / "scratch")],
        check=True,
        cwd=FOLDER.parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return out


@pytest.mark.parametrize("part", ["vae", "clip", "scorer", "unet"])
def test_losses_fall_in_a_short_run(made: Path, part: str):
    losses = json.loads((made / "scratch" / f"{part}_losses.json").read_text())
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.98 * np.mean(losses[:3])


def test_short_run_writes_what_the_committed_folder_has(made: Path):
    for folder in ("base_model", "clip"):
        files = {file.relative_to(made) for file in (made / folder).rglob("*") if file.is_file()}
        assert files == {file.relative_to(FOLDER) for file in (FOLDER / folder).rglob("*") if file.is_file()}
    assert sorted(path.name for path in (made / "concepts").iterdir()) == sorted(CONCEPTS)


def test_short_run_gives_models_that_load_and_sample(made: Path):
    pictures = draw_samples(load_pipeline(made / "base_model"), ["a photo of a star"], seed=0)
    assert pictures.shape == (1, 32, 32, 3)
    assert CLIPModel.from_pretrained(made / "clip").config.projection_dim == 64
