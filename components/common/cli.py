"""What every step's entry points share: one boundary for errors and time, and flags made from a config."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import signal
import sys
import threading
import time
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from components.common import foreign_json
from components.common.errors import InterruptedTraining, TextualInversionError
from components.common.logs import configure_logging, human_duration
from components.common.options import Config, default_of, option_of, typed_fields
from components.common.printable import masked, printable
from components.common.storage.local_files import local_errors
from components.common.upstream_names import no_such_option

logger = logging.getLogger(__name__)

TIMINGS_VARIABLE = "TEXTUAL_INVERSION_TIMINGS"
"""Environment variable that names a file to which every finished step appends one JSON line of its duration."""

RUN_IS_STDIN_VARIABLE = "TEXTUAL_INVERSION_RUN_IS_STDIN"
"""Environment variable, set where a step's standard input is a pipe that ends when the run ends which it is part of."""

AnyConfig = TypeVar("AnyConfig", bound=Config)


TERMINATION_LOG = Path("/dev/termination-log")
"""What Kubernetes shows of a container that has ended; Argo puts it into its node's message. In a pod alone."""

_LONGEST_REASON = 4096  # bytes that Kubernetes keeps
_UNEXPECTED = 1
"""The exit code of Python for an error that nobody has caught."""


class CommandParser(argparse.ArgumentParser):
    """A parser of a command line whose messages can be shown, whatever was given."""

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser.error`."""
        super().error(printable(message))


@contextlib.contextmanager
def step_boundary(step: str) -> Iterator[None]:
    """Runs a step's body: an error of ours becomes one line and the exit code of its kind, never a traceback.

    So does what the file system refuses, such as a write to a full disk: it is a `StorageError`.

    In a pod that line is left in the termination log too, so that the run's node and `kubectl describe pod` have it,
    and as an event for alerts; so is the last line of an error that nobody expected. A step of a local run that is no
    more, for it was killed, is terminated.

    Raises:
        SystemExit: with the error's `exit_code`, when the body raises a `TextualInversionError` or an `OSError`.
    """
    if os.environ.get(RUN_IS_STDIN_VARIABLE):
        threading.Thread(target=_terminate_at_end_of_stdin, daemon=True, name="end-of-run").start()
    started = time.monotonic()
    try:
        with local_errors(step):
            configure_logging()
            yield
            _tell_duration(step, time.monotonic() - started)
    except InterruptedTraining as stop:
        logger.warning("stopped: %s", stop)
        _leave_reason(step, stop.exit_code, str(stop))
        sys.exit(stop.exit_code)
    except TextualInversionError as error:
        logger.debug("raised here:", exc_info=True)
        for mistake in error.mistakes:
            logger.error("%s", mistake)
        _leave_reason(step, error.exit_code, str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        _leave_reason(step, _UNEXPECTED, f"{type(error).__name__}: {error}")
        raise


def _tell_duration(step: str, seconds: float) -> None:
    logger.info("done in %s", human_duration(seconds))
    timings = os.environ.get(TIMINGS_VARIABLE)
    if timings:
        with Path(timings).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"step": step, "seconds": round(seconds, 3)}) + "\n")


def _terminate_at_end_of_stdin() -> None:
    while os.read(0, 1):
        continue
    os.kill(os.getpid(), signal.SIGTERM)


def tell_event(event: str, facts: Mapping[str, Any]) -> None:
    """Prints a line of JSON on standard output, for alerts that read logs: in a pod alone, elsewhere people read along.

    Args:
        event: what has happened; `event` of the JSON object is `textual-inversion.` and this.
        facts: the other members of the object.
    """
    if TERMINATION_LOG.exists():
        print(masked(json.dumps({"event": f"textual-inversion.{event}", **facts})), flush=True)


def _leave_reason(step: str, exit_code: int, message: str) -> None:
    """Writes why the step ends to the termination log; what the last process of a step says stands."""
    tell_event("step-failed", {"step": step, "exit_code": exit_code, "reason": printable(message)})
    line = " ".join(printable(message).split()).encode()[:_LONGEST_REASON].decode("utf-8", "ignore")
    try:
        if TERMINATION_LOG.exists():
            TERMINATION_LOG.write_text(line, encoding="utf-8")
    except OSError as error:  # the log above has the reason already
        logger.warning("the reason could not be left in %s: %s", TERMINATION_LOG, error)


def add_config_flags(
    parser: argparse._ActionsContainer,
    config: type[Config],
    *,
    only: Collection[str] | None = None,
    prefix: str = "",
    suppress: bool = False,
    shown: Mapping[str, Any] | None = None,
) -> None:
    """Adds one `--flag` for every field of a config, with the field's own default, type, choices and meaning.

    Args:
        parser: the parser, or a group of its flags.
        config: the config's class.
        only: the fields to take; None takes all.
        prefix: what goes before each name.
        suppress: whether a flag that is not given leaves no attribute, and none is required.
        shown: what help shows as a flag's default, by name, where that is not the field's own.
    """
    for field, hint in typed_fields(config):
        if only is not None and field.name not in only:
            continue
        name, option, default = prefix + field.name, option_of(field), default_of(field)
        required = default is dataclasses.MISSING
        told = (shown or {}).get(name, default)
        note = "required" if told is dataclasses.MISSING else f"default: {_shown(told)}"
        parser.add_argument(
            *dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}")),
            dest=name,
            required=required and not suppress,
            default=argparse.SUPPRESS if suppress else None if required else default,
            help=f"{option.description} ({note})".replace("%", "%%"),
            **({"choices": option.choices} if option.choices else _parsing_of(hint)),
        )


def parse_flags(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None, *, options: Collection[str]
) -> argparse.Namespace:
    """The parsed flags.

    Args:
        parser: the parser.
        arguments: the command line; that of this process if it is not given.
        options: names of flags, one of which may be meant by a flag that is none.

    Raises:
        SystemExit: for what the parser does not know; each such flag is told with what may be meant.
    """
    parsed, unknown = parser.parse_known_args(arguments)
    names = [word[2:].partition("=")[0].replace("-", "_") for word in unknown if word.startswith("--")]
    if names:
        parser.error("; ".join(no_such_option(name, options) for name in dict.fromkeys(names)))
    if unknown:
        parser.error(f"found {' '.join(unknown)!r}, expected --option value")
    return parsed


def _shown(default: Any) -> str:
    return repr(list(default) if isinstance(default, tuple) else default)


def config_from_flags(config: type[AnyConfig], arguments: argparse.Namespace) -> AnyConfig:
    """The config filled from the parsed flags of `add_config_flags`.

    Raises:
        ConfigError: from the config's own checks.
    """
    names = [field.name for field, _ in typed_fields(config)]
    return config(**{name: getattr(arguments, name) for name in names})


def _parsing_of(hint: Any) -> dict[str, Any]:
    """How argparse reads a flag of that type; what a text means is left to the config, but for lists and booleans."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is bool:
        return {"type": parse_bool, "metavar": "true|false", "nargs": "?", "const": True}
    if origin is tuple and arguments[0] is str:
        return {"type": str, "metavar": "TEXT", "nargs": "*"}
    if origin in (tuple, Mapping):
        return {"type": parse_json, "metavar": "JSON"}
    metavar = {str: "TEXT", int: "N", float: "X"}[hint]
    return {"type": hint, "metavar": metavar}


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
        return foreign_json.parse_json(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected JSON: {error}") from error
