"""What the learned rows look like beside the vocabulary: their norms, and the words they came closest to.

Rows that grow far beyond the vocabulary's norms take over every prompt that they stand in (arXiv 2512.13672).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from components.common.artifacts import Rows

_NEAREST = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A text encoder's table, float32 [V, d], with the token of each row."""

    tokens: Sequence[str]
    table: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowHealth:
    """One learned row.

    Attributes:
        token: the token whose row it is.
        norm: its Euclidean norm.
        initial_norm: the same before training.
        norm_ratio: `norm` over the vocabulary's mean norm.
        cosine_to_initial: its cosine with the row that training started from.
        nearest: the nearest tokens of the vocabulary with their cosines, the nearest first.
    """

    token: str
    norm: float
    initial_norm: float
    norm_ratio: float
    cosine_to_initial: float
    nearest: tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderHealth:
    """The learned rows of a text encoder, and its vocabulary's norms: mean, 5th and 95th percentile."""

    encoder: str
    norm_mean: float
    norm_p5: float
    norm_p95: float
    rows: tuple[RowHealth, ...]


def embedding_health(
    tokens: Sequence[str], rows: Rows, initial_rows: Rows, vocabularies: Mapping[str, Vocabulary]
) -> tuple[EncoderHealth, ...]:
    """How the rows of each text encoder compare with its vocabulary. Rows that are not finite are left out.

    Args:
        tokens: the placeholder's tokens, n of them.
        rows: the learned rows, float32 [n, d] by text encoder.
        initial_rows: the rows before training, alike.
        vocabularies: the table without the placeholder, by text encoder.
    """
    return tuple(
        _encoder_health(encoder, tokens, rows[encoder], initial_rows[encoder], vocabularies[encoder])
        for encoder in sorted(rows)
    )


def largest_norm_ratio(health: Sequence[EncoderHealth]) -> float:
    """The largest norm of a learned row over its vocabulary's mean norm; 0 when there is no finite row."""
    return max((row.norm_ratio for encoder in health for row in encoder.rows), default=0.0)


def _encoder_health(
    encoder: str, tokens: Sequence[str], rows: np.ndarray, initial_rows: np.ndarray, vocabulary: Vocabulary
) -> EncoderHealth:
    norms = np.linalg.norm(vocabulary.table, axis=1)
    mean = float(norms.mean())
    low, high = np.quantile(norms, [0.05, 0.95])
    found = []
    for token, row, initial in zip(tokens, rows, initial_rows, strict=True):
        if not np.isfinite(row).all():
            continue
        norm = float(np.linalg.norm(row.astype(np.float64)))  # the square of a diverged row overflows float32
        direction = (row / max(norm, 1e-12)).astype(np.float32)
        cosines = vocabulary.table @ direction / np.maximum(norms, 1e-12)
        nearest = np.argsort(-cosines, kind="stable")[:_NEAREST]
        found.append(
            RowHealth(
                token=token,
                norm=norm,
                initial_norm=float(np.linalg.norm(initial)),
                norm_ratio=norm / max(mean, 1e-12),
                cosine_to_initial=float(direction @ initial / max(np.linalg.norm(initial), 1e-12)),
                nearest=tuple((readable(vocabulary.tokens[i]), float(cosines[i])) for i in nearest),
            )
        )
    return EncoderHealth(encoder=encoder, norm_mean=mean, norm_p5=float(low), norm_p95=float(high), rows=tuple(found))


def readable(token: str) -> str:
    """A token as a person reads it: `cat</w>` ends a word and is `cat`; `cat` begins one and is `cat…`."""
    return token.removesuffix("</w>") if token.endswith(("</w>", "|>")) else f"{token}…"
