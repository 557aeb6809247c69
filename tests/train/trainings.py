"""Trainings by the step itself and by its command, on a CPU, with artifacts in folders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from components.common.artifacts import LearnedEmbedding
from components.common.training.config import TrainConfig
from components.train.train import train
from tests.faults.trainings import training_flags

SHORT: dict[str, Any] = {
    "train_batch_size": 1,
    "max_train_steps": 6,
    "learning_rate": 0.05,
    "save_steps": 2,
    "checkpointing_steps": 2,
    "log_steps": 2,
    "lr_scheduler": "constant_with_warmup",
    "lr_warmup_steps": 3,
}
"""Six steps, of which the first three have a rising rate."""


def run(framework: str, folder: Path, inputs: dict[str, Path], config: TrainConfig) -> LearnedEmbedding:
    """What is learned in this process; checkpoints and result are below `folder`."""
    return train(
        config,
        framework=framework,
        **inputs,
        checkpoint_root=str(folder / "checkpoints"),
        accelerator="cpu",
        output=folder / "learned",
    )


def command(framework: str, folder: Path, inputs: dict[str, Path], **fields: Any) -> list[str]:
    """The same as a command, with these fields of its configuration; a later `accelerator` overrules the CPU."""
    flags = training_flags(inputs, folder / "checkpoints", folder / "learned", **fields)
    return [sys.executable, "-m", "components.train", f"--framework={framework}", *flags]
