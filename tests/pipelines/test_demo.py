"""The whole pipeline from the command line, on the tiny model of examples/sprites: a few steps, a few samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline

from components.common.base_model import CACHE_VARIABLE
from pipelines.cli import main

SHORT = {
    "max-train-steps": "3",
    "save-steps": "2",
    "evaluation-prompts": "a photo of a {}",
    "evaluation-images-per-prompt": "1",
    "evaluation-num-inference-steps": "2",
    "evaluation-min-clip-i-gain": "-1",
    "evaluation-min-clip-i": "0",
    "evaluation-min-clip-t": "0",
    "promote-if": "always",
}
"""Settings with which every step has a few seconds of work; three steps learn nothing, so the gate is wide open."""

SECRETS = {"AWS_SECRET_ACCESS_KEY": "canary-storage", "HF_TOKEN": "hf_canary", "WANDB_API_KEY": "canary-tracker"}
"""What the environment of a run may hold, and nothing that it leaves."""

Run = Callable[..., dict[str, Any]]


def arguments(out: Path, **changes: str) -> list[str]:
    flags = {**SHORT, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return ["run", "--preset", "sprites", "--out", str(out), *(f"--{name}={value}" for name, value in flags.items())]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "out"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(out: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the pipeline in one folder for all tests of this module; gives the summary."""
    for name, value in {**SECRETS, CACHE_VARIABLE: str(cache)}.items():
        monkeypatch.setenv(name, value)

    def run(**changes: str) -> dict[str, Any]:
        assert main(arguments(out, **changes)) == 0
        summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
        return summary

    return run


@pytest.fixture
def first(run: Run) -> dict[str, Any]:
    """The summary of a run with nothing changed; only the first test that asks for it waits for its steps."""
    return run()


def test_run_publishes_an_embedding_that_diffusers_loads(first: dict[str, Any]):
    assert first["passed"]
    assert first["reasons"] == []
    assert (Path(first["registry_entry"]) / "manifest.json").is_file() or any(Path(first["registry_entry"]).iterdir())
    assert Path(first["report"]).read_text().lstrip().lower().startswith("<!doctype html")
    assert {"before", "after"} <= set(first["scores"])
    pipeline = StableDiffusionPipeline.from_pretrained(first["base_model"], safety_checker=None)
    pipeline.load_textual_inversion(first["embedding"])
    assert first["placeholder_token"] in pipeline.tokenizer.get_vocab()
    assert first["initializer_token"] == "circle"
    assert "“circle” was given" in Path(first["report"]).read_text()
    assert first["trained_by"] == "torch on 1 x cpu"


@pytest.mark.usefixtures("first")
def test_run_leaves_no_secret_of_its_environment(out: Path):
    left = [file for file in out.rglob("*") if file.is_file()]
    assert {"run.log", "report.html", "learned_embeds.safetensors"} <= {file.name for file in left}
    assert not [file for file in left if b"canary" in file.read_bytes()]


def test_repeated_run_trains_nothing_and_publishes_nothing_twice(run: Run, first: dict[str, Any]):
    again = run()
    assert set(again["seconds"]) == {"preflight", "publish"}
    assert {**again, "seconds": None} == {**first, "seconds": None}


def test_changed_learning_rate_uses_pictures_and_latents_again(
    run: Run, first: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    changed = run(learning_rate="0.001", promote_if="better")
    assert set(changed["seconds"]) == {"preflight", "train", "evaluate", "publish"}
    assert changed["embedding"] != first["embedding"]
    assert changed["registry_entry"] != first["registry_entry"]
    shown = capsys.readouterr().out
    assert "Encode pictures\n    reused" in shown
    assert set(changed["scores"]) == {"before", "after", "champion", "real", "true_caption"}
    assert changed["champion"].startswith("It is ") and "than the champion (version 1): CLIP-I" in changed["champion"]
    is_better = changed["champion"].startswith("It is better")
    assert changed["alias_stays"] == (
        "" if is_better else f"champion is not moved, for promote_if is better. {changed['champion']}"
    )
    assert f"champion          {changed['alias_stays'] or changed['champion']}\n" in shown


def test_other_evaluation_is_the_only_step_of_a_repeat_that_runs(run: Run, first: dict[str, Any]):
    other = run(evaluation_seed="7")
    assert set(other["seconds"]) == {"preflight", "evaluate", "publish"}
    assert other["embedding"] == first["embedding"]


@pytest.mark.usefixtures("first")
def test_training_of_no_steps_publishes_nothing_and_says_why(run: Run, capsys: pytest.CaptureFixture[str]):
    untrained = run(max_train_steps="0")
    assert not untrained["passed"]
    assert untrained["registry_entry"] is None
    (reason,) = untrained["reasons"]
    assert "untrained" in reason
    assert f"not published     {reason}" in capsys.readouterr().out


@pytest.mark.usefixtures("first")
def test_run_that_would_learn_the_same_ends_after_its_first_step(run: Run, capsys: pytest.CaptureFixture[str]):
    trained = run(retrain_if="changed")
    assert trained["decision"].startswith("trains: the champion (version ")
    version = trained["registry_entry"].rpartition("/")[2]
    ended = run(retrain_if="changed")
    decision = f"nothing to do: the champion (version {version}) was learned from the same"
    assert ended == {"decision": decision, "seconds": {"preflight": ended["seconds"]["preflight"]}}
    assert f"\n{decision}\nsummary " in capsys.readouterr().out


@pytest.mark.usefixtures("first")
def test_failing_step_ends_the_run_with_its_message_as_the_last_line(
    out: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    assert main(arguments(out, initializer_token="purple dotties")) != 0
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("textual-inversion: ")
    assert "'dotties'" in last
