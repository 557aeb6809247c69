"""Every option of a run as a command-line flag."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from components.common.cli import add_config_flags
from components.preflight.options import GROUPS, known_options


def add_option_flags(parser: argparse.ArgumentParser, defaults: Mapping[str, Any]) -> None:
    """Adds one `--flag` for every option of a run, in groups; a flag that is not given leaves no attribute.

    Args:
        parser: the parser.
        defaults: what help shows as an option's default, where that is not the config's own.
    """
    for group in GROUPS:
        flags = parser.add_argument_group(group.title)
        add_config_flags(flags, group, prefix=group.prefix, suppress=True, shown=defaults)


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were given as flags, by name."""
    names = known_options()
    return {name: value for name, value in vars(arguments).items() if name in names}
