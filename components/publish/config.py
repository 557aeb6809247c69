"""Where a concept is published, under which name, and which alias is to point at it."""

from __future__ import annotations

import dataclasses
import re

from components.common.errors import ConfigError

DESCRIPTIONS = {
    "registry_uri": "folder of the registry: gs://bucket/folder, s3://bucket/folder or a local path",
    "concept_name": "the concept's folder in the registry; empty takes the placeholder without its brackets",
    "alias": "alias moved to the new version unless it points at a newer one; empty moves none",
    "run_id": "the run that publishes, kept as lineage; empty when there is none",
}

_NAME = re.compile(r"\w[\w.-]*")
_LONGEST_NAME = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishConfig:
    """Where and how a concept is published. Field meanings are in `DESCRIPTIONS`.

    Raises:
        ConfigError: for a value that cannot be right, naming the field.
    """

    registry_uri: str
    concept_name: str = ""
    alias: str = "champion"
    run_id: str = ""

    def __post_init__(self) -> None:
        if not self.registry_uri.strip():
            raise ConfigError(f"registry_uri: found {self.registry_uri!r}, expected {DESCRIPTIONS['registry_uri']}")
        if self.concept_name:
            check_concept_name(self.concept_name)
        if self.alias:
            check_alias(self.alias)


def check_concept_name(name: str) -> None:
    """Raises `ConfigError` unless `name` can be a concept's folder."""
    _check_name("concept_name", name, "cat-toy")


def check_alias(name: str) -> None:
    """Raises `ConfigError` unless `name` can be an alias: a number would be taken for a version."""
    _check_name("alias", name, "champion")
    if name.isdecimal():
        raise ConfigError(f"alias: found {name!r}, expected a name such as champion: a number stands for a version")


def _check_name(field: str, name: str, example: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"{field}: found {name!r}, expected at most {_LONGEST_NAME} letters, digits, '-', '_' and '.', "
            f"not beginning with '-' or '.', such as {example}"
        )
