"""The training step as a command: `python -m components.train.flax --help`."""

from __future__ import annotations

import os

from components.common.cli import step_boundary
from components.common.errors import LostProcessError
from components.common.training.command import parse_training_flags
from components.common.training.config import FLAX_ACCELERATORS


def main() -> None:
    """Parses the flags and trains."""
    try:
        with step_boundary("train_flax"):
            command = parse_training_flags("train_flax", __doc__, FLAX_ACCELERATORS, "tpu")
            from components.train.flax.train import train_flax

            command.run(train_flax)
    except SystemExit as end:
        if isinstance(end.__context__, LostProcessError):
            # At an ordinary exit JAX waits for the lost process, 100 s, and then aborts (jax 0.10, CPU).
            os._exit(LostProcessError.exit_code)
        raise


if __name__ == "__main__":
    main()
