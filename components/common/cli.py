"""What every step's entry points share: one boundary for errors and time, and flags made from a config."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import sys
import time
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from components.common.errors import InterruptedTraining, TextualInversionError
from components.common.logs import configure_logging, human_duration

logger = logging.getLogger(__name__)

TIMINGS_VARIABLE = "TEXTUAL_INVERSION_TIMINGS"
"""Environment variable that names a file to which every finished step appends one JSON line of its duration."""

Config = TypeVar("Config")


@contextlib.contextmanager
def step_boundary(step: str) -> Iterator[None]:
    """Runs a step's body: an error of ours becomes one line and the exit code of its kind, never a traceback.

    Raises:
        SystemExit: with the error's `exit_code`, when the body raises a `TextualInversionError`.
    """
    configure_logging()
    started = time.monotonic()
    try:
        yield
    except InterruptedTraining as stop:
        logger.warning("%s stopped: %s", step, stop)
        sys.exit(stop.exit_code)
    except TextualInversionError as error:
        logger.error("%s failed: %s", step, error)
        sys.exit(error.exit_code)
    seconds = time.monotonic() - started
    logger.info("%s done in %s", step, human_duration(seconds))
    timings = os.environ.get(TIMINGS_VARIABLE)
    if timings:
        with Path(timings).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"step": step, "seconds": round(seconds, 3)}) + "\n")


def add_config_flags(parser: argparse.ArgumentParser, config: type, descriptions: Mapping[str, str]) -> None:
    """Adds one `--flag` for every field of the dataclass `config`, with the field's own default and type.

    `descriptions` maps every field to its help text; a field without one is a `KeyError`, so that none is forgotten.
    """
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        default = default_of(field)
        required = default is dataclasses.MISSING
        shown = "required" if required else f"default: {default!r}"
        parser.add_argument(
            *dict.fromkeys((f"--{field.name.replace('_', '-')}", f"--{field.name}")),
            dest=field.name,
            required=required,
            default=None if required else default,
            help=f"{descriptions[field.name]} ({shown})".replace("%", "%%"),
            **_parsing_of(hints[field.name]),
        )


def config_from_flags(config: type[Config], arguments: argparse.Namespace) -> Config:
    """The dataclass `config` filled from parsed flags.

    Raises:
        ConfigError: from the config's own checks.
    """
    names = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    return config(**{name: getattr(arguments, name) for name in names})


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a dataclass's field, made if it has a factory; `dataclasses.MISSING` where there is none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _parsing_of(hint: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        hint = next(argument for argument in arguments if argument is not type(None))
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is bool:
        return {"type": parse_bool, "metavar": "true|false", "nargs": "?", "const": True}
    if origin in (list, tuple):
        return {"type": arguments[0], "nargs": "*"}
    if origin in (Mapping, Sequence):
        return {"type": parse_json, "metavar": "JSON"}
    return {"type": hint}


def parse_bool(text: str) -> bool:
    """The boolean that `true`, `false`, `yes`, `no`, `1` or `0` stands for (any case).

    Raises:
        argparse.ArgumentTypeError: for any other text.
    """
    lowered = text.strip().lower()
    if lowered in ("true", "yes", "1"):
        return True
    if lowered in ("false", "no", "0"):
        return False
    raise argparse.ArgumentTypeError(f"found {text!r}, expected true or false")


def parse_json(text: str) -> Any:
    """The value that a text of JSON stands for.

    Raises:
        argparse.ArgumentTypeError: for any other text.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected JSON: {error}") from error
