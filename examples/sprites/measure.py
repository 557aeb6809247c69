"""How good the tiny world's models are: ``python -m examples.sprites.measure [--base-model base_model_xl]``.

The base model draws every colour, texture and shape by its full caption, every noun, and every shape in every style;
the judge says whether a sample shows what was asked for. CLIP is given fresh pictures, and for each the right caption
among all that are wrong in one word. Tables go to the standard output, the samples to ``--out``.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
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


@dataclass(frozen=True, kw_only=True)
class Judged:
    """N captions, S samples of each, and the judge's word.

    Attributes:
        attributes: rows ``(N, 4)`` of what the samples should show.
        samples: uint8 ``(S, N, 32, 32, 3)``.
        right: for each of the judge's attributes, whether the samples show it ``(S, N)``.
    """

    attributes: Attributes
    samples: Pictures
    right: dict[str, NDArray[np.bool_]]

    def only(self, chosen: NDArray[np.bool_]) -> Judged:
        """The captions that a mask ``(N,)`` chooses."""
        return Judged(
            attributes=self.attributes[chosen],
            samples=self.samples[:, chosen],
            right={name: values[:, chosen] for name, values in self.right.items()},
        )


def asked_in_full() -> Asked:
    """All 144 combinations by their full captions, in different places for one colour."""
    combinations = all_combinations()
    combinations[:, 3] = (combinations[:, 3] + np.arange(len(combinations)) // len(COLOURS)) % len(PLACES)
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


def wrong_in_one_word(attributes: Attributes) -> Attributes:
    """The 17 rows ``(17, 4)`` that differ from one row ``(4,)`` in one attribute."""
    rows = []
    for column, count in enumerate(_VALUES):
        for value in range(count):
            if value != attributes[column]:
                rows.append(np.array([*attributes[:column], value, *attributes[column + 1 :]]))
    return np.stack(rows)


@torch.no_grad()
def clip_is_right(clip: CLIPModel, tokenizer: CLIPTokenizer, attributes: Attributes, *, seed: int) -> NDArray[np.bool_]:
    """For each of N rows ``(N, 4)``, whether CLIP finds the caption of a fresh picture among the 17 that are wrong."""
    every_row = np.stack([grid.ravel() for grid in np.indices(_VALUES)], axis=1)
    captions = embed_captions(clip, tokenize(tokenizer, [full_caption(row) for row in every_row]))
    pictures = embed_pictures(clip, to_tensor(draw_pictures(attributes, np.random.default_rng(seed))))
    similarity = (pictures @ captions.T).numpy().reshape(-1, *_VALUES)
    return np.array(
        [
            one[tuple(row)] > one[tuple(wrong_in_one_word(row).T)].max()
            for one, row in zip(similarity, attributes, strict=True)
        ]
    )


def judge_captions(pipeline: DiffusionPipeline, asked: Asked, *, seeds: int) -> Judged:
    """What the judge says about `seeds` samples of each caption."""
    samples = [draw_samples(pipeline, asked.captions, seed=SEED + i) for i in range(seeds)]
    right = agreement(np.concatenate(samples), np.tile(asked.attributes, (seeds, 1)))
    return Judged(
        attributes=asked.attributes,
        samples=np.stack(samples),
        right={name: values.reshape(seeds, -1) for name, values in right.items()},
    )


def judge_table(groups: dict[str, Judged]) -> str:
    """A Markdown table of the share of samples that show what was asked for, a line for each group."""
    lines = [f"| captions | samples | {' | '.join(ATTRIBUTES)} | all four |", "|---" * (len(ATTRIBUTES) + 3) + "|"]
    for name, group in groups.items():
        values = [*(group.right[attribute] for attribute in ATTRIBUTES)]
        values.append(np.logical_and.reduce(values))
        lines.append(f"| {name} | {values[0].size} | {' | '.join(f'{v.mean():.1%}' for v in values)} |")
    return "\n".join(lines)


def weak_captions(group: Judged) -> str:
    """What was drawn wrongly and how often, the worst first: "black dotted cross: texture (2 of 4)"."""
    weak: Counter[str] = Counter()
    for name, values in group.right.items():
        for row, wrong in zip(group.attributes, (~values).sum(0), strict=True):
            weak[f"{' '.join(words_of(row)[:3])}: {name}"] += int(wrong)
    listed = [f"{caption} ({count} of {len(group.samples)})" for caption, count in weak.most_common() if count]
    return "; ".join(listed) or "none"


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


def main(argv: list[str] | None = None) -> None:
    """Reads the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description="Measure what the base model draws and what CLIP tells apart.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="has the models (default: %(default)s)")
    parser.add_argument("--base-model", default="base_model", help="its folder (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=4, help="samples per caption (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER / "samples.png", help="the picture (default: %(default)s)")
    options = parser.parse_args(argv)
    clip = CLIPModel.from_pretrained(options.folder / "clip", dtype=torch.float32).eval()
    print(clip_table(clip, CLIPTokenizer.from_pretrained(options.folder / "clip"), per_combination=4), flush=True)
    pipeline = load_pipeline(options.folder / options.base_model)
    full = judge_captions(pipeline, asked_in_full(), seeds=options.seeds)
    groups = {
        "full captions": full,
        "of these, held-out objects": full.only(is_held_out_object(full.attributes)),
        "of these, the held-out style": full.only(is_held_out_style(full.attributes)),
    }
    others = {
        "nouns": asked_by_noun(),
        "style words": asked_in_style(STYLES),
        "the held-out style spelled out": asked_in_style({" ".join(HELD_OUT_STYLE): HELD_OUT_STYLE}),
    }
    groups |= {name: judge_captions(pipeline, asked, seeds=options.seeds) for name, asked in others.items()}
    print(f"\n{judge_table(groups)}\n\nWrong with full captions: {weak_captions(full)}")
    sheet_of(full.samples[0], columns=len(COLOURS) * len(TEXTURES)).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
