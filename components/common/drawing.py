"""What drawing has in common in both frameworks: samplers and precisions by name, pixels as bytes, how far it is."""

from __future__ import annotations

import logging

import numpy as np

logger = logging.getLogger(__name__)

SAMPLERS = ("auto", "ddim", "dpm-solver++", "euler")
SAMPLER_MEANING = (
    "what draws pictures: auto is the sampler that the base model names, in JAX DDIM; DPM-Solver++ (2M) wants half of "
    "its steps or less"
)
PRECISIONS = ("auto", "fp32", "fp16", "bf16")
PRECISION_MEANING = "in what pictures are computed: auto is fp32 on CPUs, fp16 on GPUs, bf16 on TPUs"
BATCH_SIZE = 4
BATCH_SIZE_MEANING = "pictures drawn at once; it changes speed and memory, not the pictures"


def picture_bytes(picture: np.ndarray) -> np.ndarray:
    """The picture (float [H, W, 3], 0 to 1) as uint8 0 to 255; black, with a warning, where it is not finite."""
    if not np.isfinite(picture).all():
        logger.warning("a picture has pixels that are not finite: it is left black")
        return np.zeros(picture.shape, np.uint8)
    return (picture * 255).round().astype(np.uint8)


def is_blank(picture: np.ndarray) -> bool:
    """Whether a picture, uint8 [H, W, 3], is of one value, as those are that were not finite."""
    return bool(picture.min() == picture.max())


def progress_line(label: str, done: int, total: int, seconds: float, unit: str = "img/s") -> str:
    """A line such as `sampling 12/48  1.3 img/s  eta 0:27`."""
    rate = done / max(seconds, 1e-9)
    minutes, rest = divmod(round((total - done) / rate), 60)
    return f"{label} {done:{len(str(total))}d}/{total}  {rate:.2g} {unit}  eta {minutes}:{rest:02d}"
