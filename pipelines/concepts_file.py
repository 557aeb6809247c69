"""A fleet of concepts as a file: defaults, and an entry for each concept.

fleet: toys                      # optional: the file's name without its ending
defaults:
  storage_uri: gs://bucket/store
  schedule: {every: 1d}
concepts:
  cat-toy:
    images_uri: gs://bucket/cat
    placeholder_token: <cat-toy>
    initializer_token: toy
    schedule: {cron: "0 0 3 * * *"}
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.common.errors import ConfigError
from components.common.registry.names import check_concept_name
from components.common.start_word import AUTO
from components.common.storage.local_files import local_errors
from components.preflight.options import check_options
from pipelines.triggers import Trigger, check_cron, parse_interval

SCHEDULE = "schedule"
_SOME_STORAGE = "gs://namespace"
_PARTS = ("fleet", "defaults", "concepts")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetConcept:
    """A concept of a fleet.

    Attributes:
        name: its name in the registry and of its schedule.
        options: of its runs by name, checked.
        trigger: when it runs on a cluster; None: it is not scheduled.
    """

    name: str
    options: Mapping[str, Any]
    trigger: Trigger | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fleet:
    """All concepts of a file, by the name that owns their schedules."""

    name: str
    concepts: tuple[FleetConcept, ...]


def read_yaml(file: Path, expected: str) -> dict[str, Any]:
    """The mapping by names that a YAML file holds.

    Raises:
        ConfigError: when it holds something else.
    """
    try:
        with local_errors(str(file)):
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{file}: found no YAML ({' '.join(str(error).split())}), expected {expected}") from error
    return _mapping(content, str(file), expected)


def read_fleet(file: Path, base: Mapping[str, Any]) -> Fleet:
    """The fleet of a file, every option of every concept checked as preflight does.

    Args:
        file: YAML, see the module's description.
        base: options that the file's defaults come before.

    Raises:
        ConfigError: naming everything that cannot be right, each by its concept.
    """
    content = read_yaml(file, "a fleet: defaults, and concepts by name")
    if unknown := set(content) - set(_PARTS):
        raise ConfigError(f"{file}: found {', '.join(sorted(unknown))}, expected {', '.join(_PARTS)} alone")
    name = content.get("fleet", file.stem)
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise ConfigError(f"{file}: fleet: found {name!r}, expected letters, digits, '-', '_' and '.'")
    defaults = _mapping(content.get("defaults") or {}, f"{file}: defaults", "options by name")
    entries = _mapping(content.get("concepts") or {}, f"{file}: concepts", "concepts by name")
    if not entries:
        raise ConfigError(f"{file}: found no concepts, expected an entry for each below 'concepts:'")
    concepts, mistakes = [], []
    for concept, entry in entries.items():
        try:
            own = _mapping(entry or {}, concept, "options by name")
            usual = {"placeholder_token": f"<{concept}>", "initializer_token": AUTO}
            concepts.append(_concept(concept, {**base, **usual, **defaults, **own}))
        except ConfigError as error:
            mistakes += [f"{file}: {concept}: {mistake}" for mistake in error.mistakes]
    words = [str(concept.options["placeholder_token"]) for concept in concepts]
    mistakes += [
        f"{file}: two concepts have the placeholder {word}" for word in sorted(set(words)) if words.count(word) > 1
    ]
    if mistakes:
        raise ConfigError(*mistakes)
    return Fleet(name=name, concepts=tuple(concepts))


def check_sent_options(given: Mapping[str, Any], more_options: Mapping[str, Any] | None = None) -> None:
    """Checks options as preflight will; an empty storage_uri is then that of the pods' namespace, unknown here.

    Raises:
        ConfigError: see `check_options`.
    """
    check_options({**given, "storage_uri": given.get("storage_uri") or _SOME_STORAGE}, more_options)


def _concept(name: str, values: dict[str, Any]) -> FleetConcept:
    check_concept_name(name)
    trigger = values.pop(SCHEDULE, None)
    options = {**values, "concept_name": values.get("concept_name") or name}
    check_sent_options(options)
    return FleetConcept(name=name, options=options, trigger=None if trigger is None else _trigger(trigger))


def _trigger(given: Any) -> Trigger:
    given = _mapping(given, SCHEDULE, "cron or every")
    if set(given) == {"cron"}:
        return Trigger(cron=check_cron(str(given["cron"])))
    if set(given) == {"every"}:
        return Trigger(interval_seconds=parse_interval(str(given["every"])))
    raise ConfigError(f"{SCHEDULE}: found {', '.join(given) or 'nothing'}, expected cron or every")


def _mapping(content: Any, where: str, expected: str) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"{where}: found {type(content).__name__}, expected {expected}")
    return content
