"""What concepts and aliases of a registry may be called."""

from __future__ import annotations

import re

from components.common.errors import ConfigError

_NAME = re.compile(r"\w[\w.-]*")
_LONGEST_NAME = 100


def check_concept_name(name: str) -> None:
    """Raises `ConfigError` unless `name` can be a concept's folder."""
    _check_name("concept_name", name, "cat-toy")


def check_alias(name: str) -> None:
    """Raises `ConfigError` unless `name` can be an alias: a number would be taken for a version."""
    _check_name("registry_alias", name, "champion")
    if name.isdecimal():
        raise ConfigError(
            f"registry_alias: found {name!r}, expected a name such as champion: a number stands for a version"
        )


def _check_name(field: str, name: str, example: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"{field}: found {name!r}, expected at most {_LONGEST_NAME} letters, digits, '-', '_' and '.', "
            f"not beginning with '-' or '.', such as {example}"
        )
