"""The command line that both trainers share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.common.cli import add_config_flags, config_from_flags
from components.common.training.config import DESCRIPTIONS, TrainConfig


def parse_training_flags(
    step: str,
    description: str | None,
    accelerators: Sequence[str],
    default: str,
    launcher_defaults: Mapping[str, str] | None = None,
) -> tuple[TrainConfig, dict[str, Any]]:
    """The configuration and the keyword arguments of a trainer's step, from the command line.

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
    where = f"where to train (default: {default})"
    parser.add_argument("--latent-set", type=Path, required=True, help="folder of the LatentSet")
    parser.add_argument("--base-model", type=Path, required=True, help="folder of the base model's reference")
    parser.add_argument("--initial-embedding", type=Path, required=True, help="folder of the InitialEmbedding")
    parser.add_argument("--checkpoint-root", required=True, help="folder or gs:// or s3:// address for checkpoints")
    parser.add_argument("--accelerator", default=default, choices=accelerators, help=where)
    parser.add_argument("--output", type=Path, required=True, help="folder for the LearnedEmbedding")
    add_config_flags(parser, TrainConfig, DESCRIPTIONS)
    parser.set_defaults(**(launcher_defaults or {}))
    parsed = parser.parse_args()
    names = ("latent_set", "base_model", "initial_embedding", "checkpoint_root", "accelerator", "output")
    return config_from_flags(TrainConfig, parsed), {name: getattr(parsed, name) for name in names}
