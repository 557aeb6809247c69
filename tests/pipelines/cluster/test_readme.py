"""The commands for a cluster that the README prints, as they stand there."""

from __future__ import annotations

import re
import shlex
import types
from pathlib import Path

import pytest

from pipelines.cli import main
from tests.pipelines.cluster.backend import KfpServer, node
from tests.pipelines.cluster.test_fleet import FILE

README = Path(__file__).resolve().parents[3] / "README.md"
OPTIONS = "images_uri: gs://bucket/cat\nplaceholder_token: <cat>\ninitializer_token: cat\n"


def printed_commands() -> list[list[str]]:
    """Every command of the block that submits."""
    (block,) = (
        found for found in re.findall(r"```sh\n(.*?)```", README.read_text("utf-8"), re.S) if " submit " in found
    )
    return [shlex.split(command) for line in block.splitlines() for command in line.partition(" #")[0].split("; ")]


def test_printed_commands_do_what_they_say(
    kfp_server: KfpServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "cat.yaml").write_text(OPTIONS, encoding="utf-8")
    (tmp_path / "concepts.yaml").write_text(FILE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    failed = node("train", "Failed", message="main: Error (exit code 5): loss is not finite")

    def fail(seconds: float) -> None:
        """What happens while somebody waits for the run."""
        for run_id, run in kfp_server.runs.items():
            run["state"] = "FAILED"
            kfp_server.set_workflow(run_id, [failed])

    monkeypatch.setattr("pipelines.cluster.watching.time", types.SimpleNamespace(sleep=fail))
    kfp_server.logs[f"wf-abc-system-container-impl-{failed['id'].rpartition('-')[2]}"] = "the whole log"
    codes = []
    for program, *arguments in printed_commands():
        assert program == "textual-inversion"
        codes.append((arguments[0], main(arguments)))
    assert codes == [("submit", 1), ("schedule", 0), ("apply", 0), ("status", 0), ("status", 0), ("logs", 0)]
    told = capsys.readouterr().out
    assert "Train: loss is not finite" in told and "the whole log" in told
    assert [each["display_name"] for each in kfp_server.recurring_runs.values()] == ["cat"]
