"""The training step as a command: `python -m components.train_flax --help`."""

from __future__ import annotations

import argparse
from pathlib import Path

from components.common.cli import add_config_flags, config_from_flags, step_boundary
from components.common.training.config import DESCRIPTIONS, FLAX_ACCELERATORS, TrainConfig


def main() -> None:
    """Parses the flags and trains."""
    parser = argparse.ArgumentParser(prog="python -m components.train_flax", description=__doc__)
    parser.add_argument("--latent-set", type=Path, required=True, help="folder of the LatentSet")
    parser.add_argument("--base-model", type=Path, required=True, help="folder of the base model's reference")
    parser.add_argument("--initial-embedding", type=Path, required=True, help="folder of the InitialEmbedding")
    parser.add_argument("--checkpoint-root", required=True, help="folder or gs:// or s3:// address for checkpoints")
    parser.add_argument("--accelerator", default="tpu", choices=FLAX_ACCELERATORS, help="where to train (default: tpu)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the LearnedEmbedding")
    add_config_flags(parser, TrainConfig, DESCRIPTIONS)
    arguments = parser.parse_args()
    with step_boundary("train_flax"):
        from components.train_flax.train import train_flax

        train_flax(
            config_from_flags(TrainConfig, arguments),
            latent_set=arguments.latent_set,
            base_model=arguments.base_model,
            initial_embedding=arguments.initial_embedding,
            checkpoint_root=arguments.checkpoint_root,
            accelerator=arguments.accelerator,
            output=arguments.output,
        )


if __name__ == "__main__":
    main()
