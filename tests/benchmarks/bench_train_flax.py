"""The last Flax script, our Flax trainer and our PyTorch trainer, interleaved: `make bench-train-flax UPSTREAM=...`.

Milliseconds a sample are the difference between runs of two step counts, so that loading and the first compilation
cancel out; the script compiles its step twice, so the smaller count is 2. On a CPU the numbers say nothing about TPUs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import tempfile
from pathlib import Path

from components.common.logs import versions
from tests.benchmarks.bench_train import RESULTS, Contestant, hardware, prepare, run, table
from tests.benchmarks.models import RESOLUTIONS, SIZES

RUNNER = Path(__file__).with_name("upstream_flax.py")
SAMPLES = 4
"""Samples a step: the script has no accumulation, so they are taken at once by all."""


def contestants(upstream: Path, python: str, places: dict[str, Path], size: str, accelerator: str) -> list[Contestant]:
    """The script in its own environment, and our two trainers."""
    converted = places["model"].parent / f"{size}-flax"
    if not converted.exists():
        run([python, str(RUNNER), "convert", str(places["model"]), str(converted)], converted.parent)
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
    ]
    return [
        Contestant(name="last Flax script", command=[python, str(RUNNER), str(upstream), *theirs, *common]),
        *(
            Contestant(name=name, command=[sys.executable, "-m", f"components.{step}", *ours, *common])
            for name, step in (("ours, Flax", "train_flax"), ("ours, PyTorch", "train_torch"))
        ),
    ]


def main() -> None:
    """Measures, writes the table and prints it; the last line is `ratio <x>`, the script's time to ours in Flax."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", type=Path, required=True, help="textual_inversion_flax.py of diffusers 0.39")
    parser.add_argument("--upstream-python", required=True, help="Python with diffusers 0.39.0, transformers 4.57.6")
    parser.add_argument("--size", choices=SIZES, default="cpu-256")
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--steps", type=int, nargs=2, default=(2, 5), help="the two step counts (default: 2 5)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default: 3)")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "textual-inversion-bench")
    parser.add_argument("--name", default="train-flax-cpu-256", help="name of the table")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    places = prepare(arguments.work, arguments.size, arguments.accelerator)
    measured = contestants(
        arguments.upstream.resolve(),
        arguments.upstream_python,
        places,
        arguments.size,
        arguments.accelerator,
    )
    for _ in range(arguments.rounds):
        for contestant in measured:
            contestant.measure(tuple(arguments.steps), arguments.work)
    facts = {
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(arguments.accelerator),
        "software": f"{versions(['jax', 'flax', 'torch', 'diffusers'])}; the script: diffusers 0.39.0",
        "size": arguments.size,
        "resolution": RESOLUTIONS[arguments.size],
        "batch": f"{SAMPLES} at once, float32",
        "steps": f"difference of {arguments.steps[0]} and {arguments.steps[1]} steps, {arguments.rounds} rounds",
    }
    text = "\n".join([f"# Training step: {arguments.name}", "", *(f"- {k}: {v}" for k, v in facts.items()), ""])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{arguments.name}.md").write_text(f"{text}\n{table(measured)}\n")
    records = [{k: v for k, v in vars(contestant).items() if k != "command"} for contestant in measured]
    (RESULTS / f"{arguments.name}.json").write_text(json.dumps({**facts, "measured": records}, indent=1) + "\n")
    print(table(measured))
    pairs = zip(measured[0].samples_ms, measured[1].samples_ms, strict=True)
    print(f"ratio {statistics.median(theirs / ours for theirs, ours in pairs):.2f}")


if __name__ == "__main__":
    main()
