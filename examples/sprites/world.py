"""The pictures of the tiny world: one sticker of a colour, texture and shape on a pale place, 32 x 32 pixels.

Attributes travel as an integer array ``(N, 4)`` whose columns are indices into `COLOURS`, `TEXTURES`, `SHAPES` and
`PLACES`. Everything is drawn by numpy from signed distances, so a seed gives the same bytes on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE = 32
COLOURS = {
    "red": (222, 40, 40),
    "orange": (245, 140, 25),
    "yellow": (245, 215, 30),
    "green": (45, 165, 65),
    "cyan": (40, 190, 205),
    "blue": (50, 80, 220),
    "purple": (140, 60, 185),
    "black": (45, 45, 45),
}
TEXTURES = ("plain", "striped", "dotted")
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
PLACES = {"snow": (246, 246, 246), "sky": (188, 218, 246), "grass": (194, 232, 182), "rose": (248, 204, 214)}

# Never drawn for any model of the tiny world: what Textual Inversion is asked to learn.
HELD_OUT_OBJECTS = (
    ("purple", "dotted", "star"),
    ("orange", "striped", "heart"),
    ("cyan", "dotted", "cross"),
    ("green", "dotted", "triangle"),
    ("red", "dotted", "square"),
)
HELD_OUT_STYLE = ("yellow", "striped")

Attributes = NDArray[np.int64]
Pictures = NDArray[np.uint8]

_SUPERSAMPLING = 2
_STRIPE_PERIOD = 8.0
_DOT_SPACING = 8.0
_DOT_RADIUS = 2.5
_RENDER_CHUNK = 500


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Pictures with their attributes, and for each the noun that names it (or None)."""

    pictures: Pictures
    attributes: Attributes
    nouns: list[str | None]

    def __post_init__(self) -> None:
        """Checks that the three agree in length."""
        if not len(self.pictures) == len(self.attributes) == len(self.nouns):
            raise ValueError(
                f"{len(self.pictures)} pictures, {len(self.attributes)} attribute rows and {len(self.nouns)} nouns: "
                "expected one of each per picture"
            )


def attributes_of(colour: str, texture: str, shape: str, place: str) -> Attributes:
    """The attribute row ``(4,)`` of four words; raises ValueError for a word the world does not have."""
    columns = {"colour": tuple(COLOURS), "texture": TEXTURES, "shape": SHAPES, "place": tuple(PLACES)}
    indices = []
    for (name, known), word in zip(columns.items(), (colour, texture, shape, place), strict=True):
        if word not in known:
            raise ValueError(f"unknown {name} {word!r}: expected one of {', '.join(known)}")
        indices.append(known.index(word))
    return np.array(indices)


def words_of(attributes: Attributes) -> tuple[str, str, str, str]:
    """The colour, texture, shape and place words of one attribute row ``(4,)``."""
    colour, texture, shape, place = (int(v) for v in attributes)
    return tuple(COLOURS)[colour], TEXTURES[texture], SHAPES[shape], tuple(PLACES)[place]


def is_held_out(attributes: Attributes) -> bool:
    """Whether the combination of one row ``(4,)`` is kept out of all training."""
    colour, texture, shape, _ = words_of(attributes)
    return (colour, texture, shape) in HELD_OUT_OBJECTS or (colour, texture) == HELD_OUT_STYLE


def all_combinations() -> Attributes:
    """Every colour x texture x shape ``(144, 4)``, the places taking turns."""
    rows = [(c, t, s) for s in range(len(SHAPES)) for t in range(len(TEXTURES)) for c in range(len(COLOURS))]
    return np.array([(*row, i % len(PLACES)) for i, row in enumerate(rows)])


def draw_pictures(attributes: Attributes, rng: np.random.Generator, *, size: int = SIZE) -> Pictures:
    """Pictures uint8 ``(N, size, size, 3)`` of the attribute rows ``(N, 4)``, jittered in size, place and angle.

    A larger picture has as large a sticker, with more of the place around it.
    """
    chunks = [attributes[i : i + _RENDER_CHUNK] for i in range(0, len(attributes), _RENDER_CHUNK)]
    return np.concatenate([_draw_chunk(chunk, rng, size) for chunk in chunks])


def draw_dataset(count: int, *, seed: int, nouns: dict[str, tuple[str, str, str]], size: int = SIZE) -> Dataset:
    """A dataset of `count` pictures without the held-out combinations; about a third are bundles that a noun names."""
    rng = np.random.default_rng(seed)
    names = list(nouns)
    rows: list[Attributes] = []
    chosen: list[str | None] = []
    while len(rows) < count:
        place = rng.integers(len(PLACES))
        if rng.random() < 0.35:
            noun = names[rng.integers(len(names))]
            row, name = attributes_of(*nouns[noun], tuple(PLACES)[place]), noun
        else:
            row = np.array([rng.integers(len(COLOURS)), rng.integers(len(TEXTURES)), rng.integers(len(SHAPES)), place])
            name = None
        if not is_held_out(row):
            rows.append(row)
            chosen.append(name)
    attributes = np.stack(rows)
    return Dataset(pictures=draw_pictures(attributes, rng, size=size), attributes=attributes, nouns=chosen)


def _draw_chunk(attributes: Attributes, rng: np.random.Generator, size: int) -> Pictures:
    count = len(attributes)
    colour, texture, shape, place = attributes.T
    x, y, radius = _sticker_coordinates(count, rng, size)
    distance = np.empty_like(x)
    for index, name in enumerate(SHAPES):
        chosen = shape == index
        if chosen.any():
            distance[chosen] = signed_distance(name, x[chosen], y[chosen], radius[chosen])
    coverage = np.clip(0.5 - distance * _SUPERSAMPLING, 0, 1)[..., None]
    first = np.array(list(COLOURS.values()), float)[colour][:, None, None]
    second = np.array([second_tone(c) for c in COLOURS.values()])[colour][:, None, None]
    background = np.array(list(PLACES.values()), float)[place][:, None, None]
    image = np.where(_texture_mask(texture, x, y)[..., None], second, first) * coverage + background * (1 - coverage)
    image = image.reshape(count, size, _SUPERSAMPLING, size, _SUPERSAMPLING, 3).mean((2, 4))
    return np.clip(image + rng.normal(0, 1, image.shape), 0, 255).astype(np.uint8)


def _sticker_coordinates(count: int, rng: np.random.Generator, size: int) -> tuple[NDArray, NDArray, NDArray]:
    """x and y ``(N, 2 size, 2 size)`` in pixels from the sticker's centre, turned with it; its radius ``(N, 1, 1)``."""
    grid = (np.arange(size * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING - size / 2
    y, x = np.meshgrid(grid, grid, indexing="ij")
    radius = rng.uniform(11.2, 12.4, (count, 1, 1))
    x = x - rng.uniform(-1.5, 1.5, (count, 1, 1))
    y = y - rng.uniform(-1.5, 1.5, (count, 1, 1))
    angle = rng.uniform(-0.1, 0.1, (count, 1, 1))
    return x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle), radius


def second_tone(colour: tuple[int, int, int]) -> NDArray[np.float64]:
    """The tone ``(3,)`` of a colour's stripes and dots: darker, but grey on black."""
    tone = np.array(colour, float)
    return np.full(3, 135.0) if tone.mean() < 60 else tone * 0.38


def _texture_mask(texture: NDArray[np.int64], x: NDArray, y: NDArray) -> NDArray[np.bool_]:
    """Where the second tone goes ``(N, H, W)``."""
    stripes = np.mod(y + _STRIPE_PERIOD / 4, _STRIPE_PERIOD) < _STRIPE_PERIOD / 2
    row = np.floor(y / _DOT_SPACING + 0.5)
    dot_x = np.mod(x + (row % 2) * _DOT_SPACING / 2 + _DOT_SPACING / 2, _DOT_SPACING) - _DOT_SPACING / 2
    dots = np.hypot(dot_x, y - row * _DOT_SPACING) < _DOT_RADIUS
    kind = texture[:, None, None]
    return np.where(kind == TEXTURES.index("striped"), stripes, (kind == TEXTURES.index("dotted")) & dots)


def signed_distance(shape: str, x: NDArray, y: NDArray, radius: NDArray) -> NDArray:
    """A distance in pixels to the outline of a shape, negative inside; y points down."""
    match shape:
        case "circle":
            return np.hypot(x, y) - radius * 0.95
        case "square":
            return np.maximum(np.abs(x), np.abs(y)) - radius * 0.86
        case "cross":
            upright = np.maximum(np.abs(x) - radius * 0.36, np.abs(y) - radius)
            return np.minimum(upright, np.maximum(np.abs(y) - radius * 0.36, np.abs(x) - radius))
        case "triangle":
            y = y - radius * 0.08
            return np.maximum(np.abs(x) * 0.894 - (y + radius) * 0.447, y - radius * 0.8)
        case "star":
            return _star_distance(x, y - radius * 0.06, radius * 1.16)
        case "heart":
            u, v = np.abs(x) / radius, 0.1 - y / radius
            lobe = np.hypot(u - 0.48, v - 0.38) - 0.54
            wedge = np.maximum((u * 0.72 - (v + 1.0) * 0.62) / 0.95, v - 0.38)
            return np.minimum(lobe, np.maximum(wedge, u - 1.1)) * radius
    raise ValueError(f"unknown shape {shape!r}: expected one of {SHAPES}")


def _star_distance(x: NDArray, y: NDArray, radius: NDArray) -> NDArray:
    """The distance to a five-pointed star: folded into one half of a point, one straight edge is left."""
    step = 2 * np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + step / 2) % step - step / 2)
    along, across = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * np.sin(angle)
    edge_x = 0.45 * radius * np.cos(step / 2) - radius
    edge_y = 0.45 * radius * np.sin(step / 2)
    return ((along - radius) * edge_y - across * edge_x) / np.hypot(edge_x, edge_y)
