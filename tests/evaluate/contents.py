"""Contents for reports without any model: pictures drawn by numpy, scores drawn at random."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from components.common.artifacts import ImageSet, LearnedEmbedding, Picture, Sample, Snapshot
from components.common.base_model import ModelFile, ModelReference
from components.common.champion import Gain, Judged
from components.evaluate.config import EvaluateConfig
from components.evaluate.drawing.samples import DrawnSamples, chosen_snapshots
from components.evaluate.report.view import ReportContent
from components.evaluate.scoring.gate import run_checks
from components.evaluate.scoring.health import Vocabulary, embedding_health, largest_norm_ratio
from components.evaluate.scoring.held_out import HeldOutLosses
from components.evaluate.scoring.scores import VariantScores, summarize

WIDTH = 16
LIKENESS = {"before": 0.41, "after": 0.78, "champion": 0.66, "true_caption": 0.79}
CHAMPION = Judged(
    alias="champion",
    version=3,
    digest="e" * 64,
    gain={
        "clip_i": Gain(value=0.12, low=0.09, high=0.15),
        "clip_t": Gain(value=-0.004, low=-0.012, high=0.005),
        "together": Gain(value=0.116, low=0.082, high=0.147),
    },
    alone="",
)


def pattern(seed: int, size: int = 32) -> np.ndarray:
    """A picture that differs with its seed: a coloured disc on a slope of another colour."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    ground, disc = rng.uniform(120, 250, 3), rng.uniform(0, 255, 3)
    picture = ground * (0.7 + 0.3 * x[..., None])
    inside = (x - rng.uniform(0.35, 0.65)) ** 2 + (y - rng.uniform(0.35, 0.65)) ** 2 < 0.09
    picture[inside] = disc
    return picture.clip(0, 255).astype(np.uint8)


def image_set(count: int = 5, size: int = 32, digest: str = "a" * 64) -> ImageSet:
    """A scoring set of patterns."""
    pictures = tuple(
        Picture(
            source=f"{number}.png",
            caption=None,
            original_size=(size, size),
            crop_top_left=(0, 0),
            size=(size, size),
        )
        for number in range(count)
    )
    pixels = tuple(pattern(100 + number, size) for number in range(count))
    return ImageSet(pictures=pictures, pixels=pixels, masks=(None,) * count, digest=digest)


def learned_embedding(
    *,
    token: str = "<cat-toy>",
    initializer: str = "toy",
    vectors: int = 1,
    steps: int = 200,
    width: int = WIDTH,
) -> LearnedEmbedding:
    """A made-up embedding whose rows moved away from the initial ones."""
    rng = np.random.default_rng(0)
    initial = rng.normal(0, 0.05, (vectors, width)).astype(np.float32)
    rows = initial + (rng.normal(0, 0.2, (vectors, width)) if steps else 0)
    rows = np.asarray(rows, np.float32)
    loss = 0.1 + 0.25 * np.exp(-np.arange(steps) / 60) + np.abs(rng.normal(0, 0.04, steps))
    snapshots = tuple(
        Snapshot(step=step, rows={"text_encoder": initial + (rows - initial) * step / steps})
        for step in range(25, steps + 1, 25)
    )
    return LearnedEmbedding(
        placeholder_token=token,
        tokens=(token, *(f"{token}_{i}" for i in range(1, vectors))),
        initializer_token=initializer,
        learnable_property="object",
        rows={"text_encoder": rows},
        initial_rows={"text_encoder": initial},
        snapshots=snapshots,
        losses=loss.astype(np.float32),
        training_key="b" * 64,
        config={
            "learning_rate": 5e-4,
            "max_train_steps": steps,
            "scale_lr": True,
            "lr_scheduler": "constant",
        },
        lineage={"framework": "torch", "base_model": "hf://owner/model", "image_set_digest": "a" * 64},
        digest="c" * 64,
    )


def report_content(
    config: EvaluateConfig | None = None,
    *,
    learned: LearnedEmbedding | None = None,
    scoring_set: ImageSet | None = None,
    size: int = 32,
    base_model: str = "owner/model",
    champion: Judged | None = None,
) -> ReportContent:
    """A whole report's content; pictures of `size` pixels. With a `champion`, it is drawn and scored, too."""
    config = config or EvaluateConfig(prompts=("a photo of a {}", "a {} on the beach"), images_per_prompt=4)
    learned = learned or learned_embedding()
    scoring_set = scoring_set or image_set(size=size)
    drawn = _drawn(config, learned, size, with_champion=champion is not None)
    by_sample = _by_sample(drawn)
    scores = summarize(by_sample)
    vocabulary = Vocabulary(
        tokens=[f"word{i}</w>" for i in range(50)],
        table=np.random.default_rng(1).normal(0, 0.08, (50, WIDTH)),
    )
    health = embedding_health(learned.tokens, learned.rows, learned.initial_rows, {"text_encoder": vocabulary})
    ratio = largest_norm_ratio(health)
    pictures = [found.pixels for found in drawn.variants["after"]]
    settings: dict[str, Any] = {
        **dataclasses.asdict(config),
        "prompts": list(config.prompts_for("object")),
        "norm_ratio": ratio,
        "intervals": scores.intervals(),
        "scorer_digest": "d" * 64,
    }
    return ReportContent(
        config=config,
        learned=learned,
        reference=ModelReference(
            source=f"hf://{base_model}",
            repository=base_model,
            revision="abc",
            kind="diffusion",
            variant="",
            store="/store",
            files={"model_index.json": ModelFile(sha256="ab" * 32, size=1)},
        ),
        scoring_set=scoring_set,
        drawn=drawn,
        held_out=HeldOutLosses(
            by_step={step: 0.1 + 0.2 * 0.5**index for index, (step, _) in enumerate(drawn.progress)},
            true_caption=0.09 if config.reference_prompt else None,
        ),
        by_sample=by_sample,
        scores=scores,
        checks=run_checks(config, learned=learned, scores=scores, samples=pictures, norm_ratio=ratio),
        health=health,
        settings=settings,
        judged=champion,
    )


def _drawn(
    config: EvaluateConfig, learned: LearnedEmbedding, size: int, *, with_champion: bool = False
) -> DrawnSamples:
    words = {"before": learned.placeholder_token, "after": learned.placeholder_token}
    if with_champion:
        words["champion"] = learned.placeholder_token
    if config.reference_prompt:
        words["true_caption"] = config.reference_prompt
    variants = {}
    for offset, (variant, word) in enumerate(words.items()):
        prompts = [p.replace("{}", word) for p in config.prompts_for("object") for _ in range(config.images_per_prompt)]
        variants[variant] = tuple(
            Sample(variant=variant, prompt=prompt, seed=seed, pixels=pattern(1000 * offset + seed, size))
            for seed, prompt in enumerate(prompts)
        )
    first = variants["before"][0]
    between = tuple(
        (
            found.step,
            dataclasses.replace(first, variant=f"step-{found.step}", pixels=pattern(found.step, size)),
        )
        for found in chosen_snapshots(learned)
    )
    progress = ((0, first), *between, (learned.steps, variants["after"][0]))
    return DrawnSamples(variants=variants, progress=progress)


def _by_sample(drawn: DrawnSamples) -> dict[str, VariantScores]:
    rng = np.random.default_rng(2)
    found = {
        variant: VariantScores(
            clip_i=LIKENESS[variant] + rng.normal(0, 0.04, len(samples)),
            clip_t=rng.normal(0.3, 0.02, len(samples)),
        )
        for variant, samples in drawn.variants.items()
    }
    return {**found, "real": VariantScores(clip_i=rng.normal(0.83, 0.02, 5), clip_t=rng.normal(0.3, 0.02, 5))}
