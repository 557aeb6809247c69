"""The training step as a command: `python -m components.train.torch --help`.

With several processes each takes an equal share of every global batch, which has train_batch_size x
gradient_accumulation_steps x processes samples: `accelerate launch -m components.train.torch ...` on one machine,
`torchrun -m components.train.torch ...` on one or more, such as the pods of a TrainJob. Where accelerate is configured,
its precision and its choice of the CPU are the defaults of --mixed-precision and --accelerator.
"""

from __future__ import annotations

from components.common.cli import step_boundary
from components.common.training.command import parse_training_flags
from components.common.training.config import ACCELERATORS
from components.train.torch.launcher import flag_defaults


def main() -> None:
    """Parses the flags and trains."""
    with step_boundary("train_torch"):
        command = parse_training_flags("train_torch", __doc__, ACCELERATORS, "gpu", flag_defaults())
        from torch.distributed.elastic.multiprocessing.errors import record

        from components.train.torch.train import train_torch

        record(command.run)(train_torch)  # a launcher reads there what the process that failed first has said


if __name__ == "__main__":
    main()
