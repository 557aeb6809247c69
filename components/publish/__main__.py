"""The registry as a command: `python -m components.publish --help`."""

from __future__ import annotations

import argparse
from pathlib import Path

from components.common.base_model import read_reference
from components.common.cli import CommandParser, add_config_flags, config_from_flags, step_boundary
from components.common.registry import registry
from components.publish.config import PublishConfig
from components.publish.destinations.pushing import destinations_of, push_everywhere
from components.publish.publish import publish
from components.publish.registry_parser import add_command, add_registry_commands

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

    add_registry_commands(commands)
    add_command(commands, "check", "prove that the registry can be written", _check, "")
    return parser


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


def _check(arguments: argparse.Namespace) -> None:
    registry.check_registry(arguments.registry_uri)
    print(f"{arguments.registry_uri} can be written")


if __name__ == "__main__":
    main()
