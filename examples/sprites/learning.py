"""Does Textual Inversion learn? Every held-out concept, several seeds, judged: `python -m examples.sprites.learning`.

Each row of the table is one run of the project's own steps: the training pictures are prepared and encoded, the
embedding is trained and sampled, and the samples are held against the scoring pictures by CLIP and by the judge, which
learns nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from components.common.artifacts import LEARNED_EMBEDS, Evaluation, ImageSet, LearnedEmbedding
from components.common.base_model import materialize, read_reference
from components.common.training.config import TrainConfig
from components.encode_latents.latents import encode_latents
from components.evaluate.config import EvaluateConfig
from components.evaluate.evaluation import evaluate
from components.import_base_model.importing import import_base_model
from components.ingest_images.config import IngestConfig
from components.ingest_images.ingest import ingest_images
from components.init_embedding.config import InitConfig
from components.init_embedding.initialize import init_embedding
from components.torch_models.denoising_loss import held_out_loss
from components.torch_models.sampling import load_concept, load_pipeline, write_rows
from components.train.train import train
from examples.sprites.concepts import CONCEPTS, Concept
from examples.sprites.concepts import FOLDER as CONCEPT_FOLDER
from examples.sprites.judge import ATTRIBUTES, judge
from examples.sprites.world import PLACES, SHAPES, SIZE
from pipelines.presets import SPRITES_DEMO

HERE = Path(__file__).resolve().parent
VARIANTS = ("before", "after", "true_caption")
JUDGED = ("shape", "colour", "texture", "place")
SAMPLES = 32
OBJECT_PROMPTS = ("a photo of a {}", *(f"a photo of a {{}} on the {place}" for place in ("snow", "grass", "rose")))
STYLE_PROMPTS = tuple(f"a painting of a {shape} in the style of {{}}" for shape in ("star", "heart", "circle", "cross"))

TRAINING = TrainConfig(**{field.name: SPRITES_DEMO[field.name] for field in dataclasses.fields(TrainConfig)})
"""What learns a sprite: the demo's training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learned:
    """What one run learned; the dictionaries are by `VARIANTS`.

    Attributes:
        concept: the concept's name.
        seed: the seed of the sampling plan.
        num_vectors: vectors of the placeholder.
        steps: optimizer steps.
        held_out_loss: the denoising loss over the scoring pictures.
        clip_i, clip_t: the evaluation's scores.
        judged: of the samples, the share that shows the right colour, texture, shape and place, by attribute.
        norm: Euclidean norm of the rows, before and after training.
        norm_ratio: the longest row's norm over the vocabulary's mean norm.
        passed: whether the gate would publish it.
        reasons: why not.
    """

    concept: str
    seed: int
    num_vectors: int
    steps: int
    held_out_loss: Mapping[str, float]
    clip_i: Mapping[str, float]
    clip_t: Mapping[str, float]
    judged: Mapping[str, Mapping[str, float]]
    norm: Mapping[str, float]
    norm_ratio: float
    passed: bool
    reasons: tuple[str, ...]


def import_models(folder: Path, base_model: str = "base_model") -> tuple[Path, Path]:
    """References to one of the tiny world's base models and to its CLIP, imported into `folder`."""
    for name, kind in ((base_model, "diffusion"), ("clip", "clip")):
        import_base_model(str(HERE / name), str(folder / "store"), folder / name, kind=kind)
    return folder / base_model, folder / "clip"


def learn(
    concept: Concept,
    models: tuple[Path, Path],
    folder: Path,
    *,
    config: TrainConfig = TRAINING,
    num_vectors: int = 1,
    framework: str = "torch",
    samples: int = SAMPLES,
) -> Learned:
    """Learns a concept by the project's steps, in `folder`, and measures what was learned.

    Args:
        concept: one of `CONCEPTS`.
        models: from `import_models`.
        folder: for the artifacts.
        config: how to train; its `learnable_property` is the concept's.
        num_vectors: vectors of the placeholder.
        framework: what trains, `torch` or `flax`.
        samples: drawn of each variant; a multiple of the prompts.
    """
    base_model, scorer = models
    config = dataclasses.replace(config, learnable_property=concept.learnable_property)
    for which in ("training", "scoring"):
        pictures = IngestConfig(images_uri=str(CONCEPT_FOLDER / concept.name / which), resolution=SIZE)
        ingest_images(pictures, folder / which)
    encode_latents(
        image_set=folder / "training", base_model=base_model, accelerator="cpu", output=folder / "latent_set"
    )
    initial = InitConfig(
        placeholder_token=concept.placeholder_token,
        initializer_token=concept.initializer_token,
        num_vectors=num_vectors,
    )
    init_embedding(initial, base_model, folder / "initial_embedding")
    learned = train(
        config,
        framework=framework,
        latent_set=folder / "latent_set",
        base_model=base_model,
        initial_embedding=folder / "initial_embedding",
        checkpoint_root=str(folder / "checkpoints"),
        accelerator="cpu",
        output=folder / "learned",
    )
    prompts = STYLE_PROMPTS if concept.learnable_property == "style" else OBJECT_PROMPTS
    evaluation = evaluate(
        EvaluateConfig(
            prompts=prompts,
            reference_prompt=concept.true_caption,
            images_per_prompt=samples // len(prompts),
            num_inference_steps=20,
            guidance_scale=2.5,
            sampling_batch_size=samples,
            min_clip_i_gain=SPRITES_DEMO["evaluation_min_clip_i_gain"],
        ),
        base_model=base_model,
        scorer=scorer,
        initial_embedding=folder / "initial_embedding",
        learned_embedding=folder / "learned",
        scoring_set=folder / "scoring",
        accelerator="cpu",
        output=folder / "evaluation",
    )
    return Learned(
        concept=concept.name,
        seed=config.seed,
        num_vectors=num_vectors,
        steps=learned.steps,
        held_out_loss=_held_out_losses(concept, learned, base_model, folder),
        clip_i={variant: evaluation.scores[variant]["clip_i"] for variant in VARIANTS},
        clip_t={variant: evaluation.scores[variant]["clip_t"] for variant in VARIANTS},
        judged={variant: judged_share(concept, evaluation, variant) for variant in VARIANTS},
        norm={"before": _norm(learned.initial_rows), "after": _norm(learned.rows)},
        norm_ratio=evaluation.settings["norm_ratio"],
        passed=evaluation.passed,
        reasons=tuple(evaluation.reasons),
    )


def judged_share(concept: Concept, evaluation: Evaluation, variant: str) -> dict[str, float]:
    """The share of a variant's samples in which the judge sees what the prompt asked for, by attribute.

    A place counts where the prompt names one.
    """
    hits: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    for sample in evaluation.samples:
        if sample.variant != variant:
            continue
        verdict = judge(sample.pixels)
        words = sample.prompt.split()
        named = next((place for place in PLACES if words[-1] == place), None)
        shape = concept.shape or next(word for word in words if word in SHAPES)
        wanted = {"colour": concept.colour, "texture": concept.texture, "shape": shape, "place": named}
        for name, value in wanted.items():
            if value is not None:
                hits[name].append(getattr(verdict, name) == value)
    return {name: float(np.mean(values)) for name, values in hits.items() if values}


def _held_out_losses(concept: Concept, learned: LearnedEmbedding, base_model: Path, folder: Path) -> dict[str, float]:
    pipeline = load_pipeline(materialize(read_reference(base_model)), device=torch.device("cpu"), dtype=torch.float32)
    pictures = ImageSet.read(folder / "scoring").pixels
    tokens = load_concept(pipeline, folder / "learned" / LEARNED_EMBEDS)
    prompt = "a painting in the style of {}" if concept.learnable_property == "style" else "a photo of a {}"
    measure = functools.partial(held_out_loss, pipeline, pictures, clip_skip=learned.clip_skip)
    losses = {"after": measure(prompt.format(concept.placeholder_token))}
    write_rows(pipeline, tokens, learned.initial_rows)
    losses["before"] = measure(prompt.format(concept.placeholder_token))
    losses["true_caption"] = measure(prompt.format(concept.true_caption))
    return losses


def _norm(rows: Mapping[str, np.ndarray]) -> float:
    return float(np.mean([np.linalg.norm(values, axis=1).mean() for values in rows.values()]))


def table(results: Sequence[Learned]) -> str:
    """A Markdown table of the results; each cell that has three values gives before -> after (true caption)."""
    lines = [
        f"| concept | seed | vectors | steps | held-out loss | CLIP-I | CLIP-T | {' | '.join(JUDGED)} | norm |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        cells = [result.concept, str(result.seed), str(result.num_vectors), str(result.steps)]
        cells += [_three(result.held_out_loss, 3), _three(result.clip_i, 2), _three(result.clip_t, 2)]
        for attribute in JUDGED:
            shares = {variant: result.judged[variant].get(attribute) for variant in VARIANTS}
            known = {variant: share for variant, share in shares.items() if share is not None}
            cells.append(_three(known, 2) if known else "-")
        cells.append(f"{result.norm['before']:.2f} -> {result.norm['after']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _three(values: Mapping[str, float], digits: int) -> str:
    before, after, true = (f"{values[variant]:.{digits}f}" for variant in VARIANTS)
    return f"{before} -> {after} ({true})"


def runs(names: Sequence[str], seeds: Sequence[int], vectors: Sequence[int]) -> Iterator[tuple[Concept, int, int]]:
    """Every concept of the names (all for none) with every seed and number of vectors."""
    for concept in CONCEPTS.values():
        if not names or concept.name in names:
            yield from ((concept, seed, count) for seed in seeds for count in vectors)


def main() -> None:
    """Learns, prints the table, and writes it and the numbers behind it."""
    parser = argparse.ArgumentParser(prog="python -m examples.sprites.learning", description=__doc__)
    parser.add_argument("--concepts", nargs="*", default=[], help="names of folders (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="(default: 0 1)")
    parser.add_argument("--vectors", type=int, nargs="+", default=[1], help="vectors of the placeholder (default: 1)")
    parser.add_argument("--out", type=Path, default=HERE / "learning.md", help="(default: %(default)s)")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        models = import_models(Path(scratch))
        for concept, seed, count in runs(options.concepts, options.seeds, options.vectors):
            folder = Path(scratch) / f"{concept.name}-{seed}-{count}"
            config = dataclasses.replace(TRAINING, seed=seed)
            results.append(learn(concept, models, folder, config=config, num_vectors=count))
            print(table(results[-1:]).splitlines()[-1], flush=True)
    options.out.write_text(f"{table(results)}\n", encoding="utf-8")
    numbers = json.dumps([dataclasses.asdict(result) for result in results], indent=1)
    options.out.with_suffix(".json").write_text(numbers + "\n", encoding="utf-8")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main()
