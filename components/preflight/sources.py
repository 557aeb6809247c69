"""What a run reads, looked at before it begins: pictures, models, embeddings to start from, the storage."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from components.common.champion import ChampionAddress
from components.common.errors import ConfigError, InputError, StorageError, TextualInversionError
from components.common.learned_files import CHAMPION, read_embedding_for_run
from components.common.model_license import license_of
from components.common.sources.models import ModelSource, open_source
from components.common.sources.picture_listing import fingerprint_images
from components.common.storage import open_store
from components.common.storage.local_files import local_errors
from components.common.training.checkpoints import CHECKPOINT_KEY
from components.evaluate.config import NO_GAIN
from components.preflight.base_model_for_flax import check_that_flax_computes
from components.preflight.champion import (
    Champion,
    find_champion,
    judged_against,
    rows_to_start_from,
    tell_of_another_kind,
)
from components.preflight.model_files import ModelFiles, check_model_files
from components.preflight.new_word import check_embedding_fits, check_new_word
from components.preflight.options import CheckedOptions, known_options
from components.preflight.words import in_word

logger = logging.getLogger(__name__)

PROBE = "preflight-probe"
"""The object that is written, and deleted again, to see whether the storage can be."""

_SHOWN_NAMES = 5

Answer = TypeVar("Answer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordSources:
    """What there is of one word's sources: the state of each."""

    images_fingerprint: str
    scoring_images_fingerprint: str
    initializer_embedding: str
    initializer_embedding_sha256: str
    champion: Champion
    judged_against: ChampionAddress | None

    def resolved(self, options: CheckedOptions, base_model_license: str) -> CheckedOptions:
        """The options, in which stands what the sources say: a version's file for an alias, a licence for none.

        From a word that starts from its champion the gate asks for no gain over what it started from.
        """
        evaluation = options.evaluation
        if options.word.initializer_embedding == CHAMPION and self.initializer_embedding:
            evaluation = dataclasses.replace(evaluation, min_clip_i_gain=NO_GAIN)
        return dataclasses.replace(
            options,
            evaluation=evaluation,
            word=dataclasses.replace(options.word, initializer_embedding=self.initializer_embedding),
            registry=dataclasses.replace(options.registry, license=options.registry.license or base_model_license),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """What there is of the sources: the state of each, and the size in bytes of the weights that a run takes.

    Beside the scorer are the DINO model and the base model's safety checker, where they are asked for.
    """

    base_model_revision: str
    base_model_bytes: int
    scorer_revision: str
    scorer_bytes: int
    base_model_license: str
    dino_revision: str
    beside_scorer_bytes: int
    words: tuple[WordSources, ...]


def missing_sources(values: Mapping[str, Any]) -> Iterable[str]:
    """What of the sources is not there: told together with the mistakes of options, so that nobody tries twice."""
    yield from _missing_of_word(values)
    more_words = values.get("more_words")
    for token, own in more_words.items() if isinstance(more_words, Mapping) else ():
        if isinstance(own, Mapping):
            yield from (f"{in_word(token)}{mistake}" for mistake in _missing_of_word(own))


def _missing_of_word(values: Mapping[str, Any]) -> Iterable[str]:
    look: dict[str, Callable[[str], Any]] = {
        "images_uri": fingerprint_images,
        "scoring_images_uri": fingerprint_images,
        "base_model": open_source,
        "scorer": open_source,
        "dino": open_source,
    }
    for name, function in look.items():
        address = values.get(name)
        if isinstance(address, str) and address and address == address.strip():
            try:
                with local_errors(name):
                    function(address)
            except (InputError, StorageError) as error:
                yield from (_by_name(name, mistake) for mistake in error.mistakes)


def check_sources(options: CheckedOptions) -> Sources:
    """What there is of the sources, each of which was looked at, and the storage tried.

    Raises:
        InputError, StorageError: naming everything that is wrong, each by its option.
    """
    run, problems = options.run, list[TextualInversionError]()

    def attempt(
        name: str, function: Callable[..., Answer], *arguments: Any, where: str = "", **more: Any
    ) -> Answer | None:
        try:
            with local_errors(name):
                return function(*arguments, **more)
        except (InputError, StorageError) as error:
            problems.append(type(error)(*(where + _by_name(name, mistake) for mistake in error.mistakes)))
            return None

    each_word = [("", options), *((in_word(other.word.placeholder_token), other) for other in options.others)]
    pictures = [_check_pictures(word, attempt, where) for where, word in each_word]
    base_model, scorer = attempt("base_model", open_source, run.base_model), attempt("scorer", open_source, run.scorer)
    model_files = None
    if base_model is not None:
        model_files = attempt(
            "base_model",
            check_model_files,
            run.base_model,
            base_model,
            kind="diffusion",
            variant=run.base_model_variant,
            resolution=options.pictures.resolution,
            training=options.training,
        )
    scorer_files = scorer and attempt("scorer", check_model_files, run.scorer, scorer, kind="clip")
    dino = attempt("dino", open_source, run.dino) if run.dino else None
    beside = [attempt("dino", check_model_files, run.dino, dino, kind="dino")] if dino else []
    if base_model is not None and options.evaluation.safety_checker == "on":
        beside.append(
            attempt(
                "evaluation_safety_checker",
                check_model_files,
                run.base_model,
                base_model,
                kind="safety_checker",
                variant=run.base_model_variant,
            )
        )
    words = [
        _check_word_sources(word, found, base_model, model_files, attempt, where)
        for (where, word), found in zip(each_word, pictures, strict=True)
    ]
    if model_files and options.framework == "flax":
        attempt(
            "base_model",
            check_that_flax_computes,
            run.base_model,
            base_model,
            accelerator=run.accelerator,
            num_inference_steps=options.evaluation.num_inference_steps,
            sampler=options.evaluation.sampler,
        )
    license_name = base_model and attempt("base_model", license_of, base_model)
    attempt("storage_uri", _check_writable, run.storage)
    for name, folder in (
        ("full_pipeline_uri", options.destinations.full_pipeline_uri),
        ("metrics_uri", options.registry.metrics_uri),
    ):
        if folder:
            attempt(name, _check_writable, folder)
    wanted = options.training.resume_from_checkpoint
    attempt("resume_from_checkpoint", _check_checkpoint, wanted, run.checkpoints_uri)
    if problems:
        # One kind of error for all: the first one's, since that decides what a person looks at first.
        raise type(problems[0])(*(mistake for problem in problems for mistake in problem.mistakes))
    assert base_model and scorer
    return Sources(
        base_model_revision=base_model.revision,
        base_model_bytes=model_files.weights if model_files else 0,
        scorer_revision=scorer.revision,
        scorer_bytes=scorer_files.weights if scorer_files else 0,
        base_model_license=license_name or "",
        dino_revision=dino.revision if dino else "",
        beside_scorer_bytes=sum(files.weights for files in beside if files),
        words=tuple(words),
    )


def _check_pictures(options: CheckedOptions, attempt: Callable[..., Any], where: str) -> tuple[str, str]:
    """The state of a word's pictures to learn from, and of those to score against; empty where they cannot be used."""
    run = options.run
    images = attempt("images_uri", fingerprint_images, run.images_uri, where=where) or ""
    if not run.scoring_images_uri:
        return images, images
    return images, attempt("scoring_images_uri", fingerprint_images, run.scoring_images_uri, where=where) or ""


def _check_word_sources(
    options: CheckedOptions,
    pictures: tuple[str, str],
    base_model: ModelSource | None,
    model_files: ModelFiles | None,
    attempt: Callable[..., Any],
    where: str,
) -> WordSources:
    """What there is of a word's sources; what is wrong with them, and with the word in the base model, is noted.

    Args:
        options: of the word.
        pictures: from `_check_pictures`.
        base_model: None where it cannot be read.
        model_files: what the run takes of it; None where it cannot be used.
        attempt: calls a function for an option, and notes its error.
        where: what goes before an option in the note.
    """
    run, registry = options.run, options.registry
    champion = attempt("storage_uri", find_champion, run.registry_uri, registry, options.word.placeholder_token)
    existing = None
    address = options.word.initializer_embedding
    if address == CHAMPION:
        if champion and model_files:
            encoders = model_files.text_encoders
            existing = attempt("initializer_embedding", rows_to_start_from, champion, base_model, encoders, where=where)
    elif address:
        existing = attempt("initializer_embedding", read_embedding_for_run, address, run.registry_uri, where=where)
    if model_files:
        encoders = model_files.text_encoders
        attempt(
            "base_model",
            check_new_word,
            base_model,
            encoders,
            word=options.word,
            evaluation=options.evaluation,
            learnable_property=options.training.learnable_property,
            where=where,
        )
        if existing is not None:
            attempt("initializer_embedding", check_embedding_fits, existing, base_model, encoders, where=where)
        if champion:
            attempt("storage_uri", tell_of_another_kind, champion, registry, base_model, encoders, where=where)
    return WordSources(
        images_fingerprint=pictures[0],
        scoring_images_fingerprint=pictures[1],
        initializer_embedding=existing.address if existing else "",
        initializer_embedding_sha256=existing.sha256 if existing else "",
        champion=champion,
        judged_against=judged_against(champion, registry) if champion else None,
    )


def _by_name(name: str, mistake: str) -> str:
    """The mistake, which begins with the option that it is about: `name`, unless it names one itself."""
    return mistake if mistake.partition(":")[0] in known_options() else f"{name}: {mistake}"


def _check_writable(storage_uri: str) -> str:
    store = open_store(storage_uri)
    store.write(PROBE, b"written by the preflight step\n")
    try:
        store.delete(PROBE)
    except StorageError as error:
        logger.warning("%s stays: it cannot be deleted (%s)", store.uri_of(PROBE), error)
    return store.uri


def _check_checkpoint(wanted: str, checkpoints_uri: str) -> str:
    """The checkpoint to go on from; whether it is of this very training shows when the training begins."""
    if wanted in ("latest", "none"):
        return wanted
    found = filter(None, (CHECKPOINT_KEY.fullmatch(info.key) for info in open_store(checkpoints_uri).list()))
    names = sorted({match["name"] for match in found})
    if wanted.removesuffix(".safetensors") not in names:
        there = ", ".join(names[-_SHOWN_NAMES:]) or "none at all"
        raise ConfigError(
            f"resume_from_checkpoint: found {wanted!r}, expected latest, none, or the name of a checkpoint in "
            f"{checkpoints_uri}, which has {there}"
        )
    return wanted
