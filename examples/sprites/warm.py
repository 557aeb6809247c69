"""What starting from the champion saves when there are more pictures: `python -m examples.sprites.warm`.

A concept is learned from two of its pictures: that is the champion. Then all five are there, and the word is learned
again: from the start word that is found for it, and from the champion's rows. All three trainings are the recipe of
`seeds.py` at a constant rate, so that what is known after so many steps is what a training of so many steps gives.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from components.common.artifacts import LEARNED_EMBEDS, ImageSet, LearnedEmbedding
from components.common.base_model import materialize, read_reference
from components.common.prompts import templates_for
from components.common.start_word import AUTO
from components.encode_latents.latents import encode_latents
from components.ingest_images.config import IngestConfig
from components.ingest_images.ingest import ingest_images
from components.init_embedding.config import InitConfig
from components.init_embedding.initialize import init_embedding
from components.torch_models.denoising_loss import held_out_loss
from components.torch_models.sampling import load_concept, load_pipeline, write_rows
from components.train.train import train
from examples.sprites.concepts import CONCEPTS, Concept
from examples.sprites.concepts import FOLDER as CONCEPT_FOLDER
from examples.sprites.learning import HERE, import_models
from examples.sprites.seeds import CLOSE, RECIPE, prepare
from examples.sprites.world import SIZE

EVERY = 5
CONFIG = dataclasses.replace(
    RECIPE, lr_scheduler="constant_with_warmup", lr_warmup_steps=EVERY, max_train_steps=60, save_steps=EVERY
)
CHAMPIONS_PICTURES = ("1.png", "2.png")
SHOWN_STEPS = (0, 5, 10, 20, 40, 60)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmResult:
    """How a word is learned from all pictures.

    Attributes:
        concept: the concept's name.
        start: what training started from.
        losses: the held-out loss by number of steps.
        true_caption: the held-out loss of the true caption.
    """

    concept: str
    start: str
    losses: Mapping[int, float]
    true_caption: float

    @property
    def learned_at(self) -> int | None:
        """The first step from which on the word means what the true caption says; None if it never does."""
        too_far = [step for step, loss in self.losses.items() if loss >= CLOSE * self.true_caption]
        return min((step for step in self.losses if step > max(too_far, default=-1)), default=None)


def learn_again(concept: Concept, models: tuple[Path, Path], folder: Path) -> Iterator[WarmResult]:
    """Learns a concept anew from its start word, then from a champion that knows fewer pictures.

    Args:
        concept: one of `CONCEPTS`.
        models: from `import_models`.
        folder: for the artifacts.
    """
    base_model, _ = models
    start = prepare(concept, models, folder, initializer_token=AUTO)
    _encode_few(concept, base_model, folder)
    champion = _train(concept, base_model, folder, latents="few_latents", start="initial_embedding", name="champion")
    word = InitConfig(
        placeholder_token=concept.placeholder_token,
        initializer_token=start.word,
        initializer_embedding=str(folder / "champion" / LEARNED_EMBEDS),
    )
    init_embedding(word, base_model, folder / "champions_rows")
    pipeline = load_pipeline(materialize(read_reference(base_model)), device=torch.device("cpu"), dtype=torch.float32)
    pictures = ImageSet.read(folder / "scoring").pixels
    prompt = templates_for(concept.learnable_property)[0]
    true_caption = held_out_loss(pipeline, pictures, prompt.format(concept.true_caption))
    tokens = load_concept(pipeline, folder / "champion" / LEARNED_EMBEDS)
    assert champion.steps == CONFIG.max_train_steps
    for told, rows in ((start.word, "initial_embedding"), ("the champion", "champions_rows")):
        learned = _train(concept, base_model, folder, latents="latent_set", start=rows, name=f"from_{rows}")
        known = {0: learned.initial_rows, **{each.step: each.rows for each in learned.snapshots}}
        losses = {}
        for step, values in {**known, learned.steps: learned.rows}.items():
            write_rows(pipeline, tokens, values)
            losses[step] = held_out_loss(pipeline, pictures, prompt.format(concept.placeholder_token))
        yield WarmResult(concept=concept.name, start=told, losses=losses, true_caption=true_caption)


def _encode_few(concept: Concept, base_model: Path, folder: Path) -> None:
    few = folder / "few"
    few.mkdir()
    for name in CHAMPIONS_PICTURES:
        shutil.copy(CONCEPT_FOLDER / concept.name / "training" / name, few)
    ingest_images(IngestConfig(images_uri=str(few), resolution=SIZE), folder / "few_pictures")
    encode_latents(
        image_set=folder / "few_pictures", base_model=base_model, accelerator="cpu", output=folder / "few_latents"
    )


def _train(
    concept: Concept, base_model: Path, folder: Path, *, latents: str, start: str, name: str
) -> LearnedEmbedding:
    return train(
        dataclasses.replace(CONFIG, learnable_property=concept.learnable_property),
        framework="torch",
        latent_set=folder / latents,
        base_model=base_model,
        initial_embedding=folder / start,
        checkpoint_root=str(folder / "checkpoints"),
        accelerator="cpu",
        output=folder / name,
    )


def table(results: Sequence[WarmResult]) -> str:
    """A Markdown table: a row for each concept and start."""
    steps = " | ".join(f"step {step}" for step in SHOWN_STEPS)
    lines = [
        f"| concept | starts from | held-out loss at {steps} | true caption | learned at step |",
        f"|---|---|{'---|' * len(SHOWN_STEPS)}---|---|",
    ]
    for result in results:
        losses = " | ".join(f"{result.losses[step]:.3f}" for step in SHOWN_STEPS)
        at = "-" if result.learned_at is None else result.learned_at
        lines.append(f"| {result.concept} | {result.start} | {losses} | {result.true_caption:.3f} | {at} |")
    return "\n".join(lines)


def main() -> None:
    """Learns, prints the table, and writes it."""
    parser = argparse.ArgumentParser(prog="python -m examples.sprites.warm", description=__doc__)
    concepts = ["green-dotted-triangle", "orange-striped-heart"]
    parser.add_argument("--concepts", nargs="+", default=concepts, choices=CONCEPTS, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE / "warm.md", help="(default: %(default)s)")
    options = parser.parse_args()
    results: list[WarmResult] = []
    with tempfile.TemporaryDirectory() as scratch:
        models = import_models(Path(scratch))
        for name in options.concepts:
            for result in learn_again(CONCEPTS[name], models, Path(scratch) / name):
                results.append(result)
                print(table([result]).splitlines()[-1], result.losses, flush=True)
    options.out.write_text(f"{table(results)}\n", encoding="utf-8")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main()
