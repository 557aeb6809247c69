"""What differs between two versions: how they were trained, on what, how they score, and the rows themselves."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.common.artifacts import LEARNED_EMBEDS, Rows, read_learned_embeds
from components.common.errors import ArtifactError
from components.common.foreign_json import parse_json
from components.common.registry.entry import RegistryEntry
from components.common.registry.registry import read_file

CONFIG = "config.json"
"""The file of a version that says how it was trained and sampled."""

Pair = tuple[Any, Any]
"""What the one has and what the other has; None where it has nothing of that name."""

_BASE_MODEL = ("base_model", "base_model_revision", "base_model_digest")
_PICTURES = ("image_set_digest", "latent_set_digest")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowPair:
    """One vector in both versions.

    Attributes:
        encoder: its text encoder.
        vector: its place among the placeholder's, from 0.
        cosine: of the angle between the two; None where one is zero or they are of different widths.
        norms: Euclidean lengths.
    """

    encoder: str
    vector: int
    cosine: float | None
    norms: tuple[float | None, float | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What differs between two versions; what is the same is left out, but for scores and rows.

    Attributes:
        versions: their numbers.
        options: training parameters and settings of the samples that differ, by name.
        base_model: source, revision and digest where they differ.
        pictures: digests of the prepared pictures and their latents where they differ.
        scores: of the learned concept by metric: both and the second minus the first.
        rows: every vector.
        files: names of files that differ, each with the SHA-256 of both.
    """

    versions: tuple[int, int]
    options: Mapping[str, Pair]
    base_model: Mapping[str, Pair]
    pictures: Mapping[str, Pair]
    scores: Mapping[str, tuple[float | None, float | None, float | None]]
    rows: tuple[RowPair, ...]
    files: Mapping[str, Pair]


def compare_versions(one: RegistryEntry, other: RegistryEntry) -> Comparison:
    """What differs between two published versions.

    Raises:
        ArtifactError: when one of them is damaged.
        StorageError: when its files cannot be read.
    """
    both = (one, other)
    scores = [entry.facts.scores.get("after", {}) for entry in both]
    metrics = sorted({*scores[0], *scores[1]})

    def lineages(names: Sequence[str]) -> list[dict[str, Any]]:
        return [{name: entry.facts.lineage.get(name) for name in names} for entry in both]

    return Comparison(
        versions=(one.version, other.version),
        options=_differing(*map(_options, both)),
        base_model=_differing(*lineages(_BASE_MODEL)),
        pictures=_differing(*lineages(_PICTURES)),
        scores={name: _with_difference(*(each.get(name) for each in scores)) for name in metrics},
        rows=tuple(_row_pairs(*map(_rows, both))),
        files=_differing(*({name: record.sha256 for name, record in entry.files.items()} for entry in both)),
    )


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Pair]:
    names = sorted({*one, *other})
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}


def _with_difference(one: float | None, other: float | None) -> tuple[float | None, float | None, float | None]:
    return one, other, None if one is None or other is None else other - one


def _options(entry: RegistryEntry) -> dict[str, Any]:
    """The options of a version by name; those of its samples with `evaluation_` before, as on the form."""
    try:
        found = parse_json(read_file(entry, CONFIG))
        plain = {name: found[name] for name in ("initializer_token", "learnable_property", "placeholder_token")}
        return {
            **plain,
            **found["training"],
            **{f"evaluation_{key}": each for key, each in found["evaluation"].items()},
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{entry.uri}/{CONFIG} does not say how the version was made ({type(error).__name__}: {error}): it was not "
            "written by this project; compare other versions"
        ) from error


def _rows(entry: RegistryEntry) -> Rows:
    data = read_file(entry, LEARNED_EMBEDS)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / LEARNED_EMBEDS
        file.write_bytes(data)
        try:
            return read_learned_embeds(file)[1]
        except ArtifactError as error:
            raise ArtifactError(str(error).replace(scratch, entry.uri)) from error


def _row_pairs(one: Rows, other: Rows) -> Iterable[RowPair]:
    for encoder in sorted({*one, *other}):
        pairs = itertools.zip_longest(one.get(encoder, ()), other.get(encoder, ()))
        for vector, (first, second) in enumerate(pairs):
            yield RowPair(
                encoder=encoder, vector=vector, cosine=_cosine(first, second), norms=(_norm(first), _norm(second))
            )


def _norm(row: np.ndarray | None) -> float | None:
    return None if row is None else float(np.linalg.norm(row.astype(np.float64)))


def _cosine(one: np.ndarray | None, other: np.ndarray | None) -> float | None:
    if one is None or other is None or one.shape != other.shape or not one.any() or not other.any():
        return None
    one, other = one.astype(np.float64), other.astype(np.float64)
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
