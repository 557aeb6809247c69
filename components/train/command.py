"""A training as a command line: parsed by the process that trains, written by whoever starts it elsewhere."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from components.common.artifact_addresses import deliver, fetched, written_to
from components.common.cli import CommandParser, add_config_flags, config_from_flags, parse_flags
from components.common.options import typed_fields
from components.common.training.config import TrainConfig
from components.common.training.watch_config import WATCHED_BY_DEFAULT, WatchConfig
from components.train.accelerate_environment import flag_defaults
from components.train.config import TrainStepConfig

Result = TypeVar("Result")

ADDRESSES = {
    "latent_set": "the LatentSet, or of those of several words",
    "base_model": "the base model's reference",
    "initial_embedding": "the InitialEmbedding, or of those of several words",
    "output": "the LearnedEmbedding that is made, or of those of several words",
}
"""The artifacts of a training, each a folder or an address in object storage."""
_STEP_FIELDS = ("checkpoint_root", "accelerator", "framework")
_WHERE = "folder, or gs://, s3:// or minio:// address, of "


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingCommand:
    """One training as a command line says it; artifacts are folders or addresses in object storage.

    Attributes:
        config: how to train.
        watching: what is shown while it trains.
        learnable_properties: `object` or `style` for each word of several; none: as `config` says.
        latent_set: where the LatentSet is.
        base_model: where the base model's reference is.
        initial_embedding: where the InitialEmbedding is.
        checkpoint_root: where checkpoints are kept.
        accelerator: `cpu`, `gpu` or `tpu`.
        framework: what trains, see `framework_for`.
        output: where the LearnedEmbedding is to be.
    """

    config: TrainConfig
    latent_set: str
    base_model: str
    initial_embedding: str
    checkpoint_root: str
    accelerator: str
    framework: str
    output: str
    watching: WatchConfig = WATCHED_BY_DEFAULT
    learnable_properties: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """The flags that the command parses back to this."""
        places = {name: getattr(self, name) for name in (*ADDRESSES, *_STEP_FIELDS)}
        values = {**places, **self.config.as_json(), **self.watching.as_json()}
        if self.learnable_properties:
            values["learnable_properties"] = ",".join(self.learnable_properties)
        return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]

    def run(self, train: Callable[..., Result]) -> Result:
        """Calls the step with local folders, filled from object storage before and uploaded after; gives its answer.

        Raises:
            TextualInversionError: whatever the step or object storage raises.
        """
        with tempfile.TemporaryDirectory(prefix="textual-inversion-") as scratch:
            output = written_to(self.output, Path(scratch, "output"))
            answer = train(
                self.config,
                latent_set=fetched(self.latent_set, Path(scratch, "latent_set")),
                base_model=fetched(self.base_model, Path(scratch, "base_model")),
                initial_embedding=fetched(self.initial_embedding, Path(scratch, "initial_embedding")),
                checkpoint_root=self.checkpoint_root,
                accelerator=self.accelerator,
                framework=self.framework,
                output=output,
                watching=self.watching,
                learnable_properties=self.learnable_properties,
            )
            deliver(output, self.output)
        return answer


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a `TrainingCommand`."""
    for name, what in ADDRESSES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", required=True, help=_WHERE + what)
    add_config_flags(parser, TrainStepConfig, only=_STEP_FIELDS)
    add_config_flags(parser, TrainConfig)
    add_config_flags(parser, WatchConfig)
    parser.add_argument(
        "--learnable-properties",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="P,P,...",
        help="object or style for each word, where the artifacts are of several words (default: learnable_property)",
    )


def training_command(parsed: argparse.Namespace) -> TrainingCommand:
    """What the flags of `add_training_flags` say.

    Raises:
        ConfigError: for a value that cannot be right.
    """
    places = {name: getattr(parsed, name) for name in (*ADDRESSES, *_STEP_FIELDS)}
    return TrainingCommand(
        config=config_from_flags(TrainConfig, parsed),
        watching=config_from_flags(WatchConfig, parsed),
        learnable_properties=parsed.learnable_properties,
        **places,
    )


def parse_training_flags(description: str | None) -> TrainingCommand:
    """What is to be trained, from the command line and from what accelerate is configured for.

    Args:
        description: what `--help` begins with.

    Raises:
        ConfigError: for a value that cannot be right.
    """
    decided = flag_defaults()
    said = ", ".join(f"{name} {value!r}" for name, value in decided.items())
    epilog = f"defaults from accelerate's configuration here: {said}" if said else None
    parser = CommandParser(prog="python -m components.train", description=description, epilog=epilog)
    add_training_flags(parser)
    parser.set_defaults(**decided)
    names = [field.name for config in (TrainConfig, WatchConfig) for field, _ in typed_fields(config)]
    return training_command(parse_flags(parser, options=[*ADDRESSES, *_STEP_FIELDS, *names]))
