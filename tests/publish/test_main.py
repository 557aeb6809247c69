from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from components.publish.__main__ import main
from tests.publish.conftest import Inputs

Command = Callable[..., str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command and gives what it printed."""

    def command(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["publish", *map(str, arguments)])
        capsys.readouterr()
        main()
        return capsys.readouterr().out

    return command


def flags_of(inputs: Inputs, tmp_path: Path) -> list[str | Path]:
    return [
        *("--base-model", inputs.base_model),
        *("--learned-embedding", inputs.learned_embedding),
        *("--evaluation", inputs.evaluation),
        *("--output", tmp_path / "out"),
        *("--registry-uri", tmp_path / "registry"),
    ]


def test_commands_of_a_version_s_life(command: Command, make_inputs: Callable[..., Inputs], tmp_path: Path) -> None:
    registry = ("--registry-uri", tmp_path / "registry")
    assert command("check", *registry) == f"{tmp_path}/registry can be written\n"
    for seed in (1, 2):
        address = command("publish", *flags_of(make_inputs(seed=seed), tmp_path), "--run-id", f"run-{seed}")
        assert address == f"file://{tmp_path}/registry/cat-toy/versions/{seed}\n"
    header, concept, total = command("list", *registry).splitlines()
    assert concept.split()[:3] == ["cat-toy", "<cat-toy>", "2"] and concept.endswith("champion 2")
    assert (header.index("ALIASES"), total) == (concept.index("champion"), "1 concept, 2 versions")
    header, *lines, total = command("list", "cat-toy", *registry).splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2"] and total == "2 versions of cat-toy"
    assert ["champion" in line for line in lines] == [False, True]
    assert [line.index("0.780") for line in lines] == [header.index("CLIP_I")] * 2
    shown = json.loads(command("show", "cat-toy", "champion", "--json", *registry))
    assert (shown["uri"], shown["lineage"]["run_id"]) == (address.strip(), "run-2")
    assert re.search(rf"(?m)^address +{re.escape(address.strip())}$", command("show", "cat-toy", "champion", *registry))
    assert command("rollback", "cat-toy", *registry) == "1\n"
    assert command("promote", "cat-toy", "2", "--alias", "staging", *registry) == "2\n"
    assert json.loads(command("show", "cat-toy", "champion", "--json", *registry))["concept_version"] == 1
    fetched = command("fetch", "cat-toy", "staging", "--output", tmp_path / "fetched", *registry)
    assert (Path(fetched.strip()) / "cat-toy.safetensors").is_file()


def test_publish_when_forced(command: Command, make_inputs: Callable[..., Inputs], tmp_path: Path) -> None:
    flags = flags_of(make_inputs(passed=False), tmp_path)
    with pytest.raises(SystemExit) as stop:
        command("publish", *flags)
    assert stop.value.code == 2
    command("publish", *flags, "--force")
    assert command("list", "cat-toy", "--registry-uri", tmp_path / "registry").splitlines()[1].endswith("(forced)")


def test_list_when_there_is_nothing(command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for concept in ([], ["cat-toy"]):
        with pytest.raises(SystemExit) as stop:
            command("list", *concept, "--registry-uri", tmp_path)
        assert stop.value.code == 4
    assert f"found no concepts in the registry {tmp_path}" in caplog.text
    assert f"found no published versions of cat-toy in the registry {tmp_path}" in caplog.text


def test_command_fails_with_one_line_and_its_exit_code(tmp_path: Path) -> None:
    arguments = ["show", "cat-toy", "champion", "--registry-uri", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "components.publish", *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert len(done.stderr.splitlines()) == 1
    assert "ERROR found no alias 'champion' of file://" in done.stderr
