"""The last Flax script of diffusers and our two trainers, interleaved: `make bench-train-flax`.

Milliseconds a sample are the difference between runs of two step counts, so that loading and compiling cancel out and
stand apart; the script compiles its step twice, so the smaller count is 2. On a CPU this says nothing about TPUs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from components.common.logs import versions
from tests.benchmarks.bench_train import ACCUMULATION, BATCH, Contestant, hardware, prepare, report, run, table_name
from tests.benchmarks.models import RESOLUTIONS, SIZES
from tests.tiny_models import ModelWidths

RUNNER = "tests.benchmarks.upstream_flax"
SAMPLES = BATCH * ACCUMULATION
"""Samples a step. The script cannot accumulate, so that all three take them at once."""
OF_SD = [size for size, widths in SIZES.items() if isinstance(widths, ModelWidths)]
"""The script is not of SDXL."""


def contestants(upstream: Path, python: str, places: dict[str, Path], size: str, accelerator: str) -> list[Contestant]:
    """The script in its own environment, and our two trainers."""
    converted = places["model"].with_name(f"{size}-flax")
    if not converted.exists():
        run([python, "-m", RUNNER, "convert", str(places["model"]), str(converted)], converted.parent)
    common = ["--learning_rate=5e-4", "--lr_scheduler=constant", "--seed=0", f"--train_batch_size={SAMPLES}"]
    theirs = [
        f"--pretrained_model_name_or_path={converted}",
        f"--train_data_dir={places['pictures']}",
        "--placeholder_token=<cat-toy>",
        "--initializer_token=toy",
        f"--resolution={RESOLUTIONS[size]}",
    ]
    ours = [
        f"--latent-set={places['latent_set']}",
        f"--base-model={places['reference']}",
        f"--initial-embedding={places['initial_embedding']}",
        f"--accelerator={accelerator}",
        "--gradient-accumulation-steps=1",
    ]
    trainer = [sys.executable, "-m", "components.train"]
    return [
        Contestant(name="Flax script", command=[python, "-m", RUNNER, "train", str(upstream), *theirs, *common]),
        *(
            Contestant(name=name, command=[*trainer, f"--framework={framework}", *ours, *common])
            for name, framework in (("ours, Flax", "flax"), ("ours, PyTorch", "torch"))
        ),
    ]


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", type=Path, required=True, help="textual_inversion_flax.py of diffusers 0.39.0")
    parser.add_argument("--upstream-python", required=True, help="Python with diffusers 0.39.0, transformers 4.57.6")
    parser.add_argument("--size", choices=OF_SD, default="cpu-256")
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--steps", type=int, nargs=2, default=(2, 6), help="the two step counts (default: 2 6)")
    parser.add_argument("--rounds", type=int, default=2, help="interleaved rounds (default: 2)")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "textual-inversion-bench")
    parser.add_argument("--name", help="of the table under tests/benchmarks/results (default: train-flax-SIZE[-gpu])")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    size, accelerator = arguments.size, arguments.accelerator
    places = prepare(arguments.work, size, accelerator)
    measured = contestants(arguments.upstream.resolve(), arguments.upstream_python, places, size, accelerator)
    for _ in range(arguments.rounds):
        for contestant in measured:
            contestant.measure(tuple(arguments.steps), arguments.work)
    starts = (f"{contestant.name} {statistics.median(contestant.starts_s):.0f} s" for contestant in measured)
    facts = {
        "hardware": hardware(accelerator),
        "software": f"{versions(['jax', 'flax', 'torch', 'diffusers'])}; the script: diffusers 0.39.0",
        "size": size,
        "resolution": RESOLUTIONS[size],
        "batch": f"{SAMPLES} at once, float32",
        "steps": f"difference of {arguments.steps[0]} and {arguments.steps[1]} steps, {arguments.rounds} rounds",
        "before and after the steps (importing, loading, compiling, saving)": ", ".join(starts),
    }
    report(arguments.name or table_name("train-flax", size, accelerator), facts, measured)


if __name__ == "__main__":
    main()
