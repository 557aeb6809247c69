"""The publishing step: an evaluated embedding becomes an immutable version, and an alias moves to it."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from components.common.artifact_folder import write_artifact
from components.common.artifacts import LEARNED_EMBEDS, Evaluation
from components.common.base_model import read_reference
from components.common.champion import judged_in
from components.common.errors import TextualInversionError
from components.common.logs import log_config, versions
from components.common.registry.entry import MANIFEST, Bundle, FileRecord, RegistryEntry
from components.common.registry.registry import concept_store
from components.common.registry.versions import mend_files, publish_version, read_entries
from components.common.storage import ObjectStore
from components.publish.bundle import make_bundle
from components.publish.config import PublishConfig
from components.publish.gallery.page import write_gallery
from components.publish.promotion import Promotion, promote

logger = logging.getLogger(__name__)

ENTRY_KIND = "registry-entry"
ENTRY_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A version of the registry, and what became of the alias."""

    entry: RegistryEntry
    promotion: Promotion


def publish(
    config: PublishConfig,
    *,
    base_model: Path,
    learned_embedding: Path,
    evaluation: Path,
    output: Path,
    force: bool = False,
) -> RegistryEntry:
    """The published version alone; see `publish_and_promote`."""
    published = publish_and_promote(
        config,
        base_model=base_model,
        learned_embedding=learned_embedding,
        evaluation=evaluation,
        output=output,
        force=force,
    )
    return published.entry


def publish_and_promote(
    config: PublishConfig,
    *,
    base_model: Path,
    learned_embedding: Path,
    evaluation: Path,
    output: Path,
    force: bool = False,
) -> Published:
    """The published version of an embedding; publishing it again, in a retry or another run, gives the same.

    What is damaged of this version is written again. The alias moves to it as `promote_if` says; a damaged alias is
    left as it is, with a warning.

    Args:
        config: where, and under which name and alias.
        base_model: folder of the reference to the base model that it was trained on.
        learned_embedding: folder of the `LearnedEmbedding`.
        evaluation: folder of its `Evaluation`.
        output: folder for the registry entry: the manifest, its address, and what became of the alias.
        force: publish what did not pass its evaluation; manifest and model card say so.

    Raises:
        ArtifactError: when an artifact is damaged.
        InputError: when the inputs do not belong together, the evaluation did not pass, or the concept has been
            published with another placeholder.
        StorageError: when the registry cannot be written.
    """
    logger.info("%s", versions(["google-cloud-storage", "boto3", "safetensors"]))
    log_config(logger, config.as_json())
    bundle = make_bundle(
        config.concept_name,
        reference=read_reference(base_model),
        learned_embedding=learned_embedding,
        evaluation=evaluation,
        force=force,
        also_bin=config.also_bin,
        license_name=config.license,
        learned_from=config.learned_from or None,
    )
    store = concept_store(config.registry_uri, bundle.concept)
    judged = judged_in(Evaluation.read(evaluation).settings)
    # Judged once more, against another champion, the same embedding makes another bundle: it is no new version, or two
    # candidates that are alike would take the alias from each other with every run.
    entry = _published_before(store, bundle) if judged and judged.version else None
    if entry is None or entry.bundle_digest == bundle.digest:
        entry = publish_version(store, bundle, config.run_id)
    else:
        mend_files(store, entry, bundle)
    promotion = promote(store, config, entry.version, judged)
    logger.info("%s", promotion.sentence)
    if config.registry_gallery:
        _write_gallery(config.registry_uri)
    content = {
        "entry_uri": entry.uri,
        "concept": entry.concept,
        "concept_version": entry.version,
        "promotion": promotion.sentence,
    }
    files = {MANIFEST: entry.to_bytes()}
    write_artifact(output, kind=ENTRY_KIND, version=ENTRY_VERSION, content=content, files=files)
    return Published(entry=entry, promotion=promotion)


def _published_before(store: ObjectStore, bundle: Bundle) -> RegistryEntry | None:
    """The first version that has the bundle's embedding and passed, or not, as it did; None where there is none.

    It was learned from the same, where that is known: else a run that looks for changes would find them every time.
    """
    record, facts = FileRecord.of(bundle.files[LEARNED_EMBEDS]), bundle.facts
    for entry in read_entries(store):
        same_sources = facts.learned_from in (None, entry.facts.learned_from)
        if entry.files.get(LEARNED_EMBEDS) == record and entry.facts.passed == facts.passed and same_sources:
            return entry
    return None


def _write_gallery(registry_uri: str) -> None:
    """Writes the registry's page; a warning where that fails, since the version is published."""
    try:
        logger.info("the gallery of the registry is %s", write_gallery(registry_uri))
    except TextualInversionError as error:
        logger.warning("the gallery was not written: %s", error)
