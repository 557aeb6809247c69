"""How good the tiny world's models are: ``python -m examples.sprites.measure [--folder DIR] [--seeds N]``.

The base model draws every colour, texture and shape by its full caption, every noun, and every shape in every style;
the judge says whether a sample shows what was asked for. CLIP is given fresh pictures, and for each the right caption
among all that are wrong in one word. Tables go to the standard output, the samples to ``samples.png``.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from transformers import CLIPModel, CLIPTokenizer

from examples.sprites.captions import NOUNS, STYLES, full_caption
from examples.sprites.clip import embed_captions, embed_pictures, tokenize
from examples.sprites.judge import ATTRIBUTES, agreement
from examples.sprites.samples import draw_samples, load_pipeline, sheet_of
from examples.sprites.vae import to_tensor
from examples.sprites.world import (
    COLOURS,
    HELD_OUT_OBJECTS,
    HELD_OUT_STYLE,
    PLACES,
    SHAPES,
    TEXTURES,
    Attributes,
    Pictures,
    all_combinations,
    attributes_of,
    draw_pictures,
    words_of,
)

FOLDER = Path(__file__).resolve().parent
SEED = 7
_VALUES = (len(COLOURS), len(TEXTURES), len(SHAPES), len(PLACES))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Captions, and the rows ``(N, 4)`` of what their samples should show."""

    captions: list[str]
    attributes: Attributes


def asked_in_full() -> Asked:
    """All 144 combinations by their full captions, the places taking turns."""
    combinations = all_combinations()
    return Asked(captions=[full_caption(row) for row in combinations], attributes=combinations)


def asked_by_noun() -> Asked:
    """ "a photo of a ladybug on the snow", for each noun."""
    places = [tuple(PLACES)[i % len(PLACES)] for i in range(len(NOUNS))]
    return Asked(
        captions=[f"a photo of a {noun} on the {place}" for noun, place in zip(NOUNS, places, strict=True)],
        attributes=np.stack([attributes_of(*row, place) for row, place in zip(NOUNS.values(), places, strict=True)]),
    )


def asked_in_style(styles: dict[str, tuple[str, str]]) -> Asked:
    """ "a star in the style of marine on the snow", for each shape and style."""
    every = [(word, pair, shape) for word, pair in styles.items() for shape in SHAPES]
    places = [tuple(PLACES)[i % len(PLACES)] for i in range(len(every))]
    return Asked(
        captions=[f"a {s} in the style of {w} on the {p}" for (w, _, s), p in zip(every, places, strict=True)],
        attributes=np.stack([attributes_of(*pair, s, p) for (_, pair, s), p in zip(every, places, strict=True)]),
    )


def is_held_out_object(attributes: Attributes) -> NDArray[np.bool_]:
    """Which rows ``(N, 4)`` show one of the held-out objects ``(N,)``."""
    return np.array([words_of(row)[:3] in HELD_OUT_OBJECTS for row in attributes])


def is_held_out_style(attributes: Attributes) -> NDArray[np.bool_]:
    """Which rows ``(N, 4)`` show the held-out style ``(N,)``."""
    return np.array([words_of(row)[:2] == HELD_OUT_STYLE for row in attributes])


def captions_wrong_in_one_word(attributes: Attributes) -> list[str]:
    """The full captions of one row ``(4,)``: the right one, and behind it the 17 that differ in one attribute."""
    rows = [attributes]
    for column, count in enumerate(_VALUES):
        for value in range(count):
            if value != attributes[column]:
                rows.append(np.array([*attributes[:column], value, *attributes[column + 1 :]]))
    return [full_caption(row) for row in rows]


@torch.no_grad()
def clip_is_right(clip: CLIPModel, tokenizer: CLIPTokenizer, attributes: Attributes, *, seed: int) -> NDArray[np.bool_]:
    """For each of N rows ``(N, 4)``, whether CLIP finds the right caption of a fresh picture among the 18."""
    pictures = embed_pictures(clip, to_tensor(draw_pictures(attributes, np.random.default_rng(seed))))
    right = []
    for picture, row in zip(pictures, attributes, strict=True):
        captions = embed_captions(clip, tokenize(tokenizer, captions_wrong_in_one_word(row)))
        right.append(bool((captions @ picture).argmax() == 0))
    return np.array(right)


def judged(pipeline: StableDiffusionPipeline, asked: Asked, *, seeds: int) -> tuple[dict[str, NDArray], Pictures]:
    """For each attribute, whether each of the N x `seeds` samples shows it, ``(seeds, N)``, and the first N samples."""
    samples = [draw_samples(pipeline, asked.captions, seed=SEED + i) for i in range(seeds)]
    right = agreement(np.concatenate(samples), np.tile(asked.attributes, (seeds, 1)))
    return {name: values.reshape(seeds, -1) for name, values in right.items()}, samples[0]


def judge_table(pipeline: StableDiffusionPipeline, *, seeds: int) -> tuple[str, Pictures]:
    """A Markdown table of the share of right samples with a list of the weak captions, and 144 samples to look at."""
    full = asked_in_full()
    right, shown = judged(pipeline, full, seeds=seeds)
    held_out = {
        "of these, held-out objects": is_held_out_object(full.attributes),
        "of these, held-out style": is_held_out_style(full.attributes),
    }
    lines = [f"| captions | samples | {' | '.join(ATTRIBUTES)} | all |", "|---" * (len(ATTRIBUTES) + 3) + "|"]
    lines.append(_judge_row("full captions", right))
    lines += [_judge_row(name, {k: v[:, rows] for k, v in right.items()}) for name, rows in held_out.items()]
    others = {
        "nouns": asked_by_noun(),
        "style words": asked_in_style(STYLES),
        "held-out style in words": asked_in_style({" ".join(HELD_OUT_STYLE): HELD_OUT_STYLE}),
    }
    lines += [_judge_row(name, judged(pipeline, asked, seeds=seeds)[0]) for name, asked in others.items()]
    weak: Counter[str] = Counter()
    for name, values in right.items():
        for row, wrong in zip(full.attributes, (~values).sum(0), strict=True):
            weak[f"{' '.join(words_of(row)[:3])}: {name}"] += int(wrong)
    listed = [f"{caption} ({count} of {seeds})" for caption, count in weak.most_common() if count]
    return "\n".join([*lines, "", f"Wrong with full captions: {'; '.join(listed) or 'none'}"]), shown


def clip_table(clip: CLIPModel, tokenizer: CLIPTokenizer, *, per_combination: int) -> str:
    """A Markdown table of how often CLIP finds the right one of 18 captions, in every place `per_combination` times."""
    rows = np.repeat(all_combinations(), len(PLACES), axis=0)
    rows[:, 3] = np.tile(np.arange(len(PLACES)), len(rows) // len(PLACES))
    rows = np.tile(rows, (per_combination, 1))
    right = clip_is_right(clip, tokenizer, rows, seed=SEED)
    objects, style = is_held_out_object(rows), is_held_out_style(rows)
    groups = {"seen in training": ~(objects | style), "held-out objects": objects, "held-out style": style}
    lines = ["| fresh pictures | count | right caption of 18 |", "|---|---|---|"]
    lines += [f"| {name} | {group.sum()} | {right[group].mean():.1%} |" for name, group in groups.items()]
    return "\n".join(lines)


def _judge_row(name: str, right: dict[str, NDArray]) -> str:
    values = [*(right[attribute] for attribute in ATTRIBUTES), np.logical_and.reduce(list(right.values()))]
    return f"| {name} | {values[0].size} | {' | '.join(f'{v.mean():.1%}' for v in values)} |"


def main(argv: list[str] | None = None) -> None:
    """Reads the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description="Measure what the base model draws and what CLIP tells apart.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="has base_model/ and clip/ (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=4, help="samples per caption (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER / "samples.png", help="the picture (default: %(default)s)")
    options = parser.parse_args(argv)
    clip = CLIPModel.from_pretrained(options.folder / "clip", dtype=torch.float32).eval()
    print(clip_table(clip, CLIPTokenizer.from_pretrained(options.folder / "clip"), per_combination=4), flush=True)
    table, samples = judge_table(load_pipeline(options.folder / "base_model"), seeds=options.seeds)
    print(f"\n{table}")
    sheet_of(samples, columns=len(COLOURS) * len(TEXTURES)).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
