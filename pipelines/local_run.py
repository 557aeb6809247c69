"""A compiled pipeline run on this machine: each step a process of its own, no cluster and no containers."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import yaml
from kfp import components, local

from components.common.artifact_folder import check_artifact
from components.common.cli import TIMINGS_VARIABLE
from components.common.errors import ArtifactError
from components.common.foreign_json import parse_json
from components.common.logs import open_log
from components.common.storage.local_files import alone_in, local_errors, readable_name
from pipelines.local_conditions import Conditions
from pipelines.step_log import Failure, StepLog
from pipelines.step_process import StepProcesses

SOURCE = Path(__file__).resolve().parents[1]
"""The folder that holds the packages `components` and `pipelines`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalRun:
    """What a local run left behind.

    Attributes:
        outputs: the pipeline's outputs by name: strings, or the local paths of artifacts; those of a task that was left
            out are ""; empty when a step failed.
        failures: the steps that failed.
        reused: the names of the tasks whose outputs were taken from an earlier run.
        left_out: the names of the tasks that were told nothing, or depend on one that was.
        seconds: wall-clock seconds by step, of the steps that ran.
        folder: where this run's own artifacts are; None when every output was taken from earlier runs.
    """

    outputs: Mapping[str, Any]
    failures: tuple[Failure, ...]
    reused: tuple[str, ...]
    left_out: tuple[str, ...]
    seconds: Mapping[str, float]
    folder: Path | None


def run_pipeline(
    compiled: Path,
    parameters: Mapping[str, Any],
    *,
    out: Path,
    reuse: bool = True,
    environment: Mapping[str, str] | None = None,
    screen: TextIO | None = None,
) -> LocalRun:
    """Runs the compiled pipeline `compiled` by `kfp.local` and waits for its end.

    Artifacts go to `<out>/artifacts`, the whole log to `<out>/run.log`. A step whose source, environment, parameters
    and input artifacts are those of an earlier run in `out` is not run again.

    Args:
        compiled: the pipeline's YAML file.
        parameters: the pipeline's parameters.
        out: a folder, made if need be.
        reuse: whether outputs of earlier runs in `out` may be reused.
        environment: what the steps' processes find in their environment beside this process's.
        screen: where the steps' lines are shown; standard output if None.

    Raises:
        StoppedRun: on SIGTERM, SIGHUP or Ctrl-C, after the step that runs has ended.
        ConfigError: when another run is at work in `out`.
        StorageError: when nothing can be written there.
    """
    pipeline = read_pipeline(compiled)
    _forget_retries(pipeline)
    with local_errors(readable_name(out)), alone_in(out, "run"):
        return _run(pipeline, parameters, out, reuse, dict(environment or {}), screen or sys.stdout)


def _run(
    pipeline: dict[str, Any],
    parameters: Mapping[str, Any],
    out: Path,
    reuse: bool,
    environment: Mapping[str, str],
    screen: TextIO,
) -> LocalRun:
    conditions = Conditions(pipeline)
    artifacts, timings = out / "artifacts", out / "timings.jsonl"
    cache = out / "cache" / source_digest(environment)[:16]
    artifacts.mkdir(parents=True, exist_ok=True)
    timings.unlink(missing_ok=True)
    before = set(artifacts.iterdir())
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(artifacts),
        raise_on_error=False,
        enable_caching=reuse,
        cache_root=str(cache),
    )
    with open_log(out / "run.log") as full_log, _environment(timings, environment):
        log = StepLog(full_log=full_log, screen=screen, titles=_titles(pipeline))
        for reason in _forget_damaged(cache) if reuse else []:
            log.say(f"not reused, the step that made it runs again: {reason}")
        with _everything_goes_to(log), StepProcesses(log).of_kfp(), conditions.of_kfp():
            task = components.load_component_from_text(yaml.safe_dump(pipeline))(**parameters)
    own_folder = set(artifacts.iterdir()) - before
    return LocalRun(
        outputs={name: getattr(value, "path", value) for name, value in task.outputs.items()},
        failures=tuple(log.failures),
        reused=tuple(log.reused),
        left_out=tuple(conditions.left_out),
        seconds=_seconds(timings),
        folder=next(iter(own_folder), None),
    )


def read_pipeline(compiled: Path) -> dict[str, Any]:
    """The pipeline's specification: the first document of the YAML file; a second one is for Kubernetes alone."""
    pipeline: dict[str, Any] = next(yaml.load_all(compiled.read_text(encoding="utf-8"), yaml.CSafeLoader))
    return pipeline


def parameter_names(compiled: Path) -> list[str]:
    """The names of a compiled pipeline's parameters."""
    return list(read_pipeline(compiled)["root"]["inputDefinitions"]["parameters"])


def source_digest(environment: Mapping[str, str]) -> str:
    """The hexadecimal SHA-256 of this project's source, its installed packages and the steps' own environment.

    On a cluster the image's tag stands for the code in a cache key. `kfp.local` runs the working copy instead of an
    image, so its cache is kept apart for each state of the code.
    """
    digest = hashlib.sha256()
    for package in ("components", "pipelines"):
        for file in sorted((SOURCE / package).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(SOURCE)}\0".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    packages = sorted(f"{package.name}=={package.version}" for package in importlib.metadata.distributions())
    digest.update("\n".join([*packages, *sorted(f"{name}={value}" for name, value in environment.items())]).encode())
    return digest.hexdigest()


def _forget_retries(pipeline: dict[str, Any]) -> None:
    # Retries are for pods that are lost and networks that stutter. Here a failed step has failed, and waiting for
    # the back-off would only keep its message from the person who waits for it.
    for task in pipeline["root"]["dag"]["tasks"].values():
        task.pop("retryPolicy", None)


def _forget_damaged(cache: Path) -> list[str]:
    """What is wrong with each entry of the cache that is damaged, or whose artifacts are: all of them are removed.

    `kfp.local` would reuse them without a look.
    """
    reasons = []
    for entry in filter(Path.is_file, sorted(cache.glob("*.json"))):
        try:
            for path in _artifacts_of(entry):
                if path.is_dir() or not path.exists():  # beside the folders there are pages and tables, which are files
                    check_artifact(path)
        except (ArtifactError, ValueError) as error:
            entry.unlink()
            reasons.append(str(error))
    return reasons


def _artifacts_of(entry: Path) -> list[Path]:
    """Where the artifacts are of a step whose outputs an entry of the cache holds, by name.

    Raises:
        ValueError: when it is no such entry.
    """
    try:
        outputs = parse_json(entry.read_bytes())
        artifacts = [each for each in outputs.values() if isinstance(each, dict) and each.get("__kfp_artifact__")]
        return [Path(artifact["uri"]) for artifact in artifacts]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{entry} is no entry of the cache ({error})") from error


def _titles(pipeline: Mapping[str, Any]) -> dict[str, str]:
    return {name: task["taskInfo"]["name"] for name, task in pipeline["root"]["dag"]["tasks"].items()}


@contextlib.contextmanager
def _environment(timings: Path, more: Mapping[str, str]) -> Iterator[None]:
    """Sets what the steps' processes inherit: their source, unbuffered output, the file for durations, and `more`."""
    before = dict(os.environ)
    path = [str(SOURCE), *filter(None, [before.get("PYTHONPATH")])]
    os.environ.update(
        {
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONUNBUFFERED": "1",
            "TQDM_DISABLE": "1",  # each state of a bar would be a line
            TIMINGS_VARIABLE: str(timings.resolve()),
            **more,
        }
    )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _everything_goes_to(log: StepLog) -> Iterator[None]:
    """Sends standard output and the root logger to `log`: `kfp.local` reports a reused task by the latter alone."""
    handler = logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d - %(levelname)s - %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(log), warnings.catch_warnings():
            # It warns of every image that is not called python, and of every setting that only a cluster knows.
            warnings.filterwarnings("ignore", module=r"kfp\.local\.")
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _seconds(timings: Path) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for line in timings.read_text(encoding="utf-8").splitlines() if timings.exists() else []:
        entry = json.loads(line)
        seconds[entry["step"]] = round(seconds.get(entry["step"], 0.0) + entry["seconds"], 3)
    return seconds
