"""The registry's commands, as `textual-inversion registry` and `python -m components.publish` have them."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.publish import commands
from components.publish.config import PublishConfig
from components.publish.destinations.command import add_push_command
from components.publish.gallery.command import add_gallery_command

_REGISTRY_HELP = "folder of the registry: gs://bucket/folder, s3://bucket/folder or a local path"
_CONCEPT_HELP = "the concept's name in the registry"
_VERSION_HELP = "a version number or an alias"
_HELP_WIDTH = 78
_EXAMPLE_REGISTRY = "gs://bucket/textual-inversion/registry"


def add_registry_commands(subparsers: Any) -> None:
    """Adds the commands to the subparsers of a parser; each sets `run`, a function of the parsed arguments."""
    _add_what_looks(subparsers)
    _add_what_moves_aliases(subparsers)
    add_gallery_command(subparsers)
    add_push_command(subparsers)
    _add_what_removes(subparsers)


def _add_what_looks(subparsers: Any) -> None:
    listing = add_command(subparsers, "list", "list the concepts, or the versions of one", commands.list_, "cat-toy")
    _add_concept(listing, optional="all concepts are listed")
    _add_json(listing)

    showing = add_command(
        subparsers, "show", "print what the registry says of a version", commands.show, "cat-toy champion"
    )
    _add_concept(showing)
    showing.add_argument("version", help=_VERSION_HELP)
    _add_json(showing)

    fetching = add_command(
        subparsers,
        "fetch",
        "download the files of a version and check them",
        commands.fetch,
        "cat-toy champion --output cat-toy",
    )
    _add_concept(fetching)
    fetching.add_argument("version", help=_VERSION_HELP)
    fetching.add_argument("--output", type=Path, required=True, help="new or empty folder for the files")

    verifying = add_command(
        subparsers, "verify", "check every digest of every version, and say what is damaged", commands.verify, "cat-toy"
    )
    _add_concept(verifying, optional="all concepts are verified")
    _add_json(verifying)

    comparing = add_command(
        subparsers,
        "diff",
        "say what differs between two versions: options, base model, pictures, scores, rows, files",
        commands.diff,
        "cat-toy champion candidate",
    )
    _add_concept(comparing)
    comparing.add_argument("version", help=_VERSION_HELP)
    comparing.add_argument("other", help="another version number or alias")
    _add_json(comparing)


def _add_what_moves_aliases(subparsers: Any) -> None:
    promoting = add_command(
        subparsers,
        "promote",
        "move an alias to a version, forwards or backwards",
        commands.promote,
        "cat-toy candidate",
        more="A run with registry_alias=candidate publishes for a person to look at first: the example then makes its "
        "version the champion.",
    )
    _add_concept(promoting)
    promoting.add_argument("version", help="a version number, or an alias that points at it, such as candidate")
    _add_alias(promoting)

    back = add_command(
        subparsers, "rollback", "move an alias back to the version it pointed at before", commands.roll_back, "cat-toy"
    )
    _add_concept(back)
    _add_alias(back)


def _add_what_removes(subparsers: Any) -> None:
    collecting = add_command(
        subparsers,
        "gc",
        "remove what publishers have begun and nobody has completed; no complete version is touched",
        commands.collect,
        "--older-than 7 --dry-run",
    )
    _add_concept(collecting, optional="all concepts are cleaned up")
    collecting.add_argument(
        "--older-than", type=float, default=1.0, metavar="DAYS", help="age from which on (default: %(default)g day)"
    )
    collecting.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")

    deleting = add_command(
        subparsers,
        "delete",
        "delete a concept with its checkpoints, or one version of it; without --yes it only says what",
        commands.delete,
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
    subparsers: Any, name: str, text: str, run: Callable[[argparse.Namespace], None], example: str, *, more: str = ""
) -> argparse.ArgumentParser:
    """The parser of a command on a registry, with an example of its arguments in its help."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
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
