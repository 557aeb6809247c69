"""The registry's commands, as `textual-inversion registry` and `python -m components.publish` have them."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components.common.errors import ArtifactError, ConfigError, ObjectNotFoundError
from components.common.printable import printable, visible
from components.common.registry import registry
from components.common.registry.collecting import collect_garbage
from components.common.registry.comparing import compare_versions
from components.common.registry.deleting import delete_concept, delete_version, plan_deletion
from components.publish.config import PublishConfig
from components.publish.told import comparison_lines, concept_lines, deletion_lines, entry_lines, version_lines

_REGISTRY_HELP = "folder of the registry: gs://bucket/folder, s3://bucket/folder or a local path"
_CONCEPT_HELP = "the concept's name in the registry"
_VERSION_HELP = "a version number or an alias"
_HELP_WIDTH = 78
_NOT_YET = "nothing is deleted yet: --yes does it"
_GONE = "{} is deleted; gc takes its tombstones when they are a day old"
_EXAMPLE_REGISTRY = "gs://bucket/textual-inversion/registry"


def add_registry_commands(commands: Any) -> None:
    """Adds the commands to the subparsers of a parser; each sets `run`, a function of the parsed arguments."""
    listing = add_command(commands, "list", "list the concepts, or the versions of one", _list, "cat-toy")
    _add_concept(listing, optional="all concepts are listed")
    _add_json(listing)

    showing = add_command(commands, "show", "print what the registry says of a version", _show, "cat-toy champion")
    _add_concept(showing)
    showing.add_argument("version", help=_VERSION_HELP)
    _add_json(showing)

    fetching = add_command(
        commands, "fetch", "download the files of a version and check them", _fetch, "cat-toy champion --output cat-toy"
    )
    _add_concept(fetching)
    fetching.add_argument("version", help=_VERSION_HELP)
    fetching.add_argument("--output", type=Path, required=True, help="new or empty folder for the files")

    promoting = add_command(
        commands,
        "promote",
        "move an alias to a version, forwards or backwards",
        _promote,
        "cat-toy candidate",
        more="A run with registry_alias=candidate publishes for a person to look at first: the example then makes its "
        "version the champion.",
    )
    _add_concept(promoting)
    promoting.add_argument("version", help="a version number, or an alias that points at it, such as candidate")
    _add_alias(promoting)

    back = add_command(
        commands, "rollback", "move an alias back to the version it pointed at before", _rollback, "cat-toy"
    )
    _add_concept(back)
    _add_alias(back)

    verifying = add_command(
        commands, "verify", "check every digest of every version, and say what is damaged", _verify, "cat-toy"
    )
    _add_concept(verifying, optional="all concepts are verified")
    _add_json(verifying)

    comparing = add_command(
        commands,
        "diff",
        "say what differs between two versions: options, base model, pictures, scores, rows, files",
        _diff,
        "cat-toy champion candidate",
    )
    _add_concept(comparing)
    comparing.add_argument("version", help=_VERSION_HELP)
    comparing.add_argument("other", help="another version number or alias")
    _add_json(comparing)

    collecting = add_command(
        commands,
        "gc",
        "remove what publishers have begun and nobody has completed; no complete version is touched",
        _gc,
        "--older-than 7 --dry-run",
    )
    _add_concept(collecting, optional="all concepts are cleaned up")
    collecting.add_argument(
        "--older-than", type=float, default=1.0, metavar="DAYS", help="age from which on (default: %(default)g day)"
    )
    collecting.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")

    deleting = add_command(
        commands,
        "delete",
        "delete a concept with its checkpoints, or one version of it; without --yes it only says what",
        _delete,
        "cat-toy --storage-uri gs://bucket/textual-inversion",
        more="Deleted numbers are not given again; gc forgets them where nothing else of a concept is left.",
    )
    _add_concept(deleting)
    deleting.add_argument("version", nargs="?", type=int, help="a version number; without it, the whole concept")
    deleting.add_argument(
        "--storage-uri", default="", help="the runs' storage_uri, whose checkpoints of the concept are deleted with it"
    )
    deleting.add_argument("--yes", action="store_true", help="delete; nothing brings it back")


def add_command(
    commands: Any, name: str, text: str, run: Callable[[argparse.Namespace], None], example: str, *, more: str = ""
) -> argparse.ArgumentParser:
    """The parser of a command on a registry, with an example of its arguments in its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # an example that is wrapped cannot be copied
        description=textwrap.fill(f"{text[0].upper()}{text[1:]}. {more}", _HELP_WIDTH),
        epilog=f"example: %(prog)s {example} --registry-uri {_EXAMPLE_REGISTRY}".replace("  ", " "),
    )
    parser.add_argument("--registry-uri", required=True, help=_REGISTRY_HELP)
    parser.set_defaults(run=run)
    return parser


def _add_concept(parser: argparse.ArgumentParser, *, optional: str = "") -> None:
    if optional:
        parser.add_argument("concept", nargs="?", help=f"{_CONCEPT_HELP}; without it, {optional}")
    else:
        parser.add_argument("concept", help=_CONCEPT_HELP)


def _add_alias(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--alias", default=PublishConfig.registry_alias, help="alias to move (default: %(default)s)")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print it as one JSON object, for other programs")


def _list(arguments: argparse.Namespace) -> None:
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


def _show(arguments: argparse.Namespace) -> None:
    entry = registry.resolve(arguments.registry_uri, arguments.concept, arguments.version)
    if arguments.json:
        _print_json(entry.as_json())
    else:
        _print_lines(entry_lines(entry, registry.list_aliases(arguments.registry_uri, arguments.concept)))


def _fetch(arguments: argparse.Namespace) -> None:
    entry = registry.resolve(arguments.registry_uri, arguments.concept, arguments.version)
    print(printable(str(registry.fetch(entry, arguments.output))))


def _promote(arguments: argparse.Namespace) -> None:
    alias = registry.move_alias(arguments.registry_uri, arguments.concept, arguments.alias, arguments.version)
    print(alias.version)


def _rollback(arguments: argparse.Namespace) -> None:
    print(registry.rollback(arguments.registry_uri, arguments.concept, arguments.alias).version)


def _verify(arguments: argparse.Namespace) -> None:
    uri = arguments.registry_uri
    concepts = [arguments.concept] if arguments.concept else registry.list_concepts(uri)
    damages = {concept: registry.verify(uri, concept) for concept in concepts}
    if arguments.json:
        _print_json({"damages": damages})
    if any(damages.values()):
        raise ArtifactError(*(damage for found in damages.values() for damage in found))
    if not arguments.json:
        _print_lines([f"found nothing damaged in {', '.join(concepts) or 'no concepts'} of the registry {uri}"])


def _diff(arguments: argparse.Namespace) -> None:
    one, other = (
        registry.resolve(arguments.registry_uri, arguments.concept, version)
        for version in (arguments.version, arguments.other)
    )
    comparison = compare_versions(one, other)
    if arguments.json:
        _print_json(dataclasses.asdict(comparison))
    else:
        _print_lines(comparison_lines(comparison))


def _gc(arguments: argparse.Namespace) -> None:
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


def _delete(arguments: argparse.Namespace) -> None:
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
