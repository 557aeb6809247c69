"""The training step as a command: `python -m components.train --help`.

With several processes each takes an equal share of every global batch, which has train_batch_size x
gradient_accumulation_steps x processes samples. PyTorch has a process for each device: `accelerate launch -m
components.train ...` on one machine, `torchrun -m components.train ...` on one or more, such as the pods of a TrainJob.
Where accelerate is configured, its precision and its choice of the CPU are the defaults of --mixed-precision and
--accelerator. Flax has a process for each machine, and JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID
join several.
"""

from __future__ import annotations

import os

from components.common.cli import step_boundary
from components.common.errors import LostProcessError
from components.train.command import parse_training_flags
from components.train.frameworks import framework_for


def main() -> None:
    """Parses the flags and trains."""
    framework = ""
    try:
        with step_boundary("train"):
            command = parse_training_flags(__doc__)
            framework = framework_for(command.framework, command.accelerator)
            from components.train.train import train_words

            run = command.run
            if framework == "torch":
                from components.train.torch.launcher import recorded

                run = recorded(run)
            run(train_words)
    except SystemExit as end:
        if framework == "flax" and isinstance(end.__context__, LostProcessError):
            # At an ordinary exit JAX waits for the lost process, 100 s, and then aborts (jax 0.10, CPU).
            os._exit(LostProcessError.exit_code)
        raise


if __name__ == "__main__":
    main()
