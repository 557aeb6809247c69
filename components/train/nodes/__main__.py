"""Training on many nodes as a command: `python -m components.train.nodes --help`."""

from __future__ import annotations

import argparse

from components.common.cli import add_config_flags, config_from_flags, step_boundary
from components.common.training.command import add_training_flags, training_command
from components.common.training.config import FLAX_ACCELERATORS
from components.train.nodes.config import LaunchConfig


def main() -> None:
    """Parses the flags and runs one subcommand."""
    parsed = _parser().parse_args()
    with step_boundary("launch_trainjob"):
        from components.train.nodes.launch import launch_trainjob, remove_trainjobs

        if parsed.command == "launch":
            launch_trainjob(config_from_flags(LaunchConfig, parsed), training_command(parsed))
        else:
            remove_trainjobs(parsed.run_id)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m components.train.nodes",
        description="Trains on many nodes of a cluster, as a TrainJob of Kubeflow Trainer.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    text = "train, and follow the training to its end"
    launching = commands.add_parser("launch", help=text, description=text[0].upper() + text[1:] + ".")
    add_training_flags(launching, FLAX_ACCELERATORS, "gpu")
    add_config_flags(launching, LaunchConfig)
    text = "delete every TrainJob of a pipeline run"
    removing = commands.add_parser("remove", help=text, description=text[0].upper() + text[1:] + ".")
    removing.add_argument("--run-id", required=True, help="the pipeline run")
    return parser


if __name__ == "__main__":
    main()
