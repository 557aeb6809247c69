"""What a pipeline's publishing step does: it publishes what was learned, and says so; or says why it does not."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.common.artifact_folder import write_artifact
from components.common.artifacts import Evaluation
from components.common.base_model import read_reference
from components.common.cli import tell_event
from components.common.errors import TextualInversionError
from components.common.printable import printable
from components.publish.config import PublishConfig
from components.publish.destinations.pushing import destinations_of, push_everywhere
from components.publish.outcome import Outcome
from components.publish.publish import ENTRY_KIND, ENTRY_VERSION, Published, publish_and_promote

logger = logging.getLogger(__name__)

NOT_PUBLISHED = "not published: "
"""What the step's answer begins with when nothing was learned; else it begins with the version's address."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said:
    """The step's answer, and the facts that stand beside its artifact."""

    text: str
    metadata: dict[str, Any]


def answer(words: Sequence[Said]) -> str:
    """What the step answers: the text of the only word, or a line for each of several that begins with its name."""
    if len(words) == 1:
        return words[0].text
    return "\n".join(printable(f"{said.metadata['placeholder_token']}: {said.text}") for said in words)


def publish_if_learned(
    config: PublishConfig, *, base_model: Path, learned_embedding: Path, evaluation: Path, output: Path
) -> Said:
    """The address of the published version, or `not published: ...` when the evaluation did not pass.

    After the address stands why the alias does not point at the version, where it does not.

    Args:
        config: where, and under which name and alias.
        base_model: folder of the reference to the base model that it was trained on.
        learned_embedding: folder of the `LearnedEmbedding`.
        evaluation: folder of its `Evaluation`.
        output: folder for the registry entry; without one, for the word that there is none and why.

    Raises:
        DestinationError: when the version is published and a further destination that is required does not have it.
        ArtifactError: when an artifact, or what the registry holds already, is damaged.
        InputError: when the inputs do not belong together.
        StorageError: when the registry cannot be written.
    """
    verdict = Evaluation.read(evaluation)
    if not verdict.passed:
        text = NOT_PUBLISHED + "; ".join(verdict.reasons)
        logger.warning("%s", text)
        _tell_outcome(config, None, learned_embedding, evaluation)
        content = {"published": False, "reasons": list(verdict.reasons)}
        write_artifact(output, kind=ENTRY_KIND, version=ENTRY_VERSION, content=content, files={})
        metadata = {
            "published": False,
            "placeholder_token": verdict.placeholder_token,
            "reasons": " ".join(verdict.reasons),
        }
        return Said(text=text, metadata=metadata)
    published = publish_and_promote(
        config, base_model=base_model, learned_embedding=learned_embedding, evaluation=evaluation, output=output
    )
    entry, promotion = published.entry, published.promotion
    logger.info(
        "published %s as version %d of %s: %s", entry.facts.placeholder_token, entry.version, entry.concept, entry.uri
    )
    _tell_outcome(config, published, learned_embedding, evaluation)
    addresses = push_everywhere(
        destinations_of(config, lambda _: read_reference(base_model)),
        entry,
        registry_uri=config.registry_uri,
        required=config.destinations_required,
    )
    return Said(
        text=entry.uri if promotion.promoted else f"{entry.uri} {promotion.sentence}",
        metadata={
            "published": True,
            "entry_uri": entry.uri,
            "concept": entry.concept,
            "version": entry.version,
            "placeholder_token": entry.facts.placeholder_token,
            "promoted": promotion.promoted,
            "promotion": promotion.sentence,
            **addresses,
        },
    )


def _tell_outcome(
    config: PublishConfig, published: Published | None, learned_embedding: Path, evaluation: Path
) -> None:
    """Tells alerts what the run came to; a warning where its metrics cannot be written, since the rest is done."""
    outcome = Outcome.of(config, published, learned_embedding=learned_embedding, evaluation=evaluation)
    tell_event("result", outcome.as_json())
    if config.metrics_uri:
        try:
            logger.info("the run's metrics are %s", outcome.write_metrics(config.metrics_uri, time.time()))
        except TextualInversionError as error:
            logger.warning("the run's metrics were not written: %s", error)
