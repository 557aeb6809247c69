"""The local runner on a pipeline of two small steps."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from kfp import dsl

from components.common.cli import TIMINGS_VARIABLE
from pipelines.compiling import compile_pipeline, to_yaml, with_conditions
from pipelines.local_run import SOURCE, LocalRun, run_pipeline
from tests.pipelines.toy_pipeline import told, toy

Run = Callable[..., tuple[LocalRun, str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the toy pipeline with the given parameters; gives the run and what was on the screen."""
    return partial(run_toy, tmp_path, toy)


def run_toy(
    folder: Path,
    pipeline: dsl.graph_component.GraphComponent,
    *,
    reuse: bool = True,
    environment: dict[str, str] | None = None,
    **parameters: str | int,
) -> tuple[LocalRun, str]:
    compiled, screen = folder / "toy.yaml", io.StringIO()
    documents = compile_pipeline(pipeline)
    compiled.write_text(to_yaml(with_conditions(documents) if pipeline is told else documents), encoding="utf-8")
    done = run_pipeline(compiled, parameters, out=folder / "out", reuse=reuse, environment=environment, screen=screen)
    return done, screen.getvalue()


def test_run_gives_outputs_and_durations_when_all_steps_succeed(run: Run):
    done, screen = run(colour="red", width=2)
    assert done.failures == ()
    assert done.outputs["framed"] == "[red][red]"
    assert Path(done.outputs["picture"]).read_text() == "red"
    assert set(done.seconds) == {"draw", "frame"}
    assert "Draw the picture\n    drawing red\n" in screen


def test_screen_shows_only_the_lines_of_the_steps(run: Run, tmp_path: Path):
    _, screen = run(colour="red")
    assert "KFP Executor" not in screen
    assert "parameterValues" not in screen
    assert "parameterValues" in (tmp_path / "out" / "run.log").read_text()


def test_repeated_run_runs_no_step_again(run: Run):
    first, _ = run(colour="red")
    second, screen = run(colour="red")
    assert second.seconds == {}
    assert sorted(second.reused) == ["draw", "frame"]
    assert second.outputs == first.outputs
    assert screen.count("reused") == 2


def test_changed_parameter_reruns_only_the_steps_after_it(run: Run):
    run(colour="red")
    done, _ = run(colour="red", width=3)
    assert set(done.seconds) == {"frame"}
    assert done.outputs["framed"] == "[red][red][red]"


def test_no_reuse_runs_every_step_again(run: Run):
    run(colour="red")
    done, _ = run(colour="red", reuse=False)
    assert set(done.seconds) == {"draw", "frame"}


def test_steps_find_the_environment_and_are_run_again_when_it_changes(run: Run):
    done, screen = run(colour="red", environment={"TOY_PAINT": "thick"})
    assert "drawing red thick" in screen
    done, screen = run(colour="red", environment={"TOY_PAINT": "thin"})
    assert set(done.seconds) == {"draw", "frame"}
    assert "drawing red thin" in screen
    done, _ = run(colour="red", environment={"TOY_PAINT": "thick"})
    assert sorted(done.reused) == ["draw", "frame"]


def test_failing_step_gives_its_own_message_and_is_not_retried(run: Run):
    started = time.monotonic()
    done, _ = run(colour="invisible")
    assert time.monotonic() - started < 30, "a back-off of 60 s was waited for"
    (failure,) = done.failures
    assert failure.task == "draw"
    assert failure.message == "found the colour 'invisible', expected one that can be seen"
    assert done.outputs == {}


def test_failing_step_gives_a_line_for_each_of_its_mistakes(run: Run):
    (failure,) = run(colour="wrong")[0].failures
    assert failure.message == "colour: found 'wrong', expected a colour\nwidth: found none, expected one"


def test_crashing_step_gives_the_exception_and_not_the_end_of_its_message(run: Run):
    done, screen = run(colour="broken")
    (failure,) = done.failures
    assert failure.message == "ZeroDivisionError: the brush"
    assert "Traceback" in screen


def test_interrupt_lets_the_step_keep_its_work_and_then_ends_the_run(tmp_path: Path):
    code = f"""
import os
import pathlib
from pipelines.compiling import compile_pipeline, to_yaml
from pipelines.local_run import run_pipeline
from tests.pipelines.toy_pipeline import toy
compiled = pathlib.Path({str(tmp_path)!r}) / "toy.yaml"
compiled.write_text(to_yaml(compile_pipeline(toy)))
told = {{"TOY_RUN": str(os.getpid())}}
run_pipeline(compiled, {{"colour": "interrupted"}}, out=compiled.parent / "out", environment=told)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SOURCE, start_new_session=True, capture_output=True, text=True, check=False
    )
    assert "StoppedRun: stopped by SIGINT; the same command goes on" in done.stderr.splitlines()[-1]
    assert "SIGINT: stopping; Draw the picture keeps what it can; again to stop at once\n" in done.stdout
    assert done.stdout.endswith("kept half a picture\n")


def test_what_is_told_nothing_is_left_out_with_all_that_depends_on_it(tmp_path: Path):
    done, screen = run_toy(tmp_path, told, colour="none")
    assert (done.failures, done.left_out) == ((), ("paint", "frame"))
    assert done.outputs == {"chosen": "", "picture": "", "framed": ""}
    assert set(done.seconds) == {"choose"} and "Paint" not in screen
    done, _ = run_toy(tmp_path, told, colour="red")
    assert (done.failures, done.left_out) == ((), ())
    assert done.outputs["framed"] == "['red']"


def test_failed_run_is_not_remembered_as_done(run: Run):
    run(colour="invisible")
    done, _ = run(colour="invisible")
    assert len(done.failures) == 1


def test_environment_and_loggers_are_as_before_when_the_run_is_over(run: Run):
    before = dict(os.environ), list(logging.getLogger().handlers), logging.getLogger().level
    run(colour="red")
    assert before == (dict(os.environ), list(logging.getLogger().handlers), logging.getLogger().level)
    assert TIMINGS_VARIABLE not in os.environ
