"""The command line that both trainers share: parsed by the trainers, written by whoever starts them elsewhere."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.common.artifact_addresses import deliver, fetched, written_to
from components.common.cli import add_config_flags, config_from_flags
from components.common.training.config import TrainConfig

ADDRESSES = {
    "latent_set": "the LatentSet",
    "base_model": "the base model's reference",
    "initial_embedding": "the InitialEmbedding",
    "output": "the LearnedEmbedding that is made",
}
"""The artifacts of a training, each a folder or an address in object storage."""
_WHERE = "folder, or gs://, s3:// or minio:// address, of "


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingCommand:
    """One training as a command line says it; artifacts are folders or addresses in object storage.

    Attributes:
        config: how to train.
        latent_set: where the LatentSet is.
        base_model: where the base model's reference is.
        initial_embedding: where the InitialEmbedding is.
        checkpoint_root: where checkpoints are kept.
        accelerator: `cpu`, `gpu` or `tpu`.
        output: where the LearnedEmbedding is to be.
    """

    config: TrainConfig
    latent_set: str
    base_model: str
    initial_embedding: str
    checkpoint_root: str
    accelerator: str
    output: str

    def arguments(self) -> list[str]:
        """The flags that a trainer's command parses back to this."""
        places = {name: getattr(self, name) for name in (*ADDRESSES, "checkpoint_root", "accelerator")}
        return [f"--{name.replace('_', '-')}={value}" for name, value in {**places, **self.config.as_json()}.items()]

    def run(self, train: Callable[..., Any]) -> None:
        """Calls a trainer's step with local folders, filled from object storage before and uploaded after.

        Raises:
            TextualInversionError: whatever the step or object storage raises.
        """
        with tempfile.TemporaryDirectory(prefix="textual-inversion-") as scratch:
            output = written_to(self.output, Path(scratch, "output"))
            train(
                self.config,
                latent_set=fetched(self.latent_set, Path(scratch, "latent_set")),
                base_model=fetched(self.base_model, Path(scratch, "base_model")),
                initial_embedding=fetched(self.initial_embedding, Path(scratch, "initial_embedding")),
                checkpoint_root=self.checkpoint_root,
                accelerator=self.accelerator,
                output=output,
            )
            deliver(output, self.output)


def add_training_flags(parser: argparse.ArgumentParser, accelerators: Sequence[str], default: str) -> None:
    """Adds the flags of a `TrainingCommand`; `default` of `accelerators` is where to train when not told."""
    for name, what in ADDRESSES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", required=True, help=_WHERE + what)
    parser.add_argument("--checkpoint-root", required=True, help="folder or gs:// or s3:// address for checkpoints")
    where = f"where to train (default: {default})"
    parser.add_argument("--accelerator", default=default, choices=accelerators, help=where)
    add_config_flags(parser, TrainConfig)


def training_command(parsed: argparse.Namespace) -> TrainingCommand:
    """What the flags of `add_training_flags` say.

    Raises:
        ConfigError: for a value that cannot be right.
    """
    places = {name: getattr(parsed, name) for name in (*ADDRESSES, "checkpoint_root", "accelerator")}
    return TrainingCommand(config=config_from_flags(TrainConfig, parsed), **places)


def parse_training_flags(
    step: str,
    description: str | None,
    accelerators: Sequence[str],
    default: str,
    launcher_defaults: Mapping[str, str] | None = None,
) -> TrainingCommand:
    """What a trainer is to do, from the command line.

    Args:
        step: the step's folder, such as `train_torch`.
        description: what `--help` begins with.
        accelerators: what `--accelerator` may be.
        default: what it is when it is not given.
        launcher_defaults: flags' defaults that come from the program that started this one, by field name.

    Raises:
        ConfigError: for a value that cannot be right.
    """
    decided = ", ".join(f"{name} {value!r}" for name, value in (launcher_defaults or {}).items())
    epilog = f"defaults from the launcher here: {decided}" if decided else None
    parser = argparse.ArgumentParser(prog=f"python -m components.{step}", description=description, epilog=epilog)
    add_training_flags(parser, accelerators, default)
    parser.set_defaults(**(launcher_defaults or {}))
    return training_command(parser.parse_args())
