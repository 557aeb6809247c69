"""How long rows may be, and how far a step may carry them: said in norms of the vocabulary's token embeddings."""

from __future__ import annotations

import numpy as np

from components.common.training.config import TrainConfig

LONG_STEP = 0.5
"""Share of a row's norm that a step should not exceed: with .47 the tiny world's concepts are learned, with 14 not."""
LONG_STEP_AT_HELD_NORM = 2.0
"""The same for rows that are kept from growing: with 1.4 the tiny world's concepts are learned, as the rate falls."""


def wanted_norms(config: TrainConfig, initial_rows: np.ndarray, vocabulary_norm: float) -> np.ndarray | None:
    """The norm that each row is held to after a step, float64 [n, 1]; None where rows are left alone.

    With `norm_control` cap it is the largest that a row may have.

    Args:
        config: names the control and the norm.
        initial_rows: the rows before the first step, float32 [n, d].
        vocabulary_norm: the mean norm of the vocabulary's token embeddings.
    """
    if not config.holds_norm:
        return None
    if config.norm_control == "fixed":
        return np.linalg.norm(initial_rows.astype(np.float64), axis=1, keepdims=True)
    norm = (config.max_embedding_norm or 1.0) * vocabulary_norm
    return np.full((len(initial_rows), 1), norm)


def long_step_warning(config: TrainConfig, *, peak_learning_rate: float, typical_element: float) -> str:
    """What to tell of a learning rate whose steps are long beside the rows; empty when they are not.

    One of Adam's steps moves every element of a row by up to the learning rate.

    Args:
        config: says whether rows are kept from growing.
        peak_learning_rate: the learning rate at its highest, after `scale_lr`.
        typical_element: of the vocabulary's token embeddings: their mean norm by the square root of their width.
    """
    share = peak_learning_rate / typical_element
    limit = LONG_STEP_AT_HELD_NORM if config.holds_norm else LONG_STEP
    if share <= limit:
        return ""
    return (
        f"learning_rate: found {peak_learning_rate:.1e} after scale_lr, whose steps are {share:.1f} times as long as a "
        f"word's row, expected at most {limit * typical_element:.1e}, {limit} times: the rows will outgrow "
        "the vocabulary or jump about; lower learning_rate"
    )
