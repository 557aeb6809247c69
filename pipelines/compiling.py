"""Compiled pipelines: the YAML that a cluster and `textual-inversion run` take, the same bytes for the same source."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler, dsl

from components.common.errors import ConfigError
from pipelines.backend_rules import problems, shape_problems
from pipelines.compiled_graph import RUNS_IF_TOLD
from pipelines.describing import description_of
from pipelines.form import form_choices, form_descriptions

COMPILED = Path(__file__).parent / "compiled"
"""The folder of the committed YAML files, each with its description beside it."""
PIPELINE = COMPILED / "textual_inversion.yaml"
"""The pipeline."""


def compile_all(folder: Path) -> list[Path]:
    """The files written to `folder`: for each pipeline of this project its YAML, and its description in Markdown.

    The UI shows the description that is given when a pipeline is uploaded, and not the one in the YAML.
    """
    folder.mkdir(parents=True, exist_ok=True)  # first: importing and compiling the pipeline take a while
    from pipelines.textual_inversion import textual_inversion

    documents = with_conditions(with_form(compile_pipeline(textual_inversion)))
    check_for_a_backend(documents)
    file = folder / PIPELINE.name
    file.write_text(_HEADING + to_yaml(documents), encoding="utf-8")
    description = file.with_suffix(".md")
    description.write_text(description_of(documents[0]), encoding="utf-8")
    return [file, description]


def compile_pipeline(pipeline: dsl.graph_component.GraphComponent) -> list[dict[str, Any]]:
    """The documents of a pipeline's YAML: its specification, and what is for Kubernetes alone, where there is such."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(file))
        documents: list[dict[str, Any]] = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    return documents


def check_for_a_backend(documents: list[dict[str, Any]]) -> None:
    """Raises `ConfigError`, naming everything, when a backend would stop a run of this pipeline.

    `kfp.local` does not look at most of it.
    """
    if found := [*problems(documents), *shape_problems(documents)]:
        raise ConfigError(*found)


def with_form(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The documents with what the compiler cannot take from a Python signature, of a pipeline that takes the form.

    That is what each parameter means, and the values of those that are a choice, which are drop-down lists in the UI
    (from KFP 2.17).
    """
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    for name, description in form_descriptions(list(parameters)).items():
        parameters[name]["description"] = description
    for name, values in form_choices(list(parameters)).items():
        parameters[name]["literals"] = values
    return documents


def with_conditions(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The documents in which a run goes on after its first task only if that says so.

    Every task that waits for the first one alone gets a condition of its own, which its driver looks at; `dsl.If` would
    put it into a group. What depends on it is left out with it, and the run has succeeded.
    """
    tasks = documents[0]["root"]["dag"]["tasks"]
    (first,) = (name for name, task in tasks.items() if "dependentTasks" not in task)
    for task in tasks.values():
        if task.get("dependentTasks") == [first]:
            task["triggerPolicy"] = {"condition": RUNS_IF_TOLD}
    return documents


def to_yaml(documents: Iterable[Any]) -> str:
    """The documents of one YAML file, in a form that people can read and compare."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=True, width=110)


_HEADING = "# Written by `make compile` from pipelines/textual_inversion.py and the steps' configs.\n"


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines, such as the steps' Python source, as blocks that can be read and compared."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)
