"""The training step as a command: `python -m components.train_flax --help`."""

from __future__ import annotations

from components.common.cli import step_boundary
from components.common.training.command import parse_training_flags
from components.common.training.config import FLAX_ACCELERATORS


def main() -> None:
    """Parses the flags and trains."""
    with step_boundary("train_flax"):
        command = parse_training_flags("train_flax", __doc__, FLAX_ACCELERATORS, "tpu")
        from components.train_flax.train import train_flax

        command.run(train_flax)


if __name__ == "__main__":
    main()
