"""The files of a version: the embedding under the names that programs look for, and what explains it.

    learned_embeds.safetensors   diffusers' default name
    learned_embeds.bin           the same rows as torch.save writes them, where that was asked for
    <trigger>.safetensors        the same bytes as the first: in AUTOMATIC1111 and ComfyUI the file's name is the word
    token_identifier.txt         the placeholder       } as the diffusers example script writes them
    type_of_concept.txt          object or style       }
    README.md                    the model card
    config.json                  how it was trained and sampled, and from which prompts its samples are
    scores.json, report.html, samples/*.png   from the evaluation

A bundle is a pure function of its inputs: nothing in it depends on the run or the time.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.numpy

from components.common.artifact_folder import read_artifact
from components.common.artifacts import (
    LEARNED_EMBEDS,
    TOKEN_IDENTIFIER,
    TYPE_OF_CONCEPT,
    Evaluation,
    LearnedEmbedding,
)
from components.common.base_model import ModelReference
from components.common.champion import judged_in
from components.common.errors import InputError
from components.common.prompts import concept_name as concept_name_of
from components.common.prompts import trigger_word
from components.common.registry.entry import Bundle, Facts
from components.publish.model_card import CHAMPION_VERDICT, LEARNED_EMBEDS_BIN, CardSample, model_card
from components.publish.torch_file import torch_file

_FROM_EMBEDDING = (LEARNED_EMBEDS, TOKEN_IDENTIFIER, TYPE_OF_CONCEPT)
SHOWN_SAMPLES = 4
"""So many prompts are shown in the model card; the report shows all."""


def make_bundle(
    concept_name: str,
    *,
    reference: ModelReference,
    learned_embedding: Path,
    evaluation: Path,
    force: bool = False,
    also_bin: bool = False,
    license_name: str = "",
    learned_from: Mapping[str, Any] | None = None,
) -> Bundle:
    """The bundle of an evaluated embedding.

    Args:
        concept_name: the concept's name in the registry; empty takes the placeholder's own.
        reference: the base model it was trained on.
        learned_embedding: folder of the `LearnedEmbedding` artifact.
        evaluation: folder of the `Evaluation` artifact.
        force: take an embedding that the evaluation did not accept.
        also_bin: add the rows as a file that torch reads without safetensors.
        license_name: the licence that the model card names; empty names none.
        learned_from: what the run was given that determines the rows; see `Facts`.

    Raises:
        ArtifactError: when an artifact is missing, damaged or something else.
        InputError: when the three do not belong together, or the evaluation did not pass.
    """
    learned, judged = LearnedEmbedding.read(learned_embedding), Evaluation.read(evaluation)
    _check_belonging(learned, judged, reference)
    _check_passed(judged, force)
    facts = Facts(
        placeholder_token=learned.placeholder_token,
        learnable_property=learned.learnable_property,
        tokens=learned.tokens,
        passed=judged.passed,
        reasons=judged.reasons,
        scores=judged.scores,
        lineage=_lineage(learned, judged, reference),
        learned_from=learned_from,
    )
    samples = _shown_samples(evaluation)
    card = model_card(
        facts,
        learned=learned,
        reference=reference,
        settings=judged.settings,
        samples=samples,
        has_bin=also_bin,
        license_name=license_name,
    )
    from_evaluation = [
        Evaluation.REPORT,
        Evaluation.SCORES,
        *(file for sample in samples for file in sample.files),
    ]
    files = {name: (learned_embedding / name).read_bytes() for name in _FROM_EMBEDDING}
    files[f"{trigger_word(learned.placeholder_token)}.safetensors"] = files[LEARNED_EMBEDS]
    if also_bin:
        files[LEARNED_EMBEDS_BIN] = torch_file(safetensors.numpy.load(files[LEARNED_EMBEDS]))
    files |= {name: (evaluation / name).read_bytes() for name in from_evaluation}
    files |= {"config.json": _config(learned, judged, reference, samples), "README.md": card.encode()}
    return Bundle(concept=concept_name or concept_name_of(learned.placeholder_token), facts=facts, files=files)


def _check_belonging(learned: LearnedEmbedding, judged: Evaluation, reference: ModelReference) -> None:
    if judged.learned_embedding_digest != learned.digest:
        raise InputError(
            f"the evaluation is of the embedding {judged.learned_embedding_digest[:12]}, found the embedding "
            f"{learned.digest[:12]} ({learned.placeholder_token}): evaluate this embedding, then publish it"
        )
    trained_on = learned.lineage.get("base_model_digest")
    if trained_on != reference.digest:
        raise InputError(
            f"{learned.placeholder_token} was trained on the base model {str(trained_on)[:12]}, found "
            f"{reference.digest[:12]} ({reference.source}): give the one it was trained on"
        )


def _check_passed(judged: Evaluation, force: bool) -> None:
    if not judged.passed and not force:
        reasons = " ".join(judged.reasons)
        raise InputError(f"{judged.placeholder_token} did not pass its evaluation and is not published: {reasons}")


def _lineage(learned: LearnedEmbedding, judged: Evaluation, reference: ModelReference) -> dict[str, Any]:
    return {
        **learned.lineage,
        "base_model": reference.source,
        "base_model_revision": reference.revision,
        "base_model_digest": reference.digest,
        "training_key": learned.training_key,
        "learned_embedding_digest": learned.digest,
        "evaluation_digest": judged.digest,
        **_against_champion(judged),
    }


def _against_champion(judged: Evaluation) -> dict[str, Any]:
    found = judged_in(judged.settings)
    if found is None or not found.version:
        return {}
    return {"champion_version": found.version, "champion_digest": found.digest, CHAMPION_VERDICT: found.sentence}


def _config(
    learned: LearnedEmbedding, judged: Evaluation, reference: ModelReference, samples: Sequence[CardSample]
) -> bytes:
    content = {
        "placeholder_token": learned.placeholder_token,
        "tokens": list(learned.tokens),
        "initializer_token": learned.initializer_token,
        "learnable_property": learned.learnable_property,
        "steps": learned.steps,
        "base_model": {
            "source": reference.source,
            "revision": reference.revision,
            "digest": reference.digest,
        },
        "training": dict(learned.config),
        "evaluation": dict(judged.settings),
        "samples": [dataclasses.asdict(sample) for sample in samples],
    }
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _shown_samples(evaluation: Path) -> list[CardSample]:
    """The samples that the card shows, of different prompts as far as there are, each beside its before."""
    records = read_artifact(evaluation, kind=Evaluation.KIND, version=Evaluation.VERSION).content["samples"]
    before = {(r["prompt"], r["seed"]): r["file"] for r in records if r["variant"] == "before"}
    after = [record for record in records if record["variant"] == "after"]
    chosen: list[Mapping[str, Any]] = []
    for record in after:
        if record["prompt"] not in {other["prompt"] for other in chosen}:
            chosen.append(record)
    chosen += [record for record in after if record not in chosen]
    return [
        CardSample(prompt=r["prompt"], seed=r["seed"], after=r["file"], before=before.get((r["prompt"], r["seed"])))
        for r in chosen[:SHOWN_SAMPLES]
    ]
