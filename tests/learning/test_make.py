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


def make_shortly(family: str, out: Path) -> None:
    """A recipe, run as its users do, with a few steps of everything."""
    command = [sys.executable, "-m", "examples.sprites.make", "--family", family, "--scale", "short"]
    subprocess.run(
        [*command, "--out", str(out), "--scratch", str(out / "scratch")],
        check=True,
        cwd=FOLDER.parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def losses_of(out: Path, part: str) -> list[float]:
    losses: list[float] = json.loads((out / "scratch" / f"{part}_losses.json").read_text())
    assert np.isfinite(losses).all()
    return losses


def files_of(out: Path, folder: str) -> set[Path]:
    return {file.relative_to(out) for file in (out / folder).rglob("*") if file.is_file()}


def assert_draws(model: Path) -> None:
    assert draw_samples(load_pipeline(model), ["a photo of a star"], seed=0).shape == (1, 32, 32, 3)


def test_short_run_makes_the_world_but_for_what_is_of_xl(tmp_path: Path):
    make_shortly("sd", tmp_path)
    for part in ("vae", "clip", "scorer", "unet"):
        losses = losses_of(tmp_path, part)
        assert np.mean(losses[-3:]) < 0.98 * np.mean(losses[:3]), part
    for folder in ("base_model", "clip"):
        assert files_of(tmp_path, folder) == files_of(FOLDER, folder)
    assert sorted(path.name for path in (tmp_path / "concepts").iterdir()) == sorted(CONCEPTS)
    assert_draws(tmp_path / "base_model")
    assert CLIPModel.from_pretrained(tmp_path / "clip").config.projection_dim == 64


def test_short_run_makes_xl_of_the_smaller_model_and_near_what_it_draws(tmp_path: Path):
    for part in ("base_model", "clip"):
        shutil.copytree(FOLDER / part, tmp_path / part)
    make_shortly("sdxl", tmp_path)
    assert max(losses_of(tmp_path, "unet_xl")) < 0.4  # a new model's are near 1
    assert files_of(tmp_path, "base_model_xl") == files_of(FOLDER, "base_model_xl")
    assert_draws(tmp_path / "base_model_xl")


def test_xl_is_not_made_from_nothing(tmp_path: Path):
    with pytest.raises(SystemExit, match=r"no .*base_model and no .*clip: make them first"):
        make_xl(tmp_path, tmp_path / "scratch", scale_name="short", seed=0)
