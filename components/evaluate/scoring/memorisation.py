"""Whether samples are copies of training pictures: their nearest ones, and from where on near is a copy.

Legend of shapes: s samples, t training pictures, d width of CLIP's space.

How near a copy is depends on the scorer and the pictures, so the threshold is measured: it is the least cosine of a
training picture with light edits of itself (its mirror image, its middle nine tenths, a tenth brighter), which
everybody would call a copy; and no less than the greatest cosine of a training picture with another real picture, one
of training or of scoring, for what is no nearer than these is another picture of the same thing. Published work has
fixed thresholds for one model (arXiv 2212.03860 for SSCD), which say nothing of another. On the tiny world, whose
scorer sees little but the kind of thing, edits and training pictures alone called 20 to 100% of the scoring pictures
copies, and 33 to 92% of what the true caption draws, which are none; with the scoring pictures 0 to 8% of the latter,
and still every copy with a little noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

_KEPT = 0.9
_BRIGHTER = 1.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nearest:
    """The nearest training picture of each sample.

    Attributes:
        picture: which one it is, int [s].
        cosine: how near, float64 [s].
        threshold: a sample that is nearer counts as a copy.
    """

    picture: np.ndarray
    cosine: np.ndarray
    threshold: float

    @property
    def memorised(self) -> np.ndarray:
        """1 for each sample that counts as a copy, else 0, float64 [s]."""
        return (self.cosine > self.threshold).astype(np.float64)

    def first(self, count: int) -> list[int]:
        """The samples that are nearest to a training picture, the nearest first."""
        return [int(sample) for sample in np.argsort(-self.cosine, kind="stable")[:count]]


def light_edits(picture: np.ndarray) -> list[np.ndarray]:
    """Copies of a picture, uint8 [H, W, 3], that somebody changed a little: mirrored, cropped, brightened."""
    image = Image.fromarray(picture)
    side = np.array(image.size)
    margin = (side * (1 - _KEPT) / 2).round().astype(int)
    box = (*margin.tolist(), *(side - margin).tolist())
    cropped = image.resize(image.size, Image.Resampling.BICUBIC, box=box)
    brighter = ImageEnhance.Brightness(image).enhance(_BRIGHTER)
    return [np.asarray(each) for each in (ImageOps.mirror(image), cropped, brighter)]


def copy_threshold(training: np.ndarray, edits: Sequence[np.ndarray], others: np.ndarray) -> float:
    """Above which cosine a picture is a copy of a training picture.

    Args:
        training: unit embeddings of the training pictures, [t, d].
        edits: unit embeddings of each one's `light_edits`, [edits, d] each.
        others: unit embeddings of the scoring pictures that were not trained on, [others, d], or none of them.
    """
    training = np.asarray(training, np.float64)
    least = min(float((np.asarray(each, np.float64) @ own).min()) for own, each in zip(training, edits, strict=True))
    between = (training @ training.T)[np.triu_indices(len(training), k=1)]
    beside = np.asarray(others, np.float64) @ training.T
    return max(least, float(between.max(initial=-1.0)), float(beside.max(initial=-1.0)))


def nearest_training_pictures(samples: np.ndarray, training: np.ndarray, threshold: float) -> Nearest:
    """The nearest of the training pictures for each sample, from unit embeddings [s, d] and [t, d]."""
    pairs = np.asarray(samples, np.float64) @ np.asarray(training, np.float64).T
    return Nearest(picture=pairs.argmax(axis=1), cosine=pairs.max(axis=1), threshold=threshold)
