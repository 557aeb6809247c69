"""What a run came to, as alerts and Prometheus read it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.common import cli
from components.common.artifacts import LearnedEmbedding
from components.publish.config import PublishConfig
from components.publish.outcome import Outcome
from components.publish.step import Said, publish_if_learned
from tests.publish.conftest import Inputs, write_inputs


def publish(inputs: Inputs, folder: Path, **options: Any) -> Said:
    config = PublishConfig(registry_uri=str(folder / "registry"), run_id="run-1", **options)
    return publish_if_learned(
        config,
        base_model=inputs.base_model,
        learned_embedding=inputs.learned_embedding,
        evaluation=inputs.evaluation,
        output=folder / "out",
    )


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by its name without the prefix, and its labels; each metric has its help and its type."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge" and family.documentation.endswith(".")
        for sample in family.samples:
            assert sample.timestamp is None, "collectors refuse files in which samples have times"
            found[sample.name.removeprefix("textual_inversion_last_run_"), frozenset(sample.labels.items())] = (
                sample.value
            )
    return found


def test_outcome_is_one_event_in_a_pod(
    inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "TERMINATION_LOG", tmp_path)  # what is there in a pod alone
    publish(inputs, tmp_path)
    [line] = capsys.readouterr().out.splitlines()
    event = json.loads(line)
    norms = event.pop("norms")
    assert event == {
        "event": "textual-inversion.result",
        "concept": "cat-toy",
        "placeholder_token": "<cat-toy>",
        "run_id": "run-1",
        "passed": True,
        "version": 1,
        "promoted": True,
        "reason": "champion points at version 1.",
        "steps": 3000,
        "scores": {"before": {"clip_i": 0.55, "clip_t": 0.31}, "after": {"clip_i": 0.78, "clip_t": 0.29}},
    }
    rows = LearnedEmbedding.read(inputs.learned_embedding).rows["text_encoder"]
    assert norms == {"text_encoder": pytest.approx(np.mean([np.sqrt(np.sum(row**2)) for row in rows]))}


def test_metrics_are_a_file_that_prometheus_reads(inputs: Inputs, tmp_path: Path) -> None:
    for _ in range(2):
        publish(inputs, tmp_path, metrics_uri=(tmp_path / "metrics").as_uri())
    found = samples((tmp_path / "metrics" / "cat-toy.prom").read_text())
    own = {("concept", "cat-toy")}
    assert found["version", frozenset(own)] == found["passed", frozenset(own)] == found["promoted", frozenset(own)] == 1
    assert found["training_steps", frozenset(own)] == 3000
    assert found["timestamp_seconds", frozenset(own)] > 1.7e9
    assert found["embedding_norm", frozenset(own | {("encoder", "text_encoder")})] > 0
    assert found["score", frozenset(own | {("variant", "after"), ("score", "clip_i")})] == 0.78
    assert len(found) == 6 + 4


def test_run_that_published_nothing_has_metrics_that_say_so(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path / "inputs", passed=False)
    publish(inputs, tmp_path, metrics_uri=str(tmp_path / "metrics"), concept_name="star")
    found = samples((tmp_path / "metrics" / "star.prom").read_text())
    own = frozenset({("concept", "star")})
    assert found["passed", own] == found["promoted", own] == found["version", own] == 0
    assert found["timestamp_seconds", own] > 1.7e9


def test_metrics_that_cannot_be_written_are_a_warning(
    inputs: Inputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "metrics").write_text("a file where the folder is to be")
    assert publish(inputs, tmp_path, metrics_uri=str(tmp_path / "metrics")).metadata["published"] is True
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "metrics were not written" in warning.getMessage()


def test_labels_are_escaped() -> None:
    outcome = Outcome(
        concept='a "b\\c\nd',
        placeholder_token="<a>",
        run_id="",
        passed=True,
        version=None,
        promoted=False,
        reason="",
        steps=1,
        scores={"after": {"clip_i": 1e-9}},
        norms={},
    )
    found = samples(outcome.as_prometheus(1e9))
    assert found["version", frozenset({("concept", 'a "b\\c\nd')})] == 0
    assert found["score", frozenset({("concept", 'a "b\\c\nd'), ("variant", "after"), ("score", "clip_i")})] == 1e-9
