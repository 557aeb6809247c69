"""Compiled pipelines: the YAML that a cluster and `textual-inversion run` take, the same bytes for the same source."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler, dsl

from components.common.prompts import TEMPLATES
from components.common.training.config import FLAX_ACCELERATORS, LR_SCHEDULERS, MIXED_PRECISIONS
from components.ingest_images.config import INTERPOLATIONS, SMALL_IMAGES
from components.preflight.parameters import descriptions

CHOICES = {
    "accelerator": FLAX_ACCELERATORS,
    "interpolation": INTERPOLATIONS,
    "small_images": SMALL_IMAGES,
    "learnable_property": tuple(TEMPLATES),
    "lr_scheduler": LR_SCHEDULERS,
    "mixed_precision": MIXED_PRECISIONS,
}
"""The parameters that are a choice, and the values they take."""

COMPILED = Path(__file__).parent / "compiled"
"""The folder of the committed YAML files."""


def compile_all(folder: Path) -> list[Path]:
    """The files written to `folder`, one for each pipeline of this project."""
    from pipelines.textual_inversion import textual_inversion

    text = compile_pipeline(textual_inversion, descriptions=descriptions(), choices=CHOICES)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "textual_inversion.yaml"
    file.write_text(text, encoding="utf-8")
    return [file]


def compile_pipeline(
    pipeline: dsl.graph_component.GraphComponent,
    *,
    descriptions: Mapping[str, str],
    choices: Mapping[str, Sequence[str]],
) -> str:
    """The YAML of a pipeline, with what the compiler cannot take from a Python signature.

    Args:
        pipeline: the pipeline.
        descriptions: what each parameter means, by its name.
        choices: the values of the parameters that are a choice: drop-down lists in the UI (from KFP 2.17).

    Raises:
        KeyError: when a parameter has no description, or a choice is for no parameter.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(file))
        text = file.read_text(encoding="utf-8")
    documents = list(yaml.safe_load_all(text))
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    for name, parameter in parameters.items():
        parameter["description"] = descriptions[name]
    for name, values in choices.items():
        parameters[name]["literals"] = list(values)
    return _heading(text) + to_yaml(documents)


def to_yaml(documents: Iterable[Any]) -> str:
    """The documents of one YAML file, in a form that people can read and compare."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=True, width=110)


def _heading(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines, such as the steps' Python source, as blocks that can be read and compared."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)
