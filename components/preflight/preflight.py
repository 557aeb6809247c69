"""The first step of a run: everything that would go wrong later and can be seen now."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from components.common.errors import ConfigError
from components.common.images import TRAINING_IMAGES, image
from components.common.options import Config
from components.common.start_word import AUTO
from components.common.training.row_norms import long_step_warning
from components.common.words import config_text
from components.encode_latents.config import EncodeConfig
from components.evaluate.config import EvaluateConfig
from components.find_start_word.config import FindStartWordConfig
from components.import_base_model.config import ImportConfig
from components.ingest_images.config import IngestConfig
from components.init_embedding.config import InitConfig
from components.preflight.options import CheckedOptions, check_options
from components.preflight.pods import (
    Pod,
    encoding_pod,
    evaluation_pod,
    outputs_of,
    searches_for_hours,
    training_image_and_pod,
    training_pod,
)
from components.preflight.retraining import Decision, decide
from components.preflight.sources import Sources, WordSources, check_sources, missing_sources
from components.publish.config import PublishConfig

logger = logging.getLogger(__name__)

TYPICAL_ELEMENT = 0.02
"""Size of an element of CLIP's token embeddings, whose weights preflight does not read: their standard deviation before
CLIP was trained (transformers, `CLIPPreTrainedModel._init_weights`); in the tiny world it is .022 after."""

LONGEST_CONFIG = 120_000
"""Bytes that a step can be told in one argument of a command, which Linux limits to 128 KiB."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """What the steps after this one are given: each its whole config as JSON text, and what its pod asks for.

    Attributes:
        decision: whether the run goes on, and why.
        import_base_model, import_scorer, prepare_pictures, prepare_scoring_set, encode_pictures, find_the_start_word,
            add_the_new_word, train, sample_and_score, publish: the config of the step of that name; all of them are
            empty when the run ends here.
        encoding_cpu, ...: what the pods ask for that encode the pictures and find the start word.
        training_image, training_cpu, ...: what runs in the training step, and what its pod asks for.
        evaluation_cpu, ...: what the pod asks for that draws and scores samples.
        tolerations: Kubernetes tolerations of all three, beside those for accelerators and spot nodes.
    """

    decision: str
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
        raise ConfigError(*error.mistakes, *missing_sources({**given, **(more_options or {})})) from error
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
    sources = check_sources(options)
    decision = decide(options, sources)
    checked = _given_to_steps(options, sources, images, decision)
    logger.info("sources: all of them are there, and %s can be written", options.run.storage)
    logger.info("%s", decision.told)
    if not decision.trains:
        return checked
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
    if searches_for_hours(options, model=sources.base_model_bytes):
        logger.warning(
            "initializer_token: %s measures hundreds of words with the model on a CPU, which takes hours; a word saves "
            "them, and is measured too",
            AUTO,
        )
    return checked


def _safety_checker(options: CheckedOptions, sources: Sources) -> dict[str, str]:
    """Whose safety checker is imported: with the scorer, since what looks at samples is no part of what is trained."""
    if options.evaluation.safety_checker == "off":
        return {}
    return {
        "safety_checker": options.run.base_model,
        "safety_checker_fingerprint": sources.base_model_revision,
        "safety_checker_variant": options.run.base_model_variant,
    }


def _given_to_steps(
    options: CheckedOptions, sources: Sources, images: Mapping[str, str], decision: Decision
) -> Checked:
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
        _configs_of_word(found.resolved(word, sources.base_model_license), found, trains, given)
        for word, found, given in zip(options.words, sources.words, decision.learned_from, strict=True)
    ]
    texts: dict[str, Any] = {name: config.to_json() for name, config in imports.items()}
    texts |= {name: config_text([configs[name] for configs in by_word]) for name in by_word[0]}
    for told_step, text in texts.items():
        if (length := len(text.encode())) > LONGEST_CONFIG:
            raise ConfigError(
                f"more_words: found {length} bytes that the step {told_step} would be told of {len(by_word)} words, "
                f"expected at most {LONGEST_CONFIG}: take fewer words in a run, or shorter prompts"
            )
    if not decision.trains:
        texts = dict.fromkeys(texts, "")
    return Checked(
        decision=decision.told,
        **texts,
        **outputs_of("encoding", encoding_pod(options, model=model)),
        training_image=images[name],
        **outputs_of("training", step),
        **outputs_of("evaluation", evaluation_pod(options, model=model, scorer=scorer + sources.beside_scorer_bytes)),
        tolerations=list(run.accelerator_tolerations),
    )


def _configs_of_word(
    options: CheckedOptions, sources: WordSources, trains: Pod, learned_from: Mapping[str, Any]
) -> dict[str, Config]:
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
            clip_skip=options.training.clip_skip,
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
            champion=dataclasses.asdict(sources.judged_against) if sources.judged_against else {},
        ),
        "publish": PublishConfig(
            **vars(options.registry),
            **vars(options.destinations),
            registry_uri=run.registry_uri,
            learned_from=learned_from,
        ),
    }
