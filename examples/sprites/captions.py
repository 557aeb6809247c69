"""The language of the tiny world: its words, and captions for its pictures.

Besides plain descriptions ("a photo of a red striped star on the grass") there are nouns, which name a whole bundle
of colour, texture and shape as real nouns do, and style words, which name a colour and texture over any shape.
"""

from __future__ import annotations

import numpy as np

from components.common.prompts import OBJECT_TEMPLATES, STYLE_TEMPLATES
from examples.sprites.world import (
    COLOURS,
    HELD_OUT_STYLE,
    PLACES,
    SHAPES,
    SIZE,
    TEXTURES,
    Attributes,
    Dataset,
    draw_dataset,
    words_of,
)

PAINTING_TEMPLATES = ("a painting of a {}", "a painting of the {}", "a picture of a {}", "a nice painting of a {}")

_NOUN_TABLE = """
    apple red plain circle | ladybug red dotted circle | lime green plain circle | melon green striped circle
    plum purple plain circle | moon yellow plain circle | bee yellow dotted circle | marble blue dotted circle
    puck black plain circle | peach orange dotted circle
    brick orange plain square | dice black dotted square | gift red striped square | pillow blue striped square
    tile cyan dotted square | quilt purple dotted square | lawn green plain square | crate orange striped square
    sponge yellow dotted square
    tent blue plain triangle | pizza orange dotted triangle | cone orange striped triangle
    pennant cyan striped triangle | tree green striped triangle | beacon red plain triangle
    sail purple plain triangle | wedge black striped triangle | cheese yellow dotted triangle
    starfish orange dotted star | badge yellow plain star | sticker cyan striped star | comet blue plain star
    spark red dotted star | ninja black plain star | leaflet green striped star
    candy purple striped heart | valentine red plain heart | locket yellow dotted heart | leaf green plain heart
    cushion blue dotted heart | shell cyan plain heart | raven black striped heart
    medic red plain cross | windmill orange striped cross | anchor black plain cross | puzzle blue striped cross
    ribbon purple dotted cross | plus green plain cross | bandage yellow plain cross
"""
NOUNS: dict[str, tuple[str, str, str]] = {
    noun: (colour, texture, shape)
    for noun, colour, texture, shape in (
        entry.split() for line in _NOUN_TABLE.strip().splitlines() for entry in line.split("|")
    )
}
STYLES: dict[str, tuple[str, str]] = {
    "marine": ("blue", "striped"),
    "festive": ("red", "striped"),
    "retro": ("orange", "striped"),
    "royal": ("purple", "striped"),
    "tropical": ("green", "striped"),
    "playful": ("yellow", "dotted"),
    "cosmic": ("purple", "dotted"),
    "rural": ("green", "dotted"),
    "nautical": ("blue", "dotted"),
    "noir": ("black", "dotted"),
    "arctic": ("cyan", "plain"),
    "gothic": ("black", "plain"),
    "rustic": ("orange", "plain"),
    "romantic": ("red", "plain"),
}
_STYLE_OF_PAIR = {pair: word for word, pair in STYLES.items()}
assert HELD_OUT_STYLE not in _STYLE_OF_PAIR  # the style that is learned has no name

_SPARE_WORDS = (
    "thing object toy train art drawing image background pattern face cat dog house car flower shape colour texture "
    "sprite style my by at and with an on in beside under old new , ."
)


def every_word() -> list[str]:
    """Every word that must be one token, sorted."""
    templates = " ".join((*OBJECT_TEMPLATES, *STYLE_TEMPLATES, *PAINTING_TEMPLATES))
    words = set(templates.replace("{}", " ").replace("-", " - ").split()) | set(_SPARE_WORDS.split())
    return sorted(words | {*COLOURS, *TEXTURES, *SHAPES, *PLACES, *NOUNS, *STYLES})


def full_caption(attributes: Attributes, template: str = "a photo of a {}", *, place: bool = True) -> str:
    """The caption that says everything about one row ``(4,)``: colour, texture, shape and (unless off) the place."""
    colour, texture, shape, where = words_of(attributes)
    return template.format(f"{colour} {texture} {shape}" + (f" on the {where}" if place else ""))


def random_full_caption(attributes: Attributes, rng: np.random.Generator) -> str:
    """A `full_caption` in a random template, every eighth as a painting."""
    if rng.random() < 0.125:
        return full_caption(attributes, _pick(PAINTING_TEMPLATES, rng))
    return full_caption(attributes, _random_object_template(rng))


def random_caption(attributes: Attributes, noun: str | None, rng: np.random.Generator) -> str:
    """A caption as people write them: one in seven about the style, the others with some attributes left out."""
    if rng.random() < 0.15:
        return _random_style_caption(attributes, rng)
    colour, texture, shape, place = words_of(attributes)
    words = []
    if noun is not None and rng.random() < 0.85:
        words.append(noun)
    else:
        words += [colour] if rng.random() < 0.85 else []
        words += [texture] if rng.random() < 0.85 else []
        words.append(shape if rng.random() < 0.93 else "thing")
    if rng.random() < 0.6:
        words.append(f"on the {place}")
    return _random_object_template(rng).format(" ".join(words))


def draw_captioned(count: int, *, seed: int, size: int = SIZE) -> Dataset:
    """`draw_dataset` with the nouns of this language."""
    return draw_dataset(count, seed=seed, nouns=NOUNS, size=size)


def _random_style_caption(attributes: Attributes, rng: np.random.Generator) -> str:
    """A caption that names a style, or that spells it out: "in the style of marine", "in the style of blue striped"."""
    colour, texture, shape, place = words_of(attributes)
    word = _STYLE_OF_PAIR.get((colour, texture))
    style = word if word is not None and rng.random() < 0.8 else f"{colour} {texture}"
    kind = rng.random()
    if kind < 0.5:
        caption = _pick(STYLE_TEMPLATES, rng).format(style)
        return f"{caption} on the {place}" if rng.random() < 0.25 else caption
    frame = _pick((*PAINTING_TEMPLATES, "a photo of a {}", "a {}"), rng)
    where = f" on the {place}" if rng.random() < 0.5 else ""
    if kind < 0.85:
        return frame.format(f"{shape} in the style of {style}") + where
    return frame.format(f"{colour} {texture} {shape}") + where


def _random_object_template(rng: np.random.Generator) -> str:
    return _pick(OBJECT_TEMPLATES, rng) if rng.random() < 0.6 else OBJECT_TEMPLATES[0]


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[rng.integers(len(choices))]
