"""The subcommand `push`: brings a version that is published already to further destinations."""

from __future__ import annotations

import argparse
from typing import Any

from components.common.base_model import ModelReference, find_reference
from components.common.cli import add_config_flags
from components.common.errors import ConfigError
from components.common.options import typed_fields
from components.common.registry import registry
from components.common.registry.entry import RegistryEntry
from components.publish.config import PublishConfig
from components.publish.destinations.config import DestinationOptions
from components.publish.destinations.full_pipeline import FullPipeline
from components.publish.destinations.hub import Hub
from components.publish.destinations.model_registry import ModelRegistry
from components.publish.destinations.pushing import destinations_of, push_everywhere

NAMES = (Hub.name, ModelRegistry.name, FullPipeline.name)
_HELP = "bring a published version to the Hub, a Model Registry or a folder for complete pipelines"
_EXAMPLE = "example: push cat-toy champion --registry-uri gs://bucket/registry --to hub --hub-model-id team/cat-toy"
_ASKED_BY_TO = ("push_to_hub", "save_as_full_pipeline", "destinations_required")
"""What `--to` says."""


def add_push_command(commands: Any) -> argparse.ArgumentParser:
    """The parser of `push`, added to the subparsers of a command for a registry."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "push", help=_HELP, description=f"{_HELP[0].upper()}{_HELP[1:]}.", epilog=_EXAMPLE
    )
    parser.add_argument("concept", help="the concept's name in the registry")
    parser.add_argument("version", help="a version number or an alias")
    parser.add_argument("--registry-uri", required=True, help="folder of the registry: gs://, s3:// or a local path")
    parser.add_argument("--to", required=True, choices=NAMES, nargs="+", help="where to")
    parser.add_argument("--models-uri", default="", help="the model store; default: models beside the registry")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and ask no destination")
    shown = [field.name for field, _ in typed_fields(DestinationOptions) if field.name not in _ASKED_BY_TO]
    add_config_flags(parser, DestinationOptions, only=shown)
    parser.set_defaults(run=push)
    return parser


def push(arguments: argparse.Namespace) -> None:
    """Pushes, or with `dry_run` says what that would do; prints a line for each destination.

    Raises:
        ConfigError: when an option that a destination needs is missing or wrong.
        ObjectNotFoundError: when there is no such version.
        DestinationError: when a destination does not have it in the end.
    """
    if ModelRegistry.name in arguments.to and not arguments.model_registry_uri:
        raise ConfigError("model_registry_uri: found nothing, expected the address of a Model Registry to push to")
    config = PublishConfig(
        registry_uri=arguments.registry_uri,
        push_to_hub=Hub.name in arguments.to,
        hub_model_id=arguments.hub_model_id,
        hub_private=arguments.hub_private,
        model_registry_uri=arguments.model_registry_uri if ModelRegistry.name in arguments.to else "",
        save_as_full_pipeline=FullPipeline.name in arguments.to,
        full_pipeline_uri=arguments.full_pipeline_uri,
    )
    models_uri = arguments.models_uri or f"{config.registry_uri.rstrip('/').rpartition('/')[0]}/models"

    def find_base_model(entry: RegistryEntry) -> ModelReference:
        return find_reference(models_uri, str(entry.facts.lineage.get("base_model_digest", "")))

    entry = registry.resolve(config.registry_uri, arguments.concept, arguments.version)
    destinations = destinations_of(config, find_base_model)
    if arguments.dry_run:
        lines = {each.name: each.plan(entry) for each in destinations}
    else:
        lines = push_everywhere(destinations, entry, registry_uri=config.registry_uri, required=True)
    for name, line in lines.items():
        print(f"{name}: {line}")
