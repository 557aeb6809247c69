"""What the base model can draw: ``python -m examples.sprites.samples`` writes ``samples.png`` and ``scores.json``.

Every colour, texture and shape is asked for by its full caption, the held-out ones too, and so is every shape in
every style; the judge says how many samples show it.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from examples.sprites.captions import STYLES, full_caption
from examples.sprites.judge import agreement
from examples.sprites.world import (
    COLOURS,
    HELD_OUT_STYLE,
    PLACES,
    SHAPES,
    SIZE,
    TEXTURES,
    Attributes,
    Pictures,
    all_combinations,
    attributes_of,
    is_held_out,
    words_of,
)

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).resolve().parent
STEPS = 20
GUIDANCE = 2.5
SEED = 7
_BATCH = 48
_COLUMNS = len(COLOURS) * len(TEXTURES)


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """The base model in fp32, without a progress bar."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw_samples(pipeline: StableDiffusionPipeline, captions: Sequence[str], *, seed: int = SEED) -> Pictures:
    """One sample uint8 ``(N, 32, 32, 3)`` of each caption: DDIM, 20 steps, guidance 2.5.

    Each has a noise of its own that follows from the seed and its position, so a longer list begins with the same.
    """
    samples = []
    for start in range(0, len(captions), _BATCH):
        batch = list(captions[start : start + _BATCH])
        generators = [torch.Generator().manual_seed(seed * 100_000 + start + i) for i in range(len(batch))]
        images = pipeline(
            batch,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=SIZE,
            width=SIZE,
            generator=generators,
            output_type="np",
        ).images
        samples.append((images * 255).round().astype(np.uint8))
    return np.concatenate(samples)


def styled_captions() -> tuple[list[str], Attributes]:
    """"a star in the style of marine" for each shape and style, with the rows ``(N, 4)`` of what it should show."""
    rows, captions = [], []
    styles = {**STYLES, " ".join(HELD_OUT_STYLE): HELD_OUT_STYLE}
    for word, pair in styles.items():
        for shape in SHAPES:
            place = tuple(PLACES)[len(rows) % len(PLACES)]
            rows.append(attributes_of(*pair, shape, place))
            captions.append(f"a {shape} in the style of {word} on the {place}")
    return captions, np.stack(rows)


def grid(pictures: Pictures, *, columns: int, scale: int = 1, gap: int = 1) -> Image.Image:
    """The pictures row by row on white."""
    size = SIZE * scale + gap
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * size + gap, columns * size + gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = (gap + size * step for step in divmod(index, columns))
        large = picture.repeat(scale, 0).repeat(scale, 1)
        sheet[top : top + SIZE * scale, left : left + SIZE * scale] = large
    return Image.fromarray(sheet)


def score(agreements: dict[str, NDArray[np.bool_]], attributes: Attributes) -> dict[str, object]:
    """The share of agreement per attribute, that of all at once, and which captions fail how often."""
    wrong: Counter[str] = Counter()
    for name, right in agreements.items():
        wrong.update(f"{' '.join(words_of(row)[:3])}: {name}" for row in attributes[~right])
    return {
        "samples": len(attributes),
        **{name: round(float(right.mean()), 4) for name, right in agreements.items()},
        "all": round(float(np.logical_and.reduce(list(agreements.values())).mean()), 4),
        "wrong": dict(wrong.most_common()),
    }


def measure(pipeline: StableDiffusionPipeline, *, seeds: int) -> tuple[dict[str, object], Pictures]:
    """The scores of all captions over several seeds, and the samples ``(144, ...)`` of the first seed."""
    combinations = all_combinations()
    captions = [full_caption(row) for row in combinations]
    samples = [draw_samples(pipeline, captions, seed=SEED + i) for i in range(seeds)]
    attributes = np.concatenate([combinations] * seeds)
    agreements = agreement(np.concatenate(samples), attributes)
    held_out = np.array([is_held_out(row) for row in attributes])
    styled, styled_attributes = styled_captions()
    return {
        "sampler": f"DDIM, {STEPS} steps, guidance {GUIDANCE}",
        "full captions": score(agreements, attributes),
        "held out alone": score({k: v[held_out] for k, v in agreements.items()}, attributes[held_out]),
        "styled captions": score(agreement(draw_samples(pipeline, styled), styled_attributes), styled_attributes),
    }, samples[0]


def main(argv: list[str] | None = None) -> None:
    """Reads the command line, samples, judges and writes."""
    parser = argparse.ArgumentParser(description="Draw and judge what the base model can draw.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="has base_model/, gets samples.png and scores.json")
    parser.add_argument("--seeds", type=int, default=4, help="samples per caption (default: %(default)s)")
    options = parser.parse_args(argv)
    scores, samples = measure(load_pipeline(options.folder / "base_model"), seeds=options.seeds)
    grid(samples, columns=_COLUMNS).save(options.folder / "samples.png", optimize=True)
    (options.folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
    logger.info("%s", json.dumps(scores, indent=2))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    main()
