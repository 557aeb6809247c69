from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import CLIPModel

from examples.sprites.concepts import CONCEPTS
from examples.sprites.make import FOLDER, make_xl
from examples.sprites.samples import draw_samples, load_pipeline

pytestmark = pytest.mark.xdist_group("make")  # what is made is made once


def make_shortly(family: str, out: Path) -> None:
    """A recipe, run as its users do, with a few steps of everything."""
    command = [sys.executable, "-m", "examples.sprites.make", "--family", family, "--scale", "short"]
    subprocess.run(
        [*command, "--out", str(out), "--scratch", str(out / "scratch")],
        check=True,
        cwd=FOLDER.parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole world but for what is of Stable Diffusion XL."""
    out = tmp_path_factory.mktemp("sprites")
    make_shortly("sd", out)
    return out


@pytest.fixture(scope="module")
def made_xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion XL that begins as the committed models."""
    out = tmp_path_factory.mktemp("sprites-xl")
    for part in ("base_model", "clip"):
        shutil.copytree(FOLDER / part, out / part)
    make_shortly("sdxl", out)
    return out


@pytest.mark.parametrize("part", ["vae", "clip", "scorer", "unet"])
def test_losses_fall_in_a_short_run(made: Path, part: str):
    losses = json.loads((made / "scratch" / f"{part}_losses.json").read_text())
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.98 * np.mean(losses[:3])


def test_xl_begins_near_what_the_smaller_model_draws(made_xl: Path):
    losses = json.loads((made_xl / "scratch/unet_xl_losses.json").read_text())
    assert max(losses) < 0.4  # a new model's are near 1


def test_xl_is_not_made_from_nothing(tmp_path: Path):
    with pytest.raises(SystemExit, match=r"no .*base_model and no .*clip: make them first"):
        make_xl(tmp_path, tmp_path / "scratch", scale_name="short", seed=0)


def files_of(out: Path, folder: str) -> set[Path]:
    return {file.relative_to(out) for file in (out / folder).rglob("*") if file.is_file()}


def test_short_run_writes_what_the_committed_folder_has(made: Path, made_xl: Path):
    for folder in ("base_model", "clip"):
        assert files_of(made, folder) == files_of(FOLDER, folder)
    assert files_of(made_xl, "base_model_xl") == files_of(FOLDER, "base_model_xl")
    assert sorted(path.name for path in (made / "concepts").iterdir()) == sorted(CONCEPTS)


def test_short_run_gives_models_that_load_and_sample(made: Path, made_xl: Path):
    for folder in (made / "base_model", made_xl / "base_model_xl"):
        assert draw_samples(load_pipeline(folder), ["a photo of a star"], seed=0).shape == (1, 32, 32, 3)
    assert CLIPModel.from_pretrained(made / "clip").config.projection_dim == 64
