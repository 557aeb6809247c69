from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from components.common.pages.pictures import LADDER, Rung, embed_picture
from tests.evaluate.contents import pattern


def decoded(uri: str) -> np.ndarray:
    kind, data = uri.split(",", 1)
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_tiny_picture_is_kept_to_the_pixel():
    found = embed_picture(pattern(0, 32), "a disc", LADDER[0])

    np.testing.assert_array_equal(decoded(found.uri), pattern(0, 32))
    assert (found.width, found.height, found.is_tiny, found.alt) == (32, 32, True, "a disc")


def test_large_picture_is_made_smaller_without_changing_its_shape():
    wide = np.concatenate([pattern(0, 600), pattern(1, 600)], axis=1)
    found = embed_picture(wide, "two discs", Rung(300, 80))

    assert decoded(found.uri).shape == (150, 300, 3)
    assert (found.width, found.height, found.is_tiny) == (300, 150, False)
    difference = decoded(found.uri).astype(float) - np.asarray(Image.fromarray(wide).resize((300, 150)), float)
    assert np.abs(difference).mean() < 5


def test_rungs_become_smaller():
    noise = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    sizes = [len(embed_picture(noise, "noise", rung).uri) for rung in LADDER]

    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 20
