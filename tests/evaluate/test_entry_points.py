"""The step as a pipeline and as a command line start it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from kfp import dsl

from components.common.artifacts import Evaluation
from components.common.errors import BaseModelError
from components.common.start_word import StartWord
from components.evaluate.component import evaluate
from components.evaluate.config import EvaluateConfig
from tests.evaluate.conftest import Concept, World, write_concept

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def concept(world: World, tmp_path_factory: pytest.TempPathFactory) -> Concept:
    return write_concept(world, tmp_path_factory.mktemp("concept"))


def run_component(world: World, concept: Concept, folder: Path, **parameters):
    """The component's body as KFP calls it, on artifacts that lie in local folders."""
    outputs = {
        "evaluation": dsl.Artifact(name="evaluation", uri=str(folder / "evaluation")),
        "report": dsl.HTML(name="report", uri=str(folder / "report.html")),
        "summary": dsl.Markdown(name="summary", uri=str(folder / "summary.md")),
        "metrics": dsl.Metrics(name="metrics", uri=str(folder / "metrics")),
    }
    StartWord(
        word="toy",
        was_given=False,
        template="a photo of a {}",
        loss=0.25,
        no_word_loss=0.5,
        best={"toy": 0.25, "cat": 0.375},
        base_model_digest="a" * 64,
        latent_set_digest="b" * 64,
    ).write(folder / "start_word")
    config = EvaluateConfig(
        accelerator="cpu", prompts=["a photo of a {}"], images_per_prompt=2, num_inference_steps=1, **parameters
    )
    evaluate.python_func(
        config.to_json(),
        base_model=dsl.Model(uri=str(world.base_model)),
        scorer=dsl.Model(uri=str(world.scorer)),
        initial_embedding=dsl.Model(uri=str(concept.initial_embedding)),
        learned_embedding=dsl.Model(uri=str(concept.learned_embedding)),
        scoring_set=dsl.Dataset(uri=str(world.scoring_set)),
        start_word=dsl.Artifact(uri=str(folder / "start_word")),
        training_set=dsl.Dataset(uri=str(world.scoring_set)),
        **outputs,
    )
    return outputs


def test_component_gives_verdict_report_and_metrics(world, concept, tmp_path):
    outputs = run_component(world, concept, tmp_path, min_clip_i_gain=-1.0)
    found = Evaluation.read(tmp_path / "evaluation")

    assert outputs["metrics"].metadata["passed"] == 1.0
    assert outputs["summary"].metadata["display_name"] == "Summary"
    assert "# `<concept>`: ✓ accepted" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == found.report_html
    assert "“toy” was found to explain the pictures best" in found.report_html
    assert outputs["metrics"].metadata["clip_i_after"] == round(found.scores["after"]["clip_i"], 4)
    assert "norm_ratio" in outputs["metrics"].metadata
    assert {"memorised_after", "diversity_gain", "adherence_before"} < set(outputs["metrics"].metadata)
    assert outputs["evaluation"].metadata == {
        "display_name": "Evaluation",
        "placeholder_token": "<concept>",
        "passed": True,
        "reasons": "",
    }


def test_component_when_the_concept_does_not_pass(world, concept, tmp_path):
    outputs = run_component(world, concept, tmp_path, min_clip_i=1.0)

    assert outputs["metrics"].metadata["passed"] == 0.0
    assert "(min_clip_i)" in outputs["evaluation"].metadata["reasons"]
    assert "Held back" in (tmp_path / "report.html").read_text(encoding="utf-8")


def run_command(world: World, concept: Concept, output: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    folders = {
        "--base-model": world.base_model,
        "--scorer": world.scorer,
        "--initial-embedding": concept.initial_embedding,
        "--learned-embedding": concept.learned_embedding,
        "--scoring-set": world.scoring_set,
        "--training-set": world.scoring_set,
        "--output": output,
    }
    named = [str(part) for pair in folders.items() for part in pair]
    command = [sys.executable, "-m", "components.evaluate", *named, "--accelerator", "cpu", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_command_writes_the_evaluation(world, concept, tmp_path):
    flags = ("--prompts", "a {}", "the {}", "--images-per-prompt", "1", "--num-inference-steps", "1")
    done = run_command(world, concept, tmp_path / "out", *flags, "--min-clip-i-gain", "-1")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "pass\n"
    assert Evaluation.read(tmp_path / "out").settings["prompts"] == ["a {}", "the {}"]
    assert " done in " in done.stderr
    assert "Loading" not in done.stderr, "no progress bars"


def test_command_when_a_model_is_the_wrong_one(world, concept, tmp_path):
    mixed_up = World(base_model=world.scorer, scorer=world.scorer, scoring_set=world.scoring_set, model=world.model)
    done = run_command(mixed_up, concept, tmp_path / "out")

    assert done.returncode == BaseModelError.exit_code
    assert "ERROR found a model of kind 'clip'" in done.stderr
    assert "Traceback" not in done.stderr
