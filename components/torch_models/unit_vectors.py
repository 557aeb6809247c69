"""Embeddings of length one, whose products are cosines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from components.common.errors import BaseModelError


def unit_vectors(features: torch.Tensor, folder: Path) -> np.ndarray:
    """The features [n, d], each divided by its length, as float32 on the host; `folder`: of the model that gave them.

    Raises:
        BaseModelError: when one is not finite: scores of it would be none.
    """
    found: np.ndarray = functional.normalize(features.float(), dim=-1).cpu().numpy()
    bad = int((~np.isfinite(found)).any(axis=-1).sum())
    if bad:
        raise BaseModelError(
            f"the scorer in {folder} gives {bad} of {len(found)} embeddings that are not finite: choose another scorer"
        )
    return found
