"""What the registry's commands do with their parsed arguments; see `registry_parser.py`."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
from collections.abc import Mapping
from typing import Any

from components.common.errors import ArtifactError, ConfigError, ObjectNotFoundError
from components.common.printable import printable, visible
from components.common.registry import registry
from components.common.registry.collecting import collect_garbage
from components.common.registry.comparing import compare_versions
from components.common.registry.deleting import delete_concept, delete_version, plan_deletion
from components.publish.told import comparison_lines, concept_lines, deletion_lines, entry_lines, version_lines

_NOT_YET = "nothing is deleted yet: --yes does it"
_GONE = "{} is deleted; gc takes its tombstones when they are a day old"


def list_(arguments: argparse.Namespace) -> None:
    """Prints the concepts of a registry, or the versions of one."""
    uri, concept = arguments.registry_uri, arguments.concept
    names = [concept] if concept else registry.list_concepts(uri)
    found = {name: (registry.list_versions(uri, name), registry.list_aliases(uri, name)) for name in names}
    if not any(entries or aliases for entries, aliases in found.values()):
        what = f"published versions of {concept}" if concept else "concepts"
        raise ObjectNotFoundError(f"found no {what} in the registry {uri}")
    if arguments.json:
        _print_json(
            {
                name: {
                    "aliases": {alias: dataclasses.asdict(pointing) for alias, pointing in aliases.items()},
                    "versions": [entry.as_json() for entry in entries],
                }
                for name, (entries, aliases) in found.items()
            }
        )
    else:
        _print_lines(version_lines(concept, *found[concept]) if concept else concept_lines(found))


def show(arguments: argparse.Namespace) -> None:
    """Prints what a manifest says."""
    entry = registry.resolve(arguments.registry_uri, arguments.concept, arguments.version)
    if arguments.json:
        _print_json(entry.as_json())
    else:
        _print_lines(entry_lines(entry, registry.list_aliases(arguments.registry_uri, arguments.concept)))


def fetch(arguments: argparse.Namespace) -> None:
    """Downloads a version and prints the folder."""
    entry = registry.resolve(arguments.registry_uri, arguments.concept, arguments.version)
    print(printable(str(registry.fetch(entry, arguments.output))))


def promote(arguments: argparse.Namespace) -> None:
    """Moves an alias and prints the version that it points at now."""
    alias = registry.move_alias(arguments.registry_uri, arguments.concept, arguments.alias, arguments.version)
    print(alias.version)


def roll_back(arguments: argparse.Namespace) -> None:
    """Moves an alias back and prints the version that it points at now."""
    print(registry.rollback(arguments.registry_uri, arguments.concept, arguments.alias).version)


def verify(arguments: argparse.Namespace) -> None:
    """Prints what is damaged; raises `ArtifactError` where anything is."""
    uri = arguments.registry_uri
    concepts = [arguments.concept] if arguments.concept else registry.list_concepts(uri)
    damages = {concept: registry.verify(uri, concept) for concept in concepts}
    if arguments.json:
        _print_json({"damages": damages})
    if any(damages.values()):
        raise ArtifactError(*(damage for found in damages.values() for damage in found))
    if not arguments.json:
        _print_lines([f"found nothing damaged in {', '.join(concepts) or 'no concepts'} of the registry {uri}"])


def diff(arguments: argparse.Namespace) -> None:
    """Prints what differs between two versions."""
    one, other = (
        registry.resolve(arguments.registry_uri, arguments.concept, version)
        for version in (arguments.version, arguments.other)
    )
    comparison = compare_versions(one, other)
    if arguments.json:
        _print_json(dataclasses.asdict(comparison))
    else:
        _print_lines(comparison_lines(comparison))


def collect(arguments: argparse.Namespace) -> None:
    """Removes what was left behind and prints the addresses."""
    if not 0 <= arguments.older_than < 10_000:
        raise ConfigError(f"--older-than: found {arguments.older_than:g}, expected days, from 0 to 10000")
    uri, age = arguments.registry_uri, datetime.timedelta(days=arguments.older_than)
    concepts = [arguments.concept] if arguments.concept else registry.list_concept_folders(uri)
    removed = [
        address
        for concept in concepts
        for address in collect_garbage(registry.concept_store(uri, concept), older_than=age, dry_run=arguments.dry_run)
    ]
    done = "would remove" if arguments.dry_run else "removed"
    _print_lines([f"{done} {address}" for address in removed] or ["found nothing that was left behind"])


def delete(arguments: argparse.Namespace) -> None:
    """Deletes a concept or a version, or prints what would be deleted."""
    uri, concept = arguments.registry_uri, arguments.concept
    verb, after = ("deleted", []) if arguments.yes else ("would delete", [_NOT_YET])
    if arguments.version is not None:
        address = delete_version(uri, concept, arguments.version, dry_run=not arguments.yes)
        _print_lines([f"{verb} {address}", "kept the checkpoints of its training: they go with the concept", *after])
        return
    deletion = plan_deletion(uri, concept, arguments.storage_uri)
    if arguments.yes:
        delete_concept(deletion)
    _print_lines([*deletion_lines(deletion, verb), *(after or [_GONE.format(concept)])])


def _print_lines(lines: list[str]) -> None:
    print("\n".join(map(printable, lines)))


def _print_json(value: Mapping[str, Any]) -> None:
    print(visible(json.dumps(value, indent=1, ensure_ascii=False)))
