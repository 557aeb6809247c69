"""The whole pipeline on the tiny world with JAX, on what stands in for TPUs: a few steps, a few samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.common.base_model import CACHE_VARIABLE
from pipelines.cli import main
from tests.pipelines.test_demo import arguments


def test_run_on_what_stands_in_for_tpus_trains_and_draws_in_jax_and_publishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")  # compiles fast rather than well
    assert main([*arguments(tmp_path, accelerator="tpu"), "--host-devices", "2"]) == 0
    shown = capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {"encode_latents", "train", "evaluate", "publish"} < set(summary["seconds"])
    assert summary["trained_by"] == "flax on 2 x cpu standing in for tpu"
    assert shown.startswith("no TPU is used: 2 devices of this machine's CPU stand in (--host-devices)")
    assert shown.count("WARNING no TPU is used: 2 devices of this CPU stand in") == 2, "training and evaluation say so"
    assert Path(summary["registry_entry"]).is_dir()
    report = Path(summary["report"]).read_text()
    for told in ("2 x cpu standing in for tpu", "Held-out loss", "flax"):
        assert told in report
