"""The publishing step: an evaluated embedding becomes an immutable version, and an alias moves to it."""

from __future__ import annotations

import logging
from pathlib import Path

from components.common.artifact_folder import write_artifact
from components.common.base_model import read_reference
from components.common.errors import ArtifactError
from components.common.logs import log_config, versions
from components.common.registry.aliases import advance_alias
from components.common.registry.entry import MANIFEST, RegistryEntry
from components.common.registry.registry import concept_store
from components.common.registry.versions import publish_version
from components.publish.bundle import make_bundle
from components.publish.config import PublishConfig

logger = logging.getLogger(__name__)

ENTRY_KIND = "registry-entry"
ENTRY_VERSION = 1


def publish(
    config: PublishConfig,
    *,
    base_model: Path,
    learned_embedding: Path,
    evaluation: Path,
    output: Path,
    force: bool = False,
) -> RegistryEntry:
    """The published version of an embedding; publishing it again, in a retry or another run, gives the same.

    What is damaged of this version is written again. A damaged alias is left as it is, with a warning.

    Args:
        config: where, and under which name and alias.
        base_model: folder of the reference to the base model that it was trained on.
        learned_embedding: folder of the `LearnedEmbedding`.
        evaluation: folder of its `Evaluation`.
        output: folder for the registry entry: the manifest and its address.
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
    )
    store = concept_store(config.registry_uri, bundle.concept)
    entry = publish_version(store, bundle, config.run_id)
    if config.registry_alias:
        try:
            advance_alias(store, config.registry_alias, entry.version)
        except ArtifactError as error:
            logger.warning("%s; or promote a version, which writes it anew", error)
    content = {"entry_uri": entry.uri, "concept": entry.concept, "concept_version": entry.version}
    files = {MANIFEST: entry.to_bytes()}
    write_artifact(output, kind=ENTRY_KIND, version=ENTRY_VERSION, content=content, files=files)
    return entry
