"""Where the pictures come from, and what is done to them."""

from __future__ import annotations

import dataclasses

from components.common.errors import ConfigError

INTERPOLATIONS = ("linear", "bilinear", "bicubic", "lanczos", "nearest")
"""The reference script's names; `linear` and `bilinear` are the same."""

SMALL_IMAGES = ("warn", "refuse")

DESCRIPTIONS = {
    "images_uri": "folder of example pictures: gs://, s3://, a local folder, or hf://datasets/owner/name[@revision]",
    "fallback_images_uri": "used when images_uri is empty",
    "images_fingerprint": "listing that the source must still have, from the preflight step; empty: any",
    "resolution": "side of the square that every picture becomes, in pixels",
    "interpolation": "how pictures are resized: " + ", ".join(INTERPOLATIONS),
    "center_crop": "cut the largest square out of the middle; otherwise the picture is squeezed into one",
    "small_images": "what to do with a picture smaller than the resolution: " + " or ".join(SMALL_IMAGES),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """The parameters of the step; `DESCRIPTIONS` says what each one is. Defaults are the reference script's.

    Raises:
        ConfigError: for a value that cannot be right, naming the field.
    """

    images_uri: str = ""
    fallback_images_uri: str = ""
    images_fingerprint: str = ""
    resolution: int = 512
    interpolation: str = "bicubic"
    center_crop: bool = False
    small_images: str = "warn"

    def __post_init__(self) -> None:
        if not self.source:
            raise ConfigError(f"images_uri: found nothing, expected a {DESCRIPTIONS['images_uri']}")
        if self.resolution < 1:
            raise ConfigError(f"resolution: found {self.resolution}, expected a number of pixels such as 512")
        for name, choices in (("interpolation", INTERPOLATIONS), ("small_images", SMALL_IMAGES)):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}: found {getattr(self, name)!r}, expected one of {', '.join(choices)}")

    @property
    def source(self) -> str:
        """The address that is used: `images_uri`, or `fallback_images_uri` where that is empty."""
        return self.images_uri.strip() or self.fallback_images_uri.strip()
