"""A compiled pipeline's parameters as command-line flags."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from components.common.cli import parse_bool


def _parse_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}, which is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a JSON object")
    return value


def _parse_item(text: str) -> Any:
    # Lists hold texts or objects, and no text of ours begins like an object that has a key.
    return _parse_object(text) if text.startswith('{"') else text


_TYPES: dict[str, dict[str, Any]] = {
    "STRING": {"type": str, "metavar": "TEXT"},
    "NUMBER_INTEGER": {"type": int, "metavar": "N"},
    "NUMBER_DOUBLE": {"type": float, "metavar": "X"},
    "LIST": {"type": _parse_item, "metavar": "TEXT", "nargs": "*"},
    "STRUCT": {"type": _parse_object, "metavar": "JSON"},
    "BOOLEAN": {"type": parse_bool, "metavar": "true|false", "nargs": "?", "const": True},
}


def add_parameter_flags(parser: argparse.ArgumentParser, pipeline: Mapping[str, Any]) -> None:
    """Adds one `--flag` for every parameter of a compiled pipeline; a flag that is not given leaves no attribute.

    Args:
        parser: the parser.
        pipeline: the compiled pipeline's specification.
    """
    group = parser.add_argument_group("parameters of the pipeline", "with the defaults of the preset `guide`")
    for name, parameter in sorted(pipeline["root"]["inputDefinitions"]["parameters"].items()):
        kind = dict(_TYPES[parameter["parameterType"]])
        if "literals" in parameter:
            kind = {"choices": parameter["literals"]}
        shown = f"default: {_default(parameter)!r}" if "defaultValue" in parameter else "default: below --out"
        group.add_argument(
            *dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}")),
            dest=name,
            default=argparse.SUPPRESS,
            help=f"{parameter['description']} ({shown})".replace("%", "%%"),
            **kind,
        )


def given_parameters(arguments: argparse.Namespace, pipeline: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that were given as flags, by name."""
    names = pipeline["root"]["inputDefinitions"]["parameters"]
    return {name: value for name, value in vars(arguments).items() if name in names}


def default_parameters(pipeline: Mapping[str, Any]) -> dict[str, Any]:
    """The compiled pipeline's own defaults, of the parameters that have one."""
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    return {name: _default(parameter) for name, parameter in parameters.items() if "defaultValue" in parameter}


def _default(parameter: Mapping[str, Any]) -> Any:
    # The compiler writes whole numbers as floating-point ones.
    value = parameter["defaultValue"]
    return int(value) if parameter["parameterType"] == "NUMBER_INTEGER" else value
