"""A bowl's training, slow enough to be stopped: python -m tests.hostile.stoppable_training FOLDER SECONDS_A_STEP."""

from __future__ import annotations

import hashlib
import sys

from components.common.cli import step_boundary
from tests.common.training.bowl import ENCODER
from tests.faults.bowl_process import SlowBowl, train_bowl

STEPS = 23


def learn(folder: str, seconds_a_step: float = 0.05) -> str:
    """The digest of what a training with checkpoints in `folder` learns."""
    outcome = train_bowl(f"{folder}/checkpoints", SlowBowl(seconds_a_step), log_steps=1)
    parts = [outcome.state.rows[ENCODER].tobytes(), outcome.losses.tobytes()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


if __name__ == "__main__":
    with step_boundary("practise"):
        print(learn(sys.argv[1], float(sys.argv[2])))
