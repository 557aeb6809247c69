"""Does every seed learn? From the start word that is found for it: `python -m examples.sprites.seeds`.

Each row of the table is one training by the project's own steps. It has learned the concept when the learned word
explains the scoring pictures as well as the true caption does, within 5%.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from components.common.artifacts import LEARNED_EMBEDS, ImageSet
from components.common.base_model import materialize, read_reference
from components.common.prompts import templates_for
from components.common.start_word import AUTO, StartWord
from components.common.training.config import TrainConfig
from components.encode_latents.latents import encode_latents
from components.find_start_word.config import FindStartWordConfig
from components.find_start_word.find import find_start_word
from components.ingest_images.config import IngestConfig
from components.ingest_images.ingest import ingest_images
from components.init_embedding.config import InitConfig
from components.init_embedding.initialize import init_embedding
from components.torch_models.denoising_loss import held_out_loss
from components.torch_models.sampling import load_concept, load_pipeline, write_rows
from components.train.train import train
from examples.sprites.concepts import CONCEPTS, Concept
from examples.sprites.concepts import FOLDER as CONCEPT_FOLDER
from examples.sprites.learning import HERE, TRAINING, import_models
from examples.sprites.world import SIZE

RECIPE = dataclasses.replace(
    TRAINING, learning_rate=1e-2, lr_scheduler="cosine", lr_warmup_steps=20, max_train_steps=80, log_steps=40
)
"""What learns from a start word that was found: fewer steps than the demo's, and smaller ones."""

EARLY_STOPPING = dataclasses.replace(
    RECIPE, lr_scheduler="constant_with_warmup", max_train_steps=400, early_stopping_every=5, early_stopping_window=16
)
"""The same with a rate that does not fall, for as long as something is learned."""

CLOSE = 1.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedResult:
    """What one seed learned; losses are over the scoring pictures but for the first two.

    Attributes:
        concept: the concept's name.
        start_word: what training started from.
        start_word_loss, no_word_loss: over the training pictures, before training.
        seed: the seed of the sampling plan.
        steps: optimizer steps taken.
        before, after, true_caption: the held-out loss of the start word, the learned word and the true caption.
    """

    concept: str
    start_word: str
    start_word_loss: float
    no_word_loss: float
    seed: int
    steps: int
    before: float
    after: float
    true_caption: float

    @property
    def is_learned(self) -> bool:
        """Whether the learned word means what the true caption says."""
        return self.after < CLOSE * self.true_caption


def learn_seeds(
    concept: Concept,
    models: tuple[Path, Path],
    folder: Path,
    *,
    seeds: Sequence[int],
    config: TrainConfig = RECIPE,
    initializer_token: str = AUTO,
) -> Iterator[SeedResult]:
    """Learns a concept by the project's steps with each seed, from one start word.

    Args:
        concept: one of `CONCEPTS`.
        models: from `import_models`.
        folder: for the artifacts.
        seeds: of the sampling plan.
        config: how to train; its `learnable_property` is the concept's.
        initializer_token: a word to start from, or `auto`.
    """
    base_model, _ = models
    start = prepare(concept, models, folder, initializer_token=initializer_token)
    pipeline = load_pipeline(materialize(read_reference(base_model)), device=torch.device("cpu"), dtype=torch.float32)
    pictures = ImageSet.read(folder / "scoring").pixels
    prompt = templates_for(concept.learnable_property)[0]
    true_caption = held_out_loss(pipeline, pictures, prompt.format(concept.true_caption))
    tokens = tuple[str, ...]()
    for seed in seeds:
        config = dataclasses.replace(config, seed=seed, learnable_property=concept.learnable_property)
        learned = train(
            config,
            framework="torch",
            latent_set=folder / "latent_set",
            base_model=base_model,
            initial_embedding=folder / "initial_embedding",
            checkpoint_root=str(folder / "checkpoints"),
            accelerator="cpu",
            output=folder / f"learned-{seed}",
        )
        tokens = tokens or load_concept(pipeline, folder / f"learned-{seed}" / LEARNED_EMBEDS)
        losses = {}
        for name, rows in (("before", learned.initial_rows), ("after", learned.rows)):
            write_rows(pipeline, tokens, rows)
            losses[name] = held_out_loss(pipeline, pictures, prompt.format(concept.placeholder_token))
        yield SeedResult(
            concept=concept.name,
            start_word=start.word,
            start_word_loss=start.loss,
            no_word_loss=start.no_word_loss,
            seed=seed,
            steps=learned.steps,
            true_caption=true_caption,
            **losses,
        )


def prepare(concept: Concept, models: tuple[Path, Path], folder: Path, *, initializer_token: str) -> StartWord:
    """The start word, after all that comes before a training: in `folder` are the pictures, latents and rows."""
    base_model, scorer = models
    for which in ("training", "scoring"):
        pictures = IngestConfig(images_uri=str(CONCEPT_FOLDER / concept.name / which), resolution=SIZE)
        ingest_images(pictures, folder / which)
    encode_latents(
        image_set=folder / "training", base_model=base_model, accelerator="cpu", output=folder / "latent_set"
    )
    start = find_start_word(
        FindStartWordConfig(
            initializer_token=initializer_token, learnable_property=concept.learnable_property, accelerator="cpu"
        ),
        image_set=folder / "training",
        latent_set=folder / "latent_set",
        base_model=base_model,
        scorer=scorer,
        output=folder / "start_word",
    )
    word = InitConfig(placeholder_token=concept.placeholder_token, initializer_token=initializer_token)
    init_embedding(word, base_model, folder / "initial_embedding", start_word=folder / "start_word")
    return start


def table(results: Sequence[SeedResult]) -> str:
    """A Markdown table: a row for each concept and start word, with the worst and the best of its seeds."""
    lines = [
        "| concept | start word | its loss (no word) | seeds learned | held-out loss before | after, best to worst | "
        "true caption | steps |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for concept, word in dict.fromkeys((result.concept, result.start_word) for result in results):
        own = [result for result in results if (result.concept, result.start_word) == (concept, word)]
        after, steps = sorted(result.after for result in own), sorted(result.steps for result in own)
        taken = str(steps[0]) if steps[0] == steps[-1] else f"{steps[0]} to {steps[-1]}"
        lines.append(
            f"| {concept} | {word} | {own[0].start_word_loss:.3f} ({own[0].no_word_loss:.3f}) | "
            f"{sum(result.is_learned for result in own)} of {len(own)} | {own[0].before:.3f} | "
            f"{after[0]:.3f} to {after[-1]:.3f} | {own[0].true_caption:.3f} | {taken} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Learns, prints a line a training, and writes the table and the numbers behind it."""
    parser = argparse.ArgumentParser(prog="python -m examples.sprites.seeds", description=__doc__)
    parser.add_argument("--concepts", nargs="+", default=list(CONCEPTS), choices=CONCEPTS, help="(default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)), help="(default: 0 to 7)")
    parser.add_argument(
        "--start", choices=("found", "given"), default="found", help="the start word: found, or its own"
    )
    parser.add_argument("--early-stopping", action="store_true", help="at a constant rate, until it stops by itself")
    parser.add_argument("--out", type=Path, default=HERE / "seeds.md", help="(default: %(default)s)")
    options = parser.parse_args()
    config = EARLY_STOPPING if options.early_stopping else RECIPE
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        models = import_models(Path(scratch))
        for name in options.concepts:
            concept = CONCEPTS[name]
            word = AUTO if options.start == "found" else concept.initializer_token
            for result in learn_seeds(
                concept, models, Path(scratch) / name, seeds=options.seeds, config=config, initializer_token=word
            ):
                results.append(result)
                print(json.dumps(dataclasses.asdict(result)), flush=True)
    options.out.write_text(f"{table(results)}\n", encoding="utf-8")
    numbers = json.dumps([dataclasses.asdict(result) for result in results], indent=1)
    options.out.with_suffix(".json").write_text(numbers + "\n", encoding="utf-8")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main()
