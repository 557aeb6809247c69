"""What drawing has in common in both frameworks: pixels as bytes, and a line that says how far it is."""

from __future__ import annotations

import logging

import numpy as np

logger = logging.getLogger(__name__)


def picture_bytes(picture: np.ndarray) -> np.ndarray:
    """The picture (float [H, W, 3], 0 to 1) as uint8 0 to 255; black, with a warning, where it is not finite."""
    if not np.isfinite(picture).all():
        logger.warning("a picture has pixels that are not finite: it is left black")
        return np.zeros(picture.shape, np.uint8)
    return (picture * 255).round().astype(np.uint8)


def progress_line(label: str, done: int, total: int, seconds: float, unit: str = "img/s") -> str:
    """A line such as `sampling 12/48  1.3 img/s  eta 0:27`."""
    rate = done / max(seconds, 1e-9)
    minutes, rest = divmod(round((total - done) / rate), 60)
    return f"{label} {done:{len(str(total))}d}/{total}  {rate:.2g} {unit}  eta {minutes}:{rest:02d}"
