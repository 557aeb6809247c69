"""The training step from artifacts to artifact: checks, builds, runs the loop, writes the learned embeddings."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.common.artifacts import LearnedEmbedding
from components.common.base_model import ModelReference, materialize, read_reference
from components.common.families import check_clip_skip, conditioning_layers, family_of, training_parts
from components.common.logs import configure_logging, log_config, versions
from components.common.sources.checks import read_configs, read_object
from components.common.storage import ObjectStore, open_store
from components.common.training import loop
from components.common.training.checkpoints import CheckpointFolder
from components.common.training.config import TrainConfig
from components.common.training.prompt_ids import load_tokenizers, training_prompt_ids
from components.common.training.row_norms import long_step_warning
from components.common.training.run_artifacts import (
    learned_embedding,
    run_fields,
    sampling_plan,
)
from components.common.training.watch_config import WATCHED_BY_DEFAULT, WatchConfig
from components.common.words import write_words
from components.train.frameworks import framework_for
from components.train.process import Built, TrainerInputs, WordInputs, join_processes
from components.train.trackers.tracking import wanted_trackers
from components.train.watcher import Watched, training_watcher
from components.train.words import Word, check_words, read_words

logger = logging.getLogger(__name__)


def train(config: TrainConfig, **more: Any) -> LearnedEmbedding:
    """The learned embedding of one word; the arguments are those of `train_words`."""
    (learned,) = train_words(config, **more)
    return learned


def train_words(
    config: TrainConfig,
    *,
    framework: str,
    latent_set: Path,
    base_model: Path,
    initial_embedding: Path,
    checkpoint_root: str,
    accelerator: str,
    output: Path,
    watching: WatchConfig = WATCHED_BY_DEFAULT,
    learnable_properties: Sequence[str] = (),
) -> tuple[LearnedEmbedding, ...]:
    """The learned embedding of each word, written to `output`; several words share every pass of the models.

    Args:
        config: how to train; `train_batch_size` is what a process takes of each word, however many devices it has.
        framework: `torch`, `flax`, or `auto` for the one that trains on `accelerator`.
        latent_set: folder of the LatentSet, or of those of several words.
        base_model: folder of the base model's reference.
        initial_embedding: folder of the InitialEmbedding, or of those of several words.
        checkpoint_root: where checkpoints live, a folder or an address in object storage.
        accelerator: `cpu`, `gpu` or `tpu`; with Flax all devices of that kind of all processes are used.
        output: folder for the LearnedEmbedding, or for those of several words.
        watching: what is shown while it trains.
        learnable_properties: `object` or `style` for each word; none: as `config` says for all.

    Raises:
        InputError, ArtifactError: before anything expensive, when an input cannot be used.
        TrainingError: when training cannot go on.
        StorageError: when checkpoints cannot be kept.
    """
    framework = framework_for(framework, accelerator)
    trackers = wanted_trackers(watching)
    process = join_processes(framework, config, accelerator)
    rank, num_processes = process.placement.rank, process.placement.num_processes
    configure_logging(rank=rank)
    logger.info("%s on %s", versions(process.packages), process.devices)
    reference, store = read_reference(base_model), open_store(checkpoint_root)
    words = read_words(
        config,
        latent_set=latent_set,
        initial_embedding=initial_embedding,
        learnable_properties=learnable_properties,
        num_processes=num_processes,
    )
    config = words[0].config
    log_config(logger, {**config.as_json(), **watching.as_json()})
    for told in config.without_effect():
        logger.info("%s", told)
    check_words(words, reference.digest, watching)
    built = process.build(trainer_inputs(words, reference, store))
    trainings = _trainings(words, built, reference, store, num_processes)
    _tell_batch_and_rate(words, built, num_processes)
    watched = Watched(
        config=watching,
        trackers=trackers,
        store=store,
        framework=framework,
        accelerator=accelerator,
        reference=reference,
    )
    with contextlib.ExitStack() as stack:
        if rank == 0:
            trainings = [
                _with_watcher(training, word, watched, stack) for training, word in zip(trainings, words, strict=True)
            ]
        finished = loop.train_together(trainings, take_steps=built.take_steps, placement=process.placement)
    learned = tuple(
        learned_embedding(
            word.config,
            checkpoint,
            reference=reference,
            latents=word.latents,
            embedding=word.embedding,
            training_key=training.checkpoints.training_key,
            framework=framework,
            devices=process.devices,
        )
        for word, training, checkpoint in zip(words, trainings, finished, strict=True)
    )
    if rank == 0:
        write_words(output, [each.write for each in learned])
        for each in learned:
            logger.info("learned %s in %d steps: %s", each.placeholder_token, each.steps, output)
    process.end()
    return learned


def trainer_inputs(words: Sequence[Word], reference: ModelReference, store: ObjectStore) -> TrainerInputs:
    """What trainers are built from, with the parts of the base model that they need in a local folder.

    Raises:
        BaseModelError, StorageError: when the base model cannot be used or fetched.
        ConfigError: when `clip_skip` leaves none of its layers.
    """
    model = materialize(reference, training_parts(reference.subfolders))
    family = family_of(reference.subfolders, read_object(model / "unet" / "config.json"))
    texts = read_configs(model, (each.part for each in family.text_encoders))
    check_clip_skip(words[0].config.clip_skip, conditioning_layers(family.text_encoders, texts))
    return TrainerInputs(model=model, family=family, words=[_with_prompts(word, model) for word in words], store=store)


def _with_prompts(word: Word, model: Path) -> WordInputs:
    tokenizers = load_tokenizers(model, word.embedding)
    prompt_ids = training_prompt_ids(tokenizers, word.embedding, word.config.learnable_property)
    return WordInputs(config=word.config, latents=word.latents, embedding=word.embedding, prompt_ids=prompt_ids)


def _trainings(
    words: Sequence[Word], built: Built, reference: ModelReference, store: ObjectStore, num_processes: int
) -> list[loop.Training]:
    """The training of each word, which is the same alone and with others."""

    def training(word: Word, trainer: loop.Trainer) -> loop.Training:
        config, latents = word.config, word.latents
        timesteps = built.num_train_timesteps
        fields = run_fields(
            config, reference=reference, latents=latents, embedding=word.embedding, num_processes=num_processes
        )
        return loop.Training(
            trainer=trainer,
            config=config,
            plan=sampling_plan(config, latents, num_processes=num_processes, num_train_timesteps=timesteps),
            checkpoints=CheckpointFolder(store, fields, total_limit=config.checkpoints_total_limit),
            name=word.token if len(words) > 1 else "",
        )

    return [training(word, trainer) for word, trainer in zip(words, built.trainers, strict=True)]


def _with_watcher(training: loop.Training, word: Word, watched: Watched, stack: contextlib.ExitStack) -> loop.Training:
    """The training with a watcher that ends with `stack`."""
    watcher = training_watcher(watched, word.config, word.embedding, training.checkpoints.training_key)
    return dataclasses.replace(training, watcher=stack.enter_context(watcher))


def _tell_batch_and_rate(words: Sequence[Word], built: Built, num_processes: int) -> None:
    config, peak = words[0].config, words[0].config.peak_learning_rate(num_processes)
    logger.info(
        "global batch %d = %d x %d accumulated x %d processes%s; learning rate %.2e",
        config.global_batch(num_processes),
        config.train_batch_size,
        config.gradient_accumulation_steps,
        num_processes,
        f" for each of {len(words)} words" if len(words) > 1 else "",
        peak,
    )
    rows = words[0].embedding.rows
    smallest = min(norm / rows[name].shape[1] ** 0.5 for name, norm in built.vocabulary_norms.items())
    if warning := long_step_warning(config, peak_learning_rate=peak, typical_element=smallest):
        logger.warning("%s", warning)
