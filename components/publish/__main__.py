"""The registry as a command: `python -m components.publish --help`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.common.base_model import read_reference
from components.common.cli import CommandParser, add_config_flags, config_from_flags, step_boundary
from components.common.errors import ArtifactError, ObjectNotFoundError
from components.common.printable import printable, visible
from components.common.registry import registry
from components.publish.config import PublishConfig
from components.publish.destinations.command import add_push_command
from components.publish.destinations.pushing import destinations_of, push_everywhere
from components.publish.gallery.command import add_gallery_command
from components.publish.publish import publish

_REGISTRY_HELP = "folder of the registry: gs://bucket/folder, s3://bucket/folder or a local path"
_REFERENCE_HELP = "folder of the base model's reference that the embedding was trained on"


def main() -> None:
    """Parses the flags and runs one subcommand; what it found is printed on standard output."""
    arguments = vars(_parser().parse_args())
    run, command = arguments.pop("run"), arguments.pop("command")
    with step_boundary(command):
        run(argparse.Namespace(**arguments))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m components.publish",
        description="Publishes learned concepts into a registry in object storage, and looks after them.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    publishing = commands.add_parser("publish", help="publish an evaluated embedding as an immutable version")
    publishing.add_argument("--base-model", type=Path, required=True, help=_REFERENCE_HELP)
    publishing.add_argument("--learned-embedding", type=Path, required=True, help="folder of the LearnedEmbedding")
    publishing.add_argument("--evaluation", type=Path, required=True, help="folder of its Evaluation")
    publishing.add_argument("--output", type=Path, required=True, help="folder for the registry entry")
    publishing.add_argument("--force", action="store_true", help="publish what did not pass its evaluation")
    add_config_flags(publishing, PublishConfig)
    publishing.set_defaults(run=_publish)

    listing = _command(commands, "list", "list the concepts, or the versions of one", _list)
    listing.add_argument("concept", nargs="?", help="the concept; without it, all concepts are listed")

    showing = _command(commands, "show", "print what the registry says of a version, as JSON", _show)
    _add_concept_and_version(showing)

    fetching = _command(commands, "fetch", "download the files of a version and check them", _fetch)
    _add_concept_and_version(fetching)
    fetching.add_argument("--output", type=Path, required=True, help="new or empty folder for the files")

    promoting = _command(commands, "promote", "move an alias to a version, forwards or backwards", _promote)
    _add_concept_and_version(promoting)
    promoting.add_argument("--alias", default=PublishConfig.registry_alias, help="alias to move (default: %(default)s)")

    back = _command(commands, "rollback", "move an alias back to the version it pointed at before", _rollback)
    back.add_argument("concept", help="the concept's name in the registry")
    back.add_argument("--alias", default=PublishConfig.registry_alias, help="alias to move (default: %(default)s)")

    verifying = _command(commands, "verify", "check every digest of every version, and say what is damaged", _verify)
    verifying.add_argument("concept", nargs="?", help="the concept; without it, all concepts are verified")

    add_gallery_command(commands)
    add_push_command(commands)
    _command(commands, "check", "prove that the registry can be written", _check)
    return parser


def _command(commands: Any, name: str, text: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("--registry-uri", required=True, help=_REGISTRY_HELP)
    parser.set_defaults(run=run)
    return parser


def _add_concept_and_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("concept", help="the concept's name in the registry")
    parser.add_argument("version", help="a version number or an alias")


def _publish(arguments: argparse.Namespace) -> None:
    config = config_from_flags(PublishConfig, arguments)
    entry = publish(
        config,
        base_model=arguments.base_model,
        learned_embedding=arguments.learned_embedding,
        evaluation=arguments.evaluation,
        output=arguments.output,
        force=arguments.force,
    )
    print(entry.uri)
    destinations = destinations_of(config, lambda _: read_reference(arguments.base_model))
    addresses = push_everywhere(
        destinations, entry, registry_uri=config.registry_uri, required=config.destinations_required
    )
    for name, address in addresses.items():
        print(f"{name}: {address}")


def _list(arguments: argparse.Namespace) -> None:
    if arguments.concept is None:
        lines = registry.list_concepts(arguments.registry_uri)
    else:
        lines = _version_lines(arguments.registry_uri, arguments.concept)
    if not lines:
        what = "concepts" if arguments.concept is None else f"published versions of {arguments.concept}"
        raise ObjectNotFoundError(f"found no {what} in the registry {arguments.registry_uri}")
    print("\n".join(map(printable, lines)))


def _version_lines(registry_uri: str, concept: str) -> list[str]:
    pointing = registry.list_aliases(registry_uri, concept)
    lines = []
    for entry in registry.list_versions(registry_uri, concept):
        names = ", ".join(name for name, alias in pointing.items() if alias.version == entry.version)
        scores = sorted(entry.facts.scores.get("after", {}).items())
        columns = [f"{entry.version:>4}", entry.created, f"{names or '-':12}"]
        columns += [f"{name} {value:.3f}" for name, value in scores]
        columns += [] if entry.facts.passed else ["(forced)"]
        lines.append("  ".join(columns).rstrip())
    return lines


def _show(arguments: argparse.Namespace) -> None:
    entry = registry.resolve(arguments.registry_uri, arguments.concept, arguments.version)
    told = {"uri": entry.uri, **json.loads(entry.to_bytes())["content"]}
    print(visible(json.dumps(told, indent=1, ensure_ascii=False)))


def _fetch(arguments: argparse.Namespace) -> None:
    entry = registry.resolve(arguments.registry_uri, arguments.concept, arguments.version)
    print(registry.fetch(entry, arguments.output))


def _promote(arguments: argparse.Namespace) -> None:
    alias = registry.move_alias(arguments.registry_uri, arguments.concept, arguments.alias, arguments.version)
    print(alias.version)


def _rollback(arguments: argparse.Namespace) -> None:
    print(registry.rollback(arguments.registry_uri, arguments.concept, arguments.alias).version)


def _verify(arguments: argparse.Namespace) -> None:
    uri = arguments.registry_uri
    concepts = [arguments.concept] if arguments.concept else registry.list_concepts(uri)
    if damages := [damage for concept in concepts for damage in registry.verify(uri, concept)]:
        raise ArtifactError(*damages)
    print(f"found nothing damaged in {', '.join(concepts) or 'no concepts'} of the registry {uri}")


def _check(arguments: argparse.Namespace) -> None:
    registry.check_registry(arguments.registry_uri)
    print(f"{arguments.registry_uri} can be written")


if __name__ == "__main__":
    main()
