"""Where the pictures come from, and what is done to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from components.common.families import FAMILIES
from components.common.options import Config, option

INTERPOLATIONS = ("linear", "bilinear", "bicubic", "lanczos", "nearest")
"""The reference script's names; `linear` and `bilinear` are the same."""

SMALL_IMAGES = ("warn", "refuse")

_USUAL = ", ".join(f"{family.usual_resolution} for {family.title}" for family in FAMILIES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureOptions(Config):
    """What is done to the pictures. Defaults are the reference script's."""

    title = "Pictures"

    resolution: int = option(
        f"side of the square that every picture becomes, in pixels; usual are {_USUAL}", 512, least=1
    )
    interpolation: str = option("how pictures are resized", "bicubic", choices=INTERPOLATIONS)
    center_crop: bool = option(
        "cut the largest square out of the middle; otherwise the picture is squeezed into one", False
    )
    small_images: str = option("what to do with a picture smaller than the resolution", "warn", choices=SMALL_IMAGES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class IngestConfig(PictureOptions):
    """What the step is told: the pictures, and what is done to them."""

    images_uri: str = option(
        "folder of example pictures: gs://, s3://, a local folder, or hf://datasets/owner/name[@revision]"
    )
    images_fingerprint: str = option("listing that the source must still have, from the preflight step; empty: any", "")

    def find_mistakes(self) -> Iterable[str]:
        """See `Config.find_mistakes`."""
        if not self.images_uri:
            yield "images_uri: found nothing, expected a folder of example pictures"
