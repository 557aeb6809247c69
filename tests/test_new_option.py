"""A new option is one line in one file: it is then a flag, an option of a run, and known to its step."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = Path("components/common/training/config.py")
BEFORE = "    log_steps: int = option("
LINE = '    sparkle: float = option("how much the samples shall sparkle", 0.25, least=0)\n'


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source with one line more."""
    folder = tmp_path_factory.mktemp("tree")
    for package in ("components", "pipelines"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "README.md", folder)
    (folder / "examples").symlink_to(ROOT / "examples")
    text = (folder / CONFIG).read_text()
    assert text.count(BEFORE) == 1
    (folder / CONFIG).write_text(text.replace(BEFORE, LINE + BEFORE))
    return folder


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=tree,
        env={"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_new_option_is_a_flag_of_a_run_and_of_the_trainer(tree: Path):
    for command in (["pipelines.cli", "run"], ["components.train"]):
        shown = " ".join(run(tree, *command, "--help").stdout.split())
        assert "--sparkle" in shown and "how much the samples shall sparkle (default: 0.25)" in shown


def test_new_option_is_listed_in_the_readme(tree: Path):
    assert run(tree, "pipelines.readme").returncode == 0
    assert "| `sparkle` | `0.25` | how much the samples shall sparkle |" in (tree / "README.md").read_text()


def test_new_option_reaches_the_trainer_from_more_options(tree: Path, tmp_path: Path):
    sprites = ROOT / "examples" / "sprites"
    given = {
        "storage_uri": str(tmp_path / "storage"),
        "images_uri": str(sprites / "concepts" / "purple-dotted-star" / "training"),
        "base_model": str(sprites / "base_model"),
        "scorer": str(sprites / "clip"),
        "accelerator": "cpu",
        "placeholder_token": "<x>",
        "initializer_token": "circle",
    }
    (tmp_path / "run.json").write_text(json.dumps({**given, "sparkle": "0.75"}))
    done = run(tree, "components.preflight", str(tmp_path / "run.json"))
    assert done.returncode == 0, done.stderr
    assert json.loads(json.loads(done.stdout)["train"])["training"]["sparkle"] == 0.75
    (tmp_path / "run.json").write_text(json.dumps({**given, "sparkel": 1}))
    assert (
        "sparkel: there is no such option; did you mean sparkle?"
        in run(tree, "components.preflight", str(tmp_path / "run.json")).stderr
    )
