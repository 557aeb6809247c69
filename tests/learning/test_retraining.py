"""A concept that is learned night after night on the tiny world: nothing, until there are more pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.common.base_model import CACHE_VARIABLE
from examples.sprites.concepts import FOLDER
from pipelines.cli import main

OPTIONS = {
    "retrain-if": "changed",
    "initializer-embedding": "champion",
    "max-train-steps": "40",
    "evaluation-prompts": "a photo of a {}",
    "evaluation-images-per-prompt": "8",
    "evaluation-num-inference-steps": "10",
}


def test_run_trains_only_when_there_are_other_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()

    def night(*more: str) -> dict[str, Any]:
        for name in more:
            shutil.copy(FOLDER / "purple-dotted-star" / "training" / name, pictures)
        flags = {**OPTIONS, "images-uri": str(pictures)}
        assert main(["run", "--preset", "sprites", "--out", str(out), *(f"--{k}={v}" for k, v in flags.items())]) == 0
        summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
        return summary

    first = night("1.png", "2.png")
    assert (first["decision"], first["registry_entry"][-2:]) == ("trains: no champion yet", "/1")
    ended = night()
    assert ended["decision"] == "nothing to do: the champion (version 1) was learned from the same"
    assert set(ended["seconds"]) == {"preflight"} and ended["seconds"]["preflight"] < 60
    second = night("3.png", "4.png", "5.png")
    assert second["decision"].startswith("trains: changed since the champion (version 1) was learned: pictures ")
    assert (second["registry_entry"][-2:], second["alias_stays"]) == ("/2", "")
    assert second["scores"]["before"]["clip_i"] > 0.5, "it starts from rows that know the concept"
    assert night()["decision"] == "nothing to do: the champion (version 2) was learned from the same"
