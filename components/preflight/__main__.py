"""Checks the parameters of a run and prints what the other steps would be given.

    python -m components.preflight run.json

run.json holds the parameters by name, {"storage_uri": "gs://bucket/ti", ...}; those left out have the defaults of the
steps' configs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from components.common.cli import CommandParser, step_boundary
from components.common.errors import InputError
from components.common.foreign_json import parse_json


def main() -> None:
    """Parses the arguments, checks, and prints a JSON object."""
    parser = CommandParser(
        prog="python -m components.preflight",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parameters", type=Path, help="JSON file with the parameters by name")
    arguments = parser.parse_args()
    with step_boundary("preflight"):
        from components.preflight.preflight import preflight

        checked = preflight(_read(arguments.parameters))
        print(json.dumps(dataclasses.asdict(checked), indent=1))


def _read(file: Path) -> dict[str, Any]:
    try:
        parameters = parse_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}): give a file with an object") from error
    if not isinstance(parameters, dict):
        raise InputError(f"{file} holds a {type(parameters).__name__}, expected an object of parameters by name")
    return parameters


if __name__ == "__main__":
    main()
