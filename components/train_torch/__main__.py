"""The training step as a command: `python -m components.train_torch --help`."""

from __future__ import annotations

from components.common.cli import step_boundary
from components.common.training.command import parse_training_flags
from components.common.training.config import ACCELERATORS


def main() -> None:
    """Parses the flags and trains."""
    with step_boundary("train_torch"):
        command = parse_training_flags("train_torch", __doc__, ACCELERATORS, "gpu")
        from components.train_torch.train import train_torch

        command.run(train_torch)


if __name__ == "__main__":
    main()
