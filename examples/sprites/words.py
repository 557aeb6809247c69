"""Several words in one training on the tiny world: what is learned, and what a step costs against one for each word.

    python -m examples.sprites.words

measures steps of two and four words, together and one by one in turns in one process, and writes `words.md`. Seconds
are those of one processor, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import logging
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from components.common.artifacts import LearnedEmbedding
from components.common.base_model import read_reference
from components.common.storage import open_store
from components.common.training.config import TrainConfig
from components.common.training.loop import NextStep
from components.common.training.run_artifacts import sampling_plan
from components.common.words import for_each_word
from components.encode_latents.config import EncodeConfig
from components.encode_latents.latents import encode_latents
from components.ingest_images.config import IngestConfig
from components.ingest_images.ingest import ingest_images
from components.init_embedding.config import InitConfig
from components.init_embedding.initialize import init_embedding
from components.train.process import Built, join_processes
from components.train.train import train_words, trainer_inputs
from components.train.words import Word, read_words
from examples.sprites.concepts import CONCEPTS, Concept
from examples.sprites.learning import CONCEPT_FOLDER, HERE, TRAINING, import_models
from examples.sprites.world import SIZE

NAMES = ("purple-dotted-star", "orange-striped-heart", "cyan-dotted-cross", "green-dotted-triangle")


def prepare(concepts: Sequence[Concept], base_model: Path, folder: Path) -> None:
    """The artifacts that training takes of several words, in `folder` as `latent_set` and `initial_embedding`."""
    pictures = [
        IngestConfig(images_uri=str(CONCEPT_FOLDER / each.name / "training"), resolution=SIZE) for each in concepts
    ]
    for_each_word(ingest_images, pictures, output=folder / "image_set")
    for_each_word(
        lambda told, **folders: encode_latents(accelerator=told.accelerator, **folders),
        [EncodeConfig(accelerator="cpu")] * len(concepts),
        image_set=folder / "image_set",
        base_model=base_model,
        output=folder / "latent_set",
    )
    words = [
        InitConfig(placeholder_token=each.placeholder_token, initializer_token=each.initializer_token)
        for each in concepts
    ]
    for_each_word(init_embedding, words, base_model=base_model, output=folder / "initial_embedding")


def learn_together(
    concepts: Sequence[Concept], base_model: Path, folder: Path, *, config: TrainConfig = TRAINING
) -> tuple[LearnedEmbedding, ...]:
    """What several words have learned in one training, also in `folder` as `learned`."""
    prepare(concepts, base_model, folder)
    return train_words(
        config,
        framework="torch",
        latent_set=folder / "latent_set",
        base_model=base_model,
        initial_embedding=folder / "initial_embedding",
        checkpoint_root=str(folder / "checkpoints"),
        accelerator="cpu",
        output=folder / "learned",
        learnable_properties=[each.learnable_property for each in concepts],
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Processor seconds of a step of several words, together and with a step for each."""

    words: int
    batch: int
    together: float
    alone: float


def cost_of(num_words: int, batch: int, base_model: Path, folder: Path, *, steps: int, rounds: int) -> Cost:
    """What a step costs, the best of some rounds of so many steps each."""
    config = dataclasses.replace(TRAINING, train_batch_size=batch)
    prepare([CONCEPTS[name] for name in NAMES[:num_words]], base_model, folder)
    words = read_words(
        config,
        latent_set=folder / "latent_set",
        initial_embedding=folder / "initial_embedding",
        learnable_properties=(),
        num_processes=1,
    )
    built = _built(words, base_model, folder)
    plans = [
        sampling_plan(config, word.latents, num_processes=1, num_train_timesteps=built.num_train_timesteps)
        for word in words
    ]

    def seconds(groups: Sequence[Sequence[int]]) -> float:
        started = time.process_time()
        for step in range(steps):
            for group in groups:
                built.take_steps(
                    [NextStep(trainer=built.trainers[i], batch=plans[i].batch(step), learning_rate=1e-3) for i in group]
                )
        return (time.process_time() - started) / steps

    every = range(num_words)
    seconds([every])  # chooses how many samples are taken at once
    measured = [(seconds([every]), seconds([[i] for i in every])) for _ in range(rounds)]
    together, alone = (min(values) for values in zip(*measured, strict=True))
    return Cost(words=num_words, batch=batch, together=together, alone=alone)


def _built(words: Sequence[Word], base_model: Path, folder: Path) -> Built:
    inputs = trainer_inputs(words, read_reference(base_model), open_store(str(folder)))
    return join_processes("torch", words[0].config, "cpu").build(inputs)


def table(costs: Sequence[Cost]) -> str:
    """The costs as a Markdown table."""
    lines = [
        "| words | samples of each | together, ms | one by one, ms | together / one by one |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {cost.words} | {cost.batch} | {1000 * cost.together:.0f} | {1000 * cost.alone:.0f} | "
        f"{cost.together / cost.alone:.2f} |"
        for cost in costs
    ]
    return "\n".join(lines)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def main() -> None:
    """Measures, prints the table, and writes it."""
    parser = argparse.ArgumentParser(prog="python -m examples.sprites.words", description=__doc__)
    parser.add_argument("--words", type=int, nargs="+", default=[2, 4], help="numbers of words (default: 2 4)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="samples of each (default: 1 8)")
    parser.add_argument("--steps", type=int, default=10, help="steps of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE / "words.md", help="(default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        base_model, _ = import_models(Path(scratch))
        measure = functools.partial(cost_of, base_model=base_model, steps=options.steps, rounds=options.rounds)
        costs = [
            measure(count, batch, folder=Path(scratch) / f"{count}-{batch}")
            for count in options.words
            for batch in options.batches
        ]
    text = f"One thread of {_processor()}, torch {torch.__version__}, processor time of a step:\n\n{table(costs)}\n"
    print(text)
    options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main()
