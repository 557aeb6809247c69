"""The champion as the evaluation meets it: its rows from the registry, drawn as the candidate is, and compared."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.common.artifact_folder import sha256_of_file
from components.common.artifacts import (
    LEARNED_EMBEDS,
    LearnedEmbedding,
    Rows,
    Sample,
    learned_embeds_bytes,
    read_learned_embeds,
    row_widths,
)
from components.common.champion import TOGETHER, ChampionAddress, Gain, Judged
from components.common.errors import ArtifactError, ObjectNotFoundError
from components.common.learned_files import fetch_learned_embeds
from components.common.registry.entry import MANIFEST, FileRecord, RegistryEntry
from components.common.storage import open_store
from components.evaluate.config import EvaluateOptions
from components.evaluate.drawing.painter import Painter
from components.evaluate.drawing.samples import DrawnSamples, draw_variant
from components.evaluate.scoring.scores import METRICS, VariantScores, paired_gain

logger = logging.getLogger(__name__)

VARIANT = "champion"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opponent:
    """The version that a candidate is held against.

    Attributes:
        judged: what the candidate is held against, before anything is compared.
        rows: its rows, float32 [n, d] by text encoder; empty when the candidate is judged alone.
        header: the facts in the header of its file.
    """

    judged: Judged
    rows: Rows
    header: Mapping[str, str]

    @property
    def alone(self) -> str:
        """Why the candidate is judged alone, as the end of a sentence; empty when it is compared."""
        return self.judged.alone

    def compared(self, by_sample: Mapping[str, VariantScores], *, seed: int) -> Judged:
        """What the candidate was held against, with how much each score is above the champion's.

        Args:
            by_sample: the scores of each sample of the variants `after` and, unless it is judged alone, `champion`.
            seed: of the intervals.
        """
        if self.alone:
            return self.judged
        champion, candidate = (_compared_scores(by_sample[name]) for name in (VARIANT, "after"))
        gains = {name: paired_gain(champion[name], candidate[name], seed=seed) for name in champion}
        return dataclasses.replace(self.judged, gain={name: Gain(**vars(found)) for name, found in gains.items()})


def _compared_scores(found: VariantScores) -> dict[str, np.ndarray]:
    """What a variant is compared by, sample by sample, float64 [s] each."""
    scores = {metric: getattr(found, metric) for metric in METRICS}
    return {**scores, TOGETHER: sum(scores.values(), np.zeros_like(found.clip_i))}


def find_opponent(
    address: ChampionAddress, learned: LearnedEmbedding, folder: Path, base_model_digest: str
) -> Opponent:
    """The champion at `address`; what cannot be compared is told by a warning, and the candidate is judged alone.

    Args:
        address: as the registry said when the run began.
        learned: the candidate.
        folder: the artifact that it was read from.
        base_model_digest: of the model that it was trained on.

    Raises:
        StorageError: when the registry cannot be read.
    """
    judged = Judged(alias=address.alias, version=address.version, digest=address.digest, gain={}, alone="")

    def alone(reason: str, **kind: Any) -> Opponent:
        return Opponent(judged=dataclasses.replace(judged, alone=reason, **kind), rows={}, header={})

    if not address.version:
        return alone(f"the concept had no {address.alias}")
    name = f"the {address.alias} (version {address.version})"
    try:
        entry = RegistryEntry.from_bytes(open_store(address.uri).read(MANIFEST), address.uri)
        if entry.bundle_digest != address.digest:
            raise ArtifactError(f"{address.uri} was damaged or another version when the run began: run again")
        header, rows = _read_rows(entry)
        if entry.facts.lineage.get("base_model_digest") != base_model_digest:
            logger.warning("%s was learned on another base model: the candidate is judged alone", name)
            return alone(
                f"{name} was learned on another base model",
                on_another_model=True,
                of_another_kind=row_widths(rows) != row_widths(learned.rows),
            )
        if _record_of(entry).sha256 == sha256_of_file(folder / LEARNED_EMBEDS):
            return alone(f"it is {name} itself")
        _check_widths(entry, rows, learned)
    except (ArtifactError, ObjectNotFoundError) as error:
        logger.warning("%s cannot be used, and the candidate is judged alone: %s", name, error)
        return alone(f"{name} could not be used")
    return Opponent(judged=judged, rows=rows, header=header)


def with_champion(
    drawn: DrawnSamples, painter: Painter, config: EvaluateOptions, learned: LearnedEmbedding, opponent: Opponent
) -> DrawnSamples:
    """The samples with those of the champion, from the same prompts and seeds; its rows are in the painter afterwards.

    The champion enters as its users load it, though under a placeholder of its own: the candidate has the other.
    """
    placeholder = f"<champion-{opponent.judged.digest[:16]}>"
    own = dataclasses.replace(
        config, negative_prompt=config.negative_prompt.replace(learned.placeholder_token, placeholder)
    )
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / LEARNED_EMBEDS
        header = {**opponent.header, "placeholder_token": placeholder}
        file.write_bytes(learned_embeds_bytes(placeholder, opponent.rows, header))
        painter.load_concept(file)
    samples = draw_variant(painter, own, learned, VARIANT, placeholder)
    shown = tuple(_under(sample, placeholder, learned.placeholder_token) for sample in samples)
    variants = dict[str, tuple[Sample, ...]]()
    for name, found in drawn.variants.items():
        variants |= {name: found, **({VARIANT: shown} if name == "after" else {})}
    return dataclasses.replace(drawn, variants=variants)


def _under(sample: Sample, placeholder: str, shown: str) -> Sample:
    return dataclasses.replace(sample, prompt=sample.prompt.replace(placeholder, shown))


def _record_of(entry: RegistryEntry) -> FileRecord:
    if LEARNED_EMBEDS not in entry.files:
        raise ArtifactError(f"{entry.uri}/{MANIFEST} names no {LEARNED_EMBEDS}: restore it from a backup")
    return entry.files[LEARNED_EMBEDS]


def _read_rows(entry: RegistryEntry) -> tuple[dict[str, str], Rows]:
    with tempfile.TemporaryDirectory() as scratch:
        file = fetch_learned_embeds(f"{entry.uri}/{LEARNED_EMBEDS}", Path(scratch))
        _record_of(entry).check(file.read_bytes(), f"{entry.uri}/{LEARNED_EMBEDS}")
        return read_learned_embeds(file)


def _check_widths(entry: RegistryEntry, rows: Rows, learned: LearnedEmbedding) -> None:
    found, expected = row_widths(rows), row_widths(learned.rows)
    if found != expected:
        raise ArtifactError(
            f"{entry.uri}/{LEARNED_EMBEDS} has rows of the widths {found}, expected {expected}: restore it from a "
            "backup"
        )
