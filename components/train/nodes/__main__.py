"""Training on many nodes as a command: `python -m components.train.nodes --help`."""

from __future__ import annotations

from components.common.cli import CommandParser, add_config_flags, config_from_flags, step_boundary
from components.train.command import add_training_flags, training_command
from components.train.nodes.config import LaunchConfig


def main() -> None:
    """Parses the flags, trains, and follows the training to its end."""
    parser = CommandParser(
        prog="python -m components.train.nodes",
        description="Trains on many nodes of a cluster, as a TrainJob of Kubeflow Trainer, and follows it to its end.",
    )
    add_training_flags(parser)
    add_config_flags(parser, LaunchConfig)
    parsed = parser.parse_args()
    with step_boundary("train"):
        from components.train.nodes.launch import launch_trainjob

        launch_trainjob(config_from_flags(LaunchConfig, parsed), training_command(parsed))


if __name__ == "__main__":
    main()
