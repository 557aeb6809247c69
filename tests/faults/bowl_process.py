"""A bowl's training in a process of its own, which can be told to die at a chosen moment.

python -m tests.faults.bowl_process ROOT [--die-at N] [--seconds-a-step S]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from components.common.training.sampling_plan import Batch
from tests.common.training.bowl import ENCODER, BowlTrainer, train_bowl

FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir")


class SlowBowl(BowlTrainer):
    """A bowl whose steps take some time."""

    def __init__(self, seconds: float) -> None:
        """Takes the seconds of a step."""
        super().__init__()
        self._seconds = seconds

    def step(self, batch: Batch, learning_rate: float) -> Any:
        """One step."""
        time.sleep(self._seconds)
        return super().step(batch, learning_rate)


def die_at_file_event(root: str, number: int) -> None:
    """From now on the process kills itself before the `number`-th operation on a file below `root`."""
    count = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in FILE_EVENTS and str(arguments[0]).startswith(root):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def main() -> None:
    """Trains, and prints a digest of rows, moments and losses."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--die-at", type=int, default=0)
    parser.add_argument("--seconds-a-step", type=float, default=0.0)
    options = parser.parse_args()
    if options.die_at:
        die_at_file_event(str(Path(options.root).resolve()), options.die_at)
    outcome = train_bowl(options.root, SlowBowl(options.seconds_a_step), checkpoints_total_limit=2)
    state = outcome.state
    parts = [part[ENCODER].tobytes() for part in (state.rows, state.first_moment, state.second_moment)]
    print(hashlib.sha256(b"".join([*parts, outcome.losses.tobytes()])).hexdigest())


if __name__ == "__main__":
    main()
