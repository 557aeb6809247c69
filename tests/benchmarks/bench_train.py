"""The reference script and ours, interleaved, on the same model: `make bench-train UPSTREAM=<path to the script>`.

Milliseconds a sample are the difference between runs of two step counts, so that loading, encoding the latents once
and writing the result cancel out. Memory is the most that a whole process took, on a GPU the most that PyTorch took of
the GPU's. The floor is the time of a sample's operations at the speed of a large linear layer.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.common.logs import versions
from components.torch_models.cpu_linear import this_processor
from tests.benchmarks.floor import flops_per_sample, peak_flops
from tests.benchmarks.models import RESOLUTIONS, SIZES, make_benchmark_model, make_benchmark_pictures

REPOSITORY = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
SHIM = "tests.benchmarks.without_torchvision"
BATCH, ACCUMULATION = 1, 4
"""The guide's worked example."""
STEPS = {"cpu": (1, 4), "gpu": (20, 120)}
"""The two step counts: enough steps between them for the seconds that starting varies by to be little."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that ended well: wall-clock seconds, and its peak memory in MB, resident or on the GPU."""

    seconds: float
    peak_mb: float


@dataclasses.dataclass(kw_only=True)
class Contestant:
    """One way to train, and what was measured of it."""

    name: str
    command: list[str]
    on_gpu: bool = False
    samples_ms: list[float] = dataclasses.field(default_factory=list)
    starts_s: list[float] = dataclasses.field(default_factory=list)
    peaks_mb: list[float] = dataclasses.field(default_factory=list)

    def measure(self, steps: tuple[int, int], folder: Path) -> None:
        """Runs both step counts; notes milliseconds a sample, the seconds that are no step's, and the peak memory."""
        short, long = (run([*self.command, *self.steps_flag(count, folder)], folder, self.on_gpu) for count in steps)
        step_seconds = (long.seconds - short.seconds) / (steps[1] - steps[0])
        self.samples_ms.append(step_seconds * 1000 / (BATCH * ACCUMULATION))
        self.starts_s.append(short.seconds - steps[0] * step_seconds)
        self.peaks_mb.append(long.peak_mb)
        print(f"{self.name:<14} {self.samples_ms[-1]:9.1f} ms/sample  {self.peaks_mb[-1]:7.0f} MB", flush=True)

    def steps_flag(self, count: int, folder: Path) -> list[str]:
        """The flags for the number of steps and a fresh place for results."""
        fresh = tempfile.mkdtemp(dir=folder)
        if "components.train" in self.command:
            return [f"--max-train-steps={count}", f"--checkpoint-root={fresh}/c", f"--output={fresh}/learned"]
        return [f"--max_train_steps={count}", f"--output_dir={fresh}"]


def run(command: Sequence[str], folder: Path, on_gpu: bool = False) -> Ended:
    """Runs a command of Python to its end in a process of its own; with `on_gpu` its peak is that of the GPU's memory.

    Raises:
        SystemExit: with the end of its log, when it fails.
    """
    log, peak = folder / "log.txt", folder / "gpu-peak.txt"
    if on_gpu:
        python, *arguments = command
        command = [python, "-m", "tests.benchmarks.gpu_peak", str(peak), *arguments]
    environment = dict(os.environ)
    environment["PYTHONPATH"] = str(REPOSITORY)
    started = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=stream, stderr=stream)
        _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text(errors='replace')[-2000:]}")
    seconds = time.monotonic() - started
    return Ended(seconds=seconds, peak_mb=int(peak.read_text()) / 2**20 if on_gpu else usage.ru_maxrss / 1024)


def prepare(folder: Path, size: str, accelerator: str) -> dict[str, Path]:
    """The model, the pictures and the artifacts that both trainers take."""
    model = make_benchmark_model(folder / size, size)
    pictures = make_benchmark_pictures(folder / f"pictures-{size}", RESOLUTIONS[size])
    places = {name: folder / size / name for name in ("reference", "image_set", "latent_set", "initial_embedding")}
    store, side = folder / size / "store", RESOLUTIONS[size]
    base = ["--base-model", places["reference"]]
    latents, initial = places["latent_set"], places["initial_embedding"]
    steps = [
        ["import_base_model", "--source", model, "--store-uri", store, "--output", places["reference"]],
        ["ingest_images", "--images-uri", pictures, "--resolution", side, "--output", places["image_set"]],
        [
            "encode_latents",
            *base,
            "--image-set",
            places["image_set"],
            "--accelerator",
            accelerator,
            "--output",
            latents,
        ],
        [
            "init_embedding",
            *base,
            "--placeholder-token",
            "<cat-toy>",
            "--initializer-token",
            "toy",
            "--output",
            initial,
        ],
    ]
    for step, *flags in steps:
        run([sys.executable, "-m", f"components.{step}", *map(str, flags)], folder)
    return {"model": model, "pictures": pictures, **places}


def contestants(
    upstream: Path, places: dict[str, Path], size: str, accelerator: str, precision: str
) -> list[Contestant]:
    """The reference script, ours with one fused batch, ours with the same small batches; on a GPU, ours replayed."""
    common = [
        "--learning_rate=5e-4",
        "--scale_lr",
        "--lr_scheduler=constant",
        "--lr_warmup_steps=0",
        "--seed=0",
    ]
    theirs = [
        f"--pretrained_model_name_or_path={places['model']}",
        f"--train_data_dir={places['pictures']}",
        "--placeholder_token=<cat-toy>",
        "--initializer_token=toy",
        f"--resolution={RESOLUTIONS[size]}",
        f"--mixed_precision={precision}",
        "--checkpointing_steps=100000",
        "--save_steps=100000",
    ]
    ours = [
        f"--latent-set={places['latent_set']}",
        f"--base-model={places['reference']}",
        f"--initial-embedding={places['initial_embedding']}",
        f"--accelerator={accelerator}",
        f"--mixed-precision={precision}",
    ]
    batch = [f"--train_batch_size={BATCH}", f"--gradient_accumulation_steps={ACCUMULATION}"]
    interpreter = [sys.executable, *([] if importlib.util.find_spec("torchvision") else ["-m", SHIM])]
    trainer = [sys.executable, "-m", "components.train", "--framework=torch", *ours, *common, *batch]
    commands = {
        "reference": [*interpreter, str(upstream), *theirs, *common, *batch],
        "ours fused": [*trainer, "--fuse-micro-batches=true"],
        "ours unfused": [*trainer, "--fuse-micro-batches=false"],
    }
    on_gpu = accelerator == "gpu"
    if on_gpu:
        commands["ours, CUDA graphs"] = [*trainer, "--cuda-graphs=true"]
    return [Contestant(name=name, command=command, on_gpu=on_gpu) for name, command in commands.items()]


def table(measured: Sequence[Contestant], floor_ms: float | None = None) -> str:
    """A Markdown table of medians, of the ratios to the reference and, where it is given, of the floor's share."""
    reference = measured[0]
    lines = [
        "| trainer | ms a sample (median; all) | times the reference | peak memory MB | of the reference's |",
        "|---|---|---|---|---|",
    ]
    if floor_ms:
        lines = [lines[0] + " floor / time |", lines[1] + "---|"]
    for contestant in measured:
        every = ", ".join(f"{value:.0f}" for value in contestant.samples_ms)
        peak = max(contestant.peaks_mb)
        lines.append(
            f"| {contestant.name} | {statistics.median(contestant.samples_ms):.0f} ({every}) "
            f"| {ratio(reference, contestant):.2f} | {peak:.0f} | {peak / max(reference.peaks_mb):.0%} |"
            + (f" {floor_ms / statistics.median(contestant.samples_ms):.0%} |" if floor_ms else "")
        )
    return "\n".join(lines)


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--upstream",
        type=Path,
        required=True,
        help="the script of diffusers, unmodified: textual_inversion.py, for SDXL textual_inversion_sdxl.py",
    )
    parser.add_argument("--size", choices=SIZES, default="cpu-256")
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--mixed-precision", choices=("no", "fp16", "bf16"), default="no")
    parser.add_argument("--steps", type=int, nargs=2, help="the two step counts (default: 1 4, on a GPU 20 120)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default: 3)")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "textual-inversion-bench")
    parser.add_argument("--name", help="of the table under tests/benchmarks/results (default: train-SIZE[-gpu])")
    arguments = parser.parse_args()
    size, accelerator = arguments.size, arguments.accelerator
    steps = tuple(arguments.steps or STEPS[accelerator])
    arguments.work.mkdir(parents=True, exist_ok=True)
    places = prepare(arguments.work, size, accelerator)
    measured = contestants(arguments.upstream.resolve(), places, size, accelerator, arguments.mixed_precision)
    needed, speed = flops_per_sample(places["model"], RESOLUTIONS[size]), peak_flops(accelerator)
    for _ in range(arguments.rounds):
        for contestant in measured:
            contestant.measure(steps, arguments.work)
    facts = {
        "hardware": hardware(accelerator),
        "software": versions(["torch", "diffusers", "transformers", "accelerate"]),
        "size": f"{size} {dataclasses.asdict(SIZES[size])}",
        "resolution": RESOLUTIONS[size],
        "batch": f"{BATCH} x {ACCUMULATION} accumulated, mixed precision: {arguments.mixed_precision}",
        "steps": f"difference of {steps[0]} and {steps[1]} steps, {arguments.rounds} rounds",
        "floor": f"{needed / 1e9:.0f} GFLOP a sample at {speed / 1e12:.2f} TFLOP/s, a large linear layer's "
        f"({'bf16' if accelerator == 'gpu' else 'fp32'})",
    }
    report(arguments.name or table_name("train", size, accelerator), facts, measured, 1000 * needed / speed)


def table_name(trainer: str, size: str, accelerator: str) -> str:
    """The table's name: one for each size and kind of hardware, so that none is written over another."""
    return f"{trainer}-{size}{'-gpu' if accelerator == 'gpu' else ''}"


def report(name: str, facts: Mapping[str, Any], measured: Sequence[Contestant], floor_ms: float | None = None) -> None:
    """Writes the table and its numbers under the results, and prints it; the last line is `ratio <x>`.

    The ratio is that of the first contestant's time to the second's.
    """
    facts = {"date": datetime.date.today().isoformat(), **facts}
    heading = "\n".join([f"# Training step: {name}", "", *(f"- {k}: {v}" for k, v in facts.items()), ""])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(f"{heading}\n{table(measured, floor_ms)}\n")
    records = [{k: v for k, v in vars(contestant).items() if k != "command"} for contestant in measured]
    (RESULTS / f"{name}.json").write_text(json.dumps({**facts, "measured": records}, indent=1) + "\n")
    print(table(measured, floor_ms))
    print(f"ratio {ratio(measured[0], measured[1]):.2f}")


def ratio(reference: Contestant, contestant: Contestant) -> float:
    """How many times as fast as the reference, as the median over rounds."""
    pairs = zip(reference.samples_ms, contestant.samples_ms, strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def hardware(accelerator: str) -> str:
    """The processor, its cores and memory, or the GPU."""
    if accelerator == "gpu":
        import torch

        return torch.cuda.get_device_name()
    lines = this_processor().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model or platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB"


if __name__ == "__main__":
    main()
