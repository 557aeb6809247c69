"""A judge of the tiny world's pictures that learns nothing: it measures shape, colour, texture and place.

It knows how the world is drawn, and nothing about any model: the shape is the one whose drawn silhouette overlaps
most, the colour is the one between whose two tones the sticker's pixels lie, the texture follows from how much of the
second tone there is and whether it lies in rows, and the place is the nearest background.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from examples.sprites.world import (
    COLOURS,
    PLACES,
    SHAPES,
    SIZE,
    Attributes,
    attributes_of,
    draw_pictures,
    second_tone,
    words_of,
)

ATTRIBUTES = ("colour", "texture", "shape", "place")

_SILHOUETTE_CONTRAST = 55  # levels of 255 by which one channel must differ from the background
_SMALLEST_STICKER = 20  # pixels
_REFERENCES = 24  # drawn silhouettes a shape is compared with
# The limits lie in the middle between what was measured on 1152 pictures: the deviation is .00-.07 for plain and
# .41-.50 for the others, the part between rows .28-.56 for dotted and .88-1.0 for striped.
_PLAIN_DEVIATION = 0.24
_STRIPED_BETWEEN_ROWS = 0.72
_ANGLES = np.linspace(-0.12, 0.12, 9)  # radians; the world turns its stickers by up to 0.1


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one picture shows.

    Attributes:
        colour, texture, shape, place: the words.
        overlap: the intersection over union, 0 to 1, with the best drawn silhouette of that shape.
    """

    shape: str
    colour: str
    texture: str
    place: str
    overlap: float


def judge(picture: NDArray[np.uint8]) -> Verdict:
    """What a picture uint8 ``(32, 32, 3)`` shows; always an answer, even for noise: look at `overlap` too."""
    background = _background(picture)
    silhouette = _silhouette(picture, background)
    overlap, shape = max((_best_overlap(silhouette, shape), shape) for shape in SHAPES)
    inside = _eroded(silhouette)
    pixels = picture[inside].astype(float)
    colour = min(COLOURS, key=lambda name: _tone_distance(pixels, name).mean() if len(pixels) else 0.0)
    return Verdict(
        shape=shape,
        colour=colour,
        texture=_texture(inside, _second_tone_share(pixels, colour)),
        place=min(PLACES, key=lambda name: float(np.linalg.norm(background - PLACES[name]))),
        overlap=overlap,
    )


def agreement(pictures: Iterable[NDArray[np.uint8]], attributes: Attributes) -> dict[str, NDArray[np.bool_]]:
    """For each of `ATTRIBUTES`, whether the judge sees in each picture what its row ``(4,)`` of `attributes` says."""
    verdicts = [judge(picture) for picture in pictures]
    wanted = [dict(zip(ATTRIBUTES, words_of(row), strict=True)) for row in attributes]
    return {
        name: np.array([getattr(v, name) == w[name] for v, w in zip(verdicts, wanted, strict=True)])
        for name in ATTRIBUTES
    }


def _background(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The median colour ``(3,)`` of the frame."""
    frame = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    return np.median(frame.astype(float), axis=0)


def _silhouette(picture: NDArray[np.uint8], background: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.abs(picture.astype(float) - background).max(-1) > _SILHOUETTE_CONTRAST


def _centred(silhouette: NDArray[np.bool_]) -> NDArray[np.bool_]:
    y, x = np.nonzero(silhouette)
    if len(y) < _SMALLEST_STICKER:
        return silhouette
    middle = (SIZE - 1) / 2
    return np.roll(silhouette, (round(middle - y.mean()), round(middle - x.mean())), (0, 1))


@cache
def _reference_silhouettes(shape: str) -> NDArray[np.bool_]:
    """Drawn silhouettes ``(24, 32, 32)`` of one shape in all the sizes and angles that the world has."""
    rows = np.tile(attributes_of("blue", "plain", shape, "snow"), (_REFERENCES, 1))
    pictures = draw_pictures(rows, np.random.default_rng(5))
    return np.stack([_centred(_silhouette(picture, _background(picture))) for picture in pictures])


def _best_overlap(silhouette: NDArray[np.bool_], shape: str) -> float:
    mask, references = _centred(silhouette), _reference_silhouettes(shape)
    both = (references & mask).sum((1, 2))
    return float((both / np.maximum(1, (references | mask).sum((1, 2)))).max())


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels whose four neighbours are inside as well: those of the outline are mixed with the background."""
    padded = np.pad(mask, 1)
    return mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _tones(colour: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array(COLOURS[colour], float), second_tone(COLOURS[colour])


def _second_tone_share(pixels: NDArray[np.float64], colour: str) -> NDArray[np.float64]:
    """How far each pixel ``(N, 3)`` lies from the first (0) to the second (1) tone of a colour."""
    first, second = _tones(colour)
    way = second - first
    return np.clip((pixels - first) @ way / (way @ way), 0, 1)


def _tone_distance(pixels: NDArray[np.float64], colour: str) -> NDArray[np.float64]:
    """The distance ``(N,)`` of each pixel to the line between the two tones of a colour."""
    first, second = _tones(colour)
    return np.linalg.norm(pixels - first - _second_tone_share(pixels, colour)[:, None] * (second - first), axis=1)


def texture_statistics(inside: NDArray[np.bool_], share: NDArray[np.float64]) -> tuple[float, float]:
    """The deviation of the second tone's share, and how much of its variance lies between rows (0 to 1).

    The rows are those of the best of several small angles; a row is one pixel high.
    """
    if len(share) < _SMALLEST_STICKER or share.std() == 0:
        return 0.0, 0.0
    y, x = np.nonzero(inside)
    between = []
    for angle in _ANGLES:
        row = np.round(y * np.cos(angle) + x * np.sin(angle)).astype(int)
        row -= row.min()
        count = np.bincount(row)
        mean = np.bincount(row, share) / np.maximum(1, count)
        between.append(float((count * (mean - share.mean()) ** 2).sum() / len(share)))
    return float(share.std()), max(between) / float(share.var())


def _texture(inside: NDArray[np.bool_], share: NDArray[np.float64]) -> str:
    deviation, between_rows = texture_statistics(inside, share)
    if deviation < _PLAIN_DEVIATION:
        return "plain"
    return "striped" if between_rows > _STRIPED_BETWEEN_ROWS else "dotted"
