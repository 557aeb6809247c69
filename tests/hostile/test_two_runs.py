"""Two of the same: runs in one folder, folders in which no run can be, and results of earlier runs that are damaged."""

from __future__ import annotations

import io
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components.common.artifact_folder import MANIFEST
from pipelines.cli import main
from pipelines.compiling import compile_pipeline, to_yaml
from pipelines.local_run import run_pipeline
from tests.faults.trainings import REPOSITORY
from tests.hostile.stoppable_run import stoppable

RACERS = 8


def command(folder: Path, manner: str) -> list[str]:
    return [sys.executable, "-m", "tests.hostile.stoppable_run", str(folder), manner]


def test_one_of_racing_runs_works_and_the_others_name_it(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    racers = [
        subprocess.Popen(
            command(tmp_path, "waiting"), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for _ in range(RACERS)
    ]
    try:
        deadline = time.monotonic() + 60
        while sum(racer.poll() is None for racer in racers) > 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        (winner,) = (racer for racer in racers if racer.poll() is None)
        for racer in racers:
            if racer is not winner:
                _, said = racer.communicate()
                assert racer.returncode == 2
                assert said == (
                    f"found another run at work in {tmp_path / 'out'}: process {winner.pid} on {socket.gethostname()}: "
                    "wait for its end, stop it, or give another folder\n"
                )
        (tmp_path / "go").touch()
        _, said = winner.communicate(timeout=60)
        assert (winner.returncode, said) == (0, "")
    finally:
        for racer in racers:
            racer.kill()
    record_property("tried", RACERS)


def a_file(folder: Path) -> Path:
    (folder / "out").write_text("mine")
    return folder / "out"


def with_a_file(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
        return folder

    return make


def with_a_folder(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name / "mine").mkdir(parents=True)
        return folder

    return make


def a_loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "a file": a_file,
    "below a file": lambda folder: a_file(folder) / "below" / "it",
    "no folder of ours": lambda folder: Path("/proc/nowhere"),
    "a device": lambda folder: Path("/dev/null"),
    "a name too long": lambda folder: folder / ("x" * 300),
    "a link to itself": a_loop,
    "what kfp.local replaces": lambda folder: folder / "{{$.inputs}}",
    "bytes that are no UTF-8": lambda folder: folder / os.fsdecode(b"Z\xfcrich"),
    "artifacts are a file": with_a_file("artifacts"),
    "cache is a file": with_a_file("cache"),
    "lock is a folder": with_a_folder(".textual-inversion-lock"),
    "log is a folder": with_a_folder("run.log"),
    "timings are a folder": with_a_folder("timings.jsonl"),
}


@pytest.mark.parametrize("make", FOLDERS.values(), ids=FOLDERS.keys())
def test_folder_in_which_no_run_can_be_is_one_line(
    make: Callable[[Path], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = make(tmp_path)
    assert main(["run", "--preset", "sprites", "--out", str(out)]) in (2, 4)
    (said,) = capfd.readouterr().err.strip().splitlines()
    assert said.startswith("textual-inversion: ")
    assert "out" in said or str(tmp_path) in said or str(out) in said


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("ro", "out: Read-only file system"),
        ("size=4k,nr_inodes=1", "out: No space left on device"),
        ("size=1m,nr_inodes=6", "No space left on device"),
        ("size=24k", "No space left on device"),
    ],
    ids=["read-only", "full", "full after some files", "full after some bytes"],
)
def test_disk_that_is_full_or_read_only_is_told_in_a_line(tmp_path: Path, options: str, expected: str) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    (tmp_path / "out").mkdir()
    script = 'mount -t tmpfs -o $1 tmpfs "$2"; shift 2; exec "$@"'
    run = [options, str(tmp_path / "out"), *command(tmp_path, "plain")]
    mounted = ["unshare", "-rm", "sh", "-ec", script, "sh", *run]
    done = subprocess.run(mounted, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 4)
    (said,) = done.stderr.splitlines()
    assert expected in said


def test_log_that_can_grow_no_more_ends_no_run(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, "talkative"),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "out" / "run.log").stat().st_size == 100_000
    assert "line 19999" in done.stdout


@pytest.mark.parametrize("name", ["it's $HOME; `x`", "Zürich 🎨", "a\nb", '"%41" {{}}'])
def test_run_works_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    done = subprocess.run(command(folder, "plain"), cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def to_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def to_a_link_to_nowhere(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


ARTIFACT: dict[str, Callable[[Path], None]] = {
    "gone": shutil.rmtree,
    "emptied": lambda folder: [file.unlink() for file in folder.iterdir()] and None,
    "a link to nowhere": to_a_link_to_nowhere,
    "without manifest": lambda folder: (folder / MANIFEST).unlink(),
    "manifest cut": lambda folder: cut(folder / MANIFEST),
    "manifest flipped": lambda folder: flip(folder / MANIFEST),
    "manifest empty": lambda folder: (folder / MANIFEST).write_bytes(b""),
    "file gone": lambda folder: (folder / "colour.txt").unlink(),
    "file cut": lambda folder: cut(folder / "colour.txt"),
    "file flipped": lambda folder: flip(folder / "colour.txt"),
    "file a folder": lambda folder: to_folder(folder / "colour.txt"),
}
ENTRY = {
    "empty": b"",
    "half": b'{"picture": {"__kfp_art',
    "no text": b"\xff\xfe\x00",
    "nested": b"[" * 100_000 + b"]" * 100_000,
    "a list": b"[]",
    "null": b"null",
    "no number": b'{"picture": NaN}',
    "a number too large": b'{"picture": 1e999}',
    "without address": b'{"picture": {"__kfp_artifact__": true}}',
    "address is a number": b'{"picture": {"__kfp_artifact__": true, "uri": 7}}',
    "address is no name": b'{"picture": {"__kfp_artifact__": true, "uri": "a\\u0000b"}}',
    "address of nothing": b'{"picture": {"__kfp_artifact__": true, "uri": "/nowhere/at/all"}}',
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline, in a folder where it has run."""
    file = tmp_path_factory.mktemp("damaged") / "stoppable.yaml"
    file.write_text(to_yaml(compile_pipeline(stoppable)), encoding="utf-8")
    run_again(file)
    return file


def run_again(compiled: Path) -> tuple[set[str], str]:
    """The steps that ran, and what was on the screen."""
    screen, folder = io.StringIO(), compiled.parent
    run = run_pipeline(compiled, {"folder": str(folder), "manner": "plain"}, out=folder / "out", screen=screen)
    assert run.failures == ()
    assert len(run.outputs["Output"]) == 66
    return set(run.seconds), screen.getvalue()


def entry_of_the_picture(compiled: Path) -> Path:
    (entry,) = (file for file in compiled.parent.glob("out/cache/*/*.json") if '"picture"' in file.read_text())
    return entry


def test_whole_results_are_reused(compiled: Path) -> None:
    assert run_again(compiled)[0] == set()


@pytest.mark.parametrize("damage", ARTIFACT.values(), ids=ARTIFACT.keys())
def test_damaged_artifact_is_made_again(compiled: Path, damage: Callable[[Path], None]) -> None:
    damage(max(compiled.parent.glob("out/artifacts/*/paint/picture"), key=lambda picture: str(picture)))
    steps, screen = run_again(compiled)
    assert "paint" in steps
    assert screen.startswith("not reused, the step that made it runs again: ")
    assert screen.count("not reused") == 1


@pytest.mark.parametrize("content", ENTRY.values(), ids=ENTRY.keys())
def test_damaged_entry_of_the_cache_is_not_used(compiled: Path, content: bytes) -> None:
    entry_of_the_picture(compiled).write_bytes(content)
    steps, screen = run_again(compiled)
    assert "paint" in steps
    assert screen.startswith("not reused, the step that made it runs again: ")
    assert screen.count("not reused") == 1
