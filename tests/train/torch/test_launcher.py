"""What `accelerate launch` and `torchrun` say in the environment is honoured or refused.

That they do say it is tested by starting them, in tests/faults.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.common.errors import ArtifactError, ConfigError
from components.train.accelerate_environment import flag_defaults
from components.train.torch.launcher import check_launcher, check_processes

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that no launcher has written to."""
    for name in os.environ:
        if name.startswith(("ACCELERATE_", "PET_")) or name in ("MASTER_ADDR", "WORLD_SIZE"):
            monkeypatch.delenv(name)


def test_nothing_is_decided_without_launcher() -> None:
    assert flag_defaults() == {}
    check_launcher("gpu")
    check_processes(1)


def test_precision_and_cpu_of_accelerate_are_the_flags_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert flag_defaults() == {"mixed_precision": "bf16", "accelerator": "cpu"}


@pytest.mark.parametrize(
    ("flag", "code", "expected"),
    [
        ([], ConfigError.exit_code, "mixed_precision: found 'fp8', expected one of no, fp16, bf16"),
        (["--mixed-precision=bf16", "--accelerator=cpu"], ArtifactError.exit_code, 'mixed_precision="bf16"'),
    ],
)
def test_flag_overrules_precision_of_accelerate(flag: list[str], code: int, expected: str, tmp_path: Path) -> None:
    places = ("latent-set", "base-model", "initial-embedding", "checkpoint-root", "output")
    ended = subprocess.run(
        [sys.executable, "-m", "components.train", *(f"--{name}={tmp_path}" for name in places), *flag],
        cwd=REPOSITORY,
        env={**os.environ, "ACCELERATE_MIXED_PRECISION": "fp8"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == code
    assert expected in ended.stderr


@pytest.mark.parametrize("name", ["DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_sharding_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(ConfigError, match=f"accelerate is configured for {name}"):
        check_launcher("cpu")


def test_gpu_is_refused_when_accelerate_is_configured_for_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    check_launcher("cpu")
    with pytest.raises(ConfigError, match="accelerator: found 'gpu', but accelerate is configured for the CPU"):
        check_launcher("gpu")


def test_backend_of_torch_compile_is_said_not_to_be_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    check_launcher("cpu")
    assert not caplog.text
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    check_launcher("cpu")
    assert "configured for torch.compile by INDUCTOR, which is not used" in caplog.text


@pytest.mark.parametrize(
    ("nodes", "per_node", "joined"), [("2", "1", 1), ("1", "4", 1), ("2:4", "2", 3), ("2", "auto", 1)]
)
def test_processes_that_did_not_join_are_missed(
    nodes: str, per_node: str, joined: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PET_NNODES", nodes)
    monkeypatch.setenv("PET_NPROC_PER_NODE", per_node)
    with pytest.raises(ConfigError, match=rf"found {joined} processes .*PET_NNODES={nodes}.*torchrun -m"):
        check_processes(joined)
    check_processes(8)


def test_single_process_is_refused_when_accelerate_was_asked_for_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    check_processes(1)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ConfigError, match="accelerate was asked for several processes and started one"):
        check_processes(1)
    monkeypatch.setenv("WORLD_SIZE", "1")  # torchrun with one process
    check_processes(1)
