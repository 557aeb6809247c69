"""The first step of a run: everything that would go wrong later and can be seen now."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from components.common.champion import ChampionAddress
from components.common.errors import ConfigError, InputError, StorageError, TextualInversionError
from components.common.images import TRAINING_IMAGES, image
from components.common.learned_files import read_embedding_for_run
from components.common.model_license import license_of
from components.common.options import Config
from components.common.sources.models import ModelSource, open_source
from components.common.sources.picture_listing import fingerprint_images
from components.common.storage import open_store
from components.common.storage.local_files import local_errors
from components.common.training.checkpoints import CHECKPOINT_KEY
from components.common.training.row_norms import long_step_warning
from components.common.words import config_text
from components.encode_latents.config import EncodeConfig
from components.evaluate.config import EvaluateConfig
from components.find_start_word.config import FindStartWordConfig
from components.import_base_model.config import ImportConfig
from components.ingest_images.config import IngestConfig
from components.init_embedding.config import InitConfig
from components.preflight.base_model_for_flax import check_that_flax_computes
from components.preflight.champion import find_champion
from components.preflight.model_files import check_model_files
from components.preflight.new_word import check_embedding_fits, check_new_word
from components.preflight.options import CheckedOptions, check_options, known_options
from components.preflight.pods import (
    Pod,
    encoding_pod,
    evaluation_pod,
    outputs_of,
    training_image_and_pod,
    training_pod,
)
from components.preflight.words import in_word
from components.publish.config import PublishConfig

logger = logging.getLogger(__name__)

PROBE = "preflight-probe"
"""The object that is written, and deleted again, to see whether the storage can be."""

TYPICAL_ELEMENT = 0.02
"""Size of an element of CLIP's token embeddings, whose weights preflight does not read: their standard deviation before
CLIP was trained (transformers, `CLIPPreTrainedModel._init_weights`); in the tiny world it is .022 after."""

LONGEST_CONFIG = 120_000
"""Bytes that a step can be told in one argument of a command, which Linux limits to 128 KiB."""

_SHOWN_NAMES = 5

Answer = TypeVar("Answer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """What the steps after this one are given: each its whole config as JSON text, and what its pod asks for.

    Attributes:
        import_base_model, import_scorer, prepare_pictures, prepare_scoring_set, encode_pictures, find_the_start_word,
            add_the_new_word, train, sample_and_score, publish: the config of the step of that name.
        encoding_cpu, ...: what the pods ask for that encode the pictures and find the start word.
        training_image, training_cpu, ...: what runs in the training step, and what its pod asks for.
        evaluation_cpu, ...: what the pod asks for that draws and scores samples.
        tolerations: Kubernetes tolerations of all three, beside those for accelerators and spot nodes.
    """

    import_base_model: str
    import_scorer: str
    prepare_pictures: str
    prepare_scoring_set: str
    encode_pictures: str
    find_the_start_word: str
    add_the_new_word: str
    train: str
    sample_and_score: str
    publish: str
    encoding_cpu: str
    encoding_memory: str
    encoding_accelerator: str
    encoding_accelerator_count: str
    encoding_node_selector: Mapping[str, str]
    training_image: str
    training_cpu: str
    training_memory: str
    training_accelerator: str
    training_accelerator_count: str
    training_node_selector: Mapping[str, str]
    evaluation_cpu: str
    evaluation_memory: str
    evaluation_accelerator: str
    evaluation_accelerator_count: str
    evaluation_node_selector: Mapping[str, str]
    tolerations: list[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _WordSources:
    """What there is of one word's sources: the state of each."""

    images_fingerprint: str
    scoring_images_fingerprint: str
    initializer_embedding: str
    initializer_embedding_sha256: str
    champion: ChampionAddress | None

    def resolved(self, options: CheckedOptions, base_model_license: str) -> CheckedOptions:
        """The options, in which stands what the sources say: a version's file for an alias, a licence for none."""
        return dataclasses.replace(
            options,
            word=dataclasses.replace(options.word, initializer_embedding=self.initializer_embedding),
            registry=dataclasses.replace(options.registry, license=options.registry.license or base_model_license),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sources:
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
    words: tuple[_WordSources, ...]


def preflight(
    given: Mapping[str, Any],
    more_options: Mapping[str, Any] | None = None,
    training_images: Mapping[str, str] | None = None,
) -> Checked:
    """What the other steps are given, when nothing stands in the run's way.

    Args:
        given: options by name; those left out have the defaults of the steps' configs.
        more_options: further options.
        training_images: references of the images that may train, by name; those of this release where none are given.

    Raises:
        ConfigError: when an option cannot be right.
        InputError: when a source is not there or is nothing that can be used.
        StorageError: when a source cannot be read or the storage cannot be written.
    """
    try:
        options = check_options(given, more_options)
    except ConfigError as error:
        raise ConfigError(*error.mistakes, *_missing_sources({**given, **(more_options or {})})) from error
    logger.info("options: all of them can be right")
    training = options.training
    if training.early_stopping_every and training.earliest_stop > training.max_train_steps:
        logger.warning(
            "early_stopping_every: the training cannot stop before step %d (%d looks, every %d steps, after "
            "early_stopping_min_steps %d), and max_train_steps is %d: look more often, or take a smaller "
            "early_stopping_window",
            *(training.earliest_stop, training.early_stopping_window, training.early_stopping_every),
            *(training.early_stopping_min_steps, training.max_train_steps),
        )
    images = training_images or {name: image(name) for name in TRAINING_IMAGES}
    sources = _check_sources(options)
    checked = _given_to_steps(options, sources, images)
    logger.info("sources: all of them are there, and %s can be written", options.run.storage)
    for name in ("encoding", "training", "evaluation"):
        cpu, memory, accelerators, resource = (
            getattr(checked, f"{name}_{field}") for field in ("cpu", "memory", "accelerator_count", "accelerator")
        )
        logger.info("%s asks for %s CPUs, %s, %s x %s", name, cpu, memory, accelerators, resource)
    logger.info("training runs in %s", checked.training_image)
    if warning := long_step_warning(
        options.training,
        peak_learning_rate=options.training.peak_learning_rate(options.num_processes),
        typical_element=TYPICAL_ELEMENT,
    ):
        logger.warning("%s", warning)
    return checked


def _missing_sources(values: Mapping[str, Any]) -> Iterable[str]:
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


def _check_sources(options: CheckedOptions) -> _Sources:
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
    base_model_bytes = base_model and attempt(
        "base_model",
        check_model_files,
        run.base_model,
        base_model,
        kind="diffusion",
        variant=run.base_model_variant,
        resolution=options.pictures.resolution,
        training=options.training,
    )
    scorer_bytes = scorer and attempt("scorer", check_model_files, run.scorer, scorer, kind="clip")
    dino = attempt("dino", open_source, run.dino) if run.dino else None
    beside = [attempt("dino", check_model_files, run.dino, dino, kind="dino") if dino else 0]
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
    readable = base_model if base_model_bytes is not None else None
    words = [
        _check_word_sources(word, found, readable, attempt, where)
        for (where, word), found in zip(each_word, pictures, strict=True)
    ]
    if readable is not None and options.framework == "flax":
        attempt(
            "base_model",
            check_that_flax_computes,
            run.base_model,
            readable,
            accelerator=run.accelerator,
            num_inference_steps=options.evaluation.num_inference_steps,
            sampler=options.evaluation.sampler,
        )
    license_name = base_model and attempt("base_model", license_of, base_model)
    attempt("storage_uri", _check_writable, run.storage)
    if options.destinations.full_pipeline_uri:
        attempt("full_pipeline_uri", _check_writable, options.destinations.full_pipeline_uri)
    wanted = options.training.resume_from_checkpoint
    attempt("resume_from_checkpoint", _check_checkpoint, wanted, run.checkpoints_uri)
    if problems:
        # One kind of error for all: the first one's, since that decides what a person looks at first.
        raise type(problems[0])(*(mistake for problem in problems for mistake in problem.mistakes))
    assert base_model and scorer
    return _Sources(
        base_model_revision=base_model.revision,
        base_model_bytes=base_model_bytes or 0,
        scorer_revision=scorer.revision,
        scorer_bytes=scorer_bytes or 0,
        base_model_license=license_name or "",
        dino_revision=dino.revision if dino else "",
        beside_scorer_bytes=sum(size or 0 for size in beside),
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
    attempt: Callable[..., Any],
    where: str,
) -> _WordSources:
    """What there is of a word's sources; what is wrong with them, and with the word in the base model, is noted.

    Args:
        options: of the word.
        pictures: from `_check_pictures`.
        base_model: None where it cannot be read.
        attempt: calls a function for an option, and notes its error.
        where: what goes before an option in the note.
    """
    run, registry = options.run, options.registry
    champion = attempt("storage_uri", find_champion, run.registry_uri, registry, options.word.placeholder_token)
    existing = None
    if address := options.word.initializer_embedding:
        existing = attempt("initializer_embedding", read_embedding_for_run, address, run.registry_uri, where=where)
    if base_model is not None:
        attempt(
            "base_model",
            check_new_word,
            base_model,
            word=options.word,
            evaluation=options.evaluation,
            learnable_property=options.training.learnable_property,
            where=where,
        )
        if existing is not None:
            attempt("initializer_embedding", check_embedding_fits, existing, base_model, where=where)
    return _WordSources(
        images_fingerprint=pictures[0],
        scoring_images_fingerprint=pictures[1],
        initializer_embedding=existing.address if existing else "",
        initializer_embedding_sha256=existing.sha256 if existing else "",
        champion=champion,
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


def _safety_checker(options: CheckedOptions, sources: _Sources) -> dict[str, str]:
    """Whose safety checker is imported: with the scorer, since what looks at samples is no part of what is trained."""
    if options.evaluation.safety_checker == "off":
        return {}
    return {
        "safety_checker": options.run.base_model,
        "safety_checker_fingerprint": sources.base_model_revision,
        "safety_checker_variant": options.run.base_model_variant,
    }


def _given_to_steps(options: CheckedOptions, sources: _Sources, images: Mapping[str, str]) -> Checked:
    run = options.run
    model, scorer = sources.base_model_bytes, sources.scorer_bytes
    trains = training_pod(options, model=model)
    name, step = training_image_and_pod(options, trains)
    imports = {
        "import_base_model": ImportConfig(
            source=run.base_model,
            source_fingerprint=sources.base_model_revision,
            store_uri=run.models_uri,
            variant=run.base_model_variant,
        ),
        "import_scorer": ImportConfig(
            source=run.scorer,
            source_fingerprint=sources.scorer_revision,
            store_uri=run.models_uri,
            kind="clip",
            dino=run.dino,
            dino_fingerprint=sources.dino_revision,
            **_safety_checker(options, sources),
        ),
    }
    by_word = [
        _configs_of_word(found.resolved(word, sources.base_model_license), found, trains)
        for word, found in zip(options.words, sources.words, strict=True)
    ]
    texts: dict[str, Any] = {name: config.to_json() for name, config in imports.items()}
    texts |= {name: config_text([configs[name] for configs in by_word]) for name in by_word[0]}
    for told_step, text in texts.items():
        if (length := len(text.encode())) > LONGEST_CONFIG:
            raise ConfigError(
                f"more_words: found {length} bytes that the step {told_step} would be told of {len(by_word)} words, "
                f"expected at most {LONGEST_CONFIG}: take fewer words in a run, or shorter prompts"
            )
    return Checked(
        **texts,
        **outputs_of("encoding", encoding_pod(options, model=model)),
        training_image=images[name],
        **outputs_of("training", step),
        **outputs_of("evaluation", evaluation_pod(options, model=model, scorer=scorer + sources.beside_scorer_bytes)),
        tolerations=list(run.accelerator_tolerations),
    )


def _configs_of_word(options: CheckedOptions, sources: _WordSources, trains: Pod) -> dict[str, Config]:
    """What each step is told of one word."""
    run, pictures = options.run, vars(options.pictures)
    return {
        "prepare_pictures": IngestConfig(
            images_uri=run.images_uri, images_fingerprint=sources.images_fingerprint, **pictures
        ),
        "prepare_scoring_set": IngestConfig(
            images_uri=run.scoring_images_uri or run.images_uri,
            images_fingerprint=sources.scoring_images_fingerprint,
            **pictures,
        ),
        "encode_pictures": EncodeConfig(accelerator=run.encoding_pod.kind),
        "find_the_start_word": FindStartWordConfig(
            initializer_token=options.word.initializer_token,
            learnable_property=options.training.learnable_property,
            accelerator=run.encoding_pod.kind,
        ),
        "add_the_new_word": InitConfig(
            **vars(options.word), initializer_embedding_sha256=sources.initializer_embedding_sha256
        ),
        "train": options.training_step(cpu=trains.cpu, memory=trains.memory),
        "sample_and_score": EvaluateConfig(
            **vars(options.evaluation),
            dino=run.dino,
            accelerator=run.accelerator,
            champion=dataclasses.asdict(sources.champion) if sources.champion else {},
        ),
        "publish": PublishConfig(**vars(options.registry), **vars(options.destinations), registry_uri=run.registry_uri),
    }
