"""The command line without a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.common.training.config import TPU_STAND_IN_VARIABLE
from components.preflight.options import known_options
from pipelines.cli import main
from pipelines.compiling import COMPILED


def sprites(out: Path, *flags: str) -> list[str]:
    return ["run", "--preset", "sprites", "--out", str(out), *flags]


def test_help_lists_every_parameter_with_its_meaning_and_default(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--help"])
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, known in known_options().items():
        assert f"--{name.replace('_', '-')}" in shown
        assert known.option.description.split(";")[0].split(":")[0] in shown, name
    assert "optimizer steps in all" in shown
    assert "(default: 3000)" in shown


def test_bad_parameter_is_one_line_and_exit_code_2_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(sprites(tmp_path / "out", "--learning-rate", "0")) == 2
    printed = capsys.readouterr()
    assert printed.err.strip() == "textual-inversion: learning_rate: found 0.0, expected more than 0"
    assert printed.out == ""
    assert not (tmp_path / "out").exists()


def test_several_bad_parameters_are_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(sprites(tmp_path / "out", "--learning-rate", "0", "--resolution", "0")) == 2
    assert capsys.readouterr().err.strip().splitlines() == [
        "textual-inversion: resolution: found 0, expected 1 or more",
        "learning_rate: found 0.0, expected more than 0",
    ]


def test_unknown_flag_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(sprites(tmp_path, "--lerning-rate", "1"))
    assert stopped.value.code == 2
    assert "lerning_rate: there is no such option; did you mean learning_rate?" in capsys.readouterr().err


def test_value_that_is_no_choice_is_refused_with_the_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(sprites(tmp_path, "--lr-scheduler", "sometimes"))
    assert stopped.value.code == 2
    assert "constant_with_warmup" in capsys.readouterr().err


@pytest.mark.parametrize("spelling", ["--learning-rate", "--learning_rate"])
def test_flags_may_be_written_with_dashes_or_underscores(
    spelling: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(sprites(tmp_path / "out", spelling, "-1")) == 2
    assert "learning_rate: found -1.0" in capsys.readouterr().err


def test_missing_source_fails_in_preflight_with_its_message_as_the_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(sprites(tmp_path / "out", "--images-uri", str(tmp_path / "nowhere"))) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("textual-inversion: images_uri: found no folder")
    assert "nowhere" in last
    assert not (tmp_path / "out" / "summary.json").exists()


def test_folder_whose_name_the_runner_would_rewrite_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(sprites(tmp_path / "python3" / "out")) == 2
    assert "python3" in capsys.readouterr().err


def test_gpu_is_refused_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(sprites(tmp_path / "out", "--accelerator", "gpu")) == 2
    assert "accelerator: found gpu" in capsys.readouterr().err


def test_tpu_is_refused_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(TPU_STAND_IN_VARIABLE, raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert main(sprites(tmp_path / "out", "--accelerator", "tpu")) == 2
    told = capsys.readouterr().err
    assert "accelerator: tpu was asked for, but jax" in told
    assert told.strip().endswith("--host-devices 2 tries this path on the CPU")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--host-devices", "2"], "--host-devices: found 2 with accelerator cpu, expected it with tpu"),
        (["--accelerator", "tpu", "--host-devices", "-1"], "--host-devices: found -1, expected 1 or more"),
        (
            ["--accelerator", "tpu", "--host-devices", "3"],
            "train_batch_size: found 8 x 1 accumulated, which 3",
        ),
    ],
)
def test_host_devices_that_cannot_be_used_are_refused(
    flags: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(sprites(tmp_path / "out", *flags)) == 2
    assert told in capsys.readouterr().err


def test_compile_writes_the_committed_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["compile", "--out", str(tmp_path)]) == 0
    for written in map(Path, capsys.readouterr().out.split()):
        assert written.read_bytes() == (COMPILED / written.name).read_bytes()
