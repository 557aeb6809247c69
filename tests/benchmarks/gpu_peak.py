"""Runs a script or a module, unmodified, and writes down the most GPU memory that PyTorch took for it, in bytes.

python -m tests.benchmarks.gpu_peak PEAK.txt textual_inversion.py --flag ...
python -m tests.benchmarks.gpu_peak PEAK.txt -m components.train --flag ...
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import torch


def main() -> None:
    """Runs the rest of the command line as Python would."""
    peak, *command = sys.argv[1:]
    try:
        if command[0] == "-m":
            sys.argv = command[1:]
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = command
            runpy.run_path(command[0], run_name="__main__")
    finally:
        Path(peak).write_text(str(torch.cuda.max_memory_reserved()))


if __name__ == "__main__":
    main()
