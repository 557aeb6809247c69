"""The training step from artifacts to artifact: checks, builds, runs the loop, writes the learned embedding."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from components.common.artifacts import InitialEmbedding, LatentSet, LearnedEmbedding
from components.common.base_model import ModelReference, materialize, read_reference
from components.common.errors import ConfigError
from components.common.logs import configure_logging, log_config, versions
from components.common.storage import open_store
from components.common.training import loop
from components.common.training.checkpoints import CheckpointFolder
from components.common.training.config import TrainConfig
from components.common.training.prompt_ids import load_tokenizer, training_prompt_ids
from components.common.training.row_norms import long_step_warning
from components.common.training.run_artifacts import (
    PARTS,
    check_that_they_belong_together,
    learned_embedding,
    run_fields,
    sampling_plan,
)
from components.common.training.watch_config import WATCHED_BY_DEFAULT, WatchConfig
from components.train.frameworks import framework_for
from components.train.previews import Previews
from components.train.process import TrainerInputs, join_processes
from components.train.trackers.tracking import Tracked, Trackers, wanted_trackers
from components.train.watcher import TrainingWatcher

logger = logging.getLogger(__name__)


def train(
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
) -> LearnedEmbedding:
    """The learned embedding, written to `output`.

    Args:
        config: how to train; `train_batch_size` is what a process takes, however many devices it has.
        framework: `torch`, `flax`, or `auto` for the one that trains on `accelerator`.
        latent_set: folder of the LatentSet.
        base_model: folder of the base model's reference.
        initial_embedding: folder of the InitialEmbedding.
        checkpoint_root: where checkpoints live, a folder or an address in object storage.
        accelerator: `cpu`, `gpu` or `tpu`; with Flax all devices of that kind of all processes are used.
        output: folder for the LearnedEmbedding.
        watching: what is shown while it trains.

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
    latents, embedding, reference = (
        LatentSet.read(latent_set),
        InitialEmbedding.read(initial_embedding),
        read_reference(base_model),
    )
    config = config.with_steps(num_pictures=len(latents.latents), num_processes=num_processes)
    log_config(logger, {**config.as_json(), **watching.as_json()})
    for told in config.without_effect():
        logger.info("%s", told)
    check_that_they_belong_together(latents, embedding, reference.digest)
    if mistakes := list(watching.mistakes_with(embedding.placeholder_token)):
        raise ConfigError(*mistakes)
    model, store = materialize(reference, PARTS), open_store(checkpoint_root)
    built = process.build(
        TrainerInputs(
            config=config,
            model=model,
            latents=latents,
            embedding=embedding,
            prompt_ids=training_prompt_ids(load_tokenizer(model, embedding), embedding, config.learnable_property),
            store=store,
        )
    )
    timesteps = built.num_train_timesteps
    plan = sampling_plan(config, latents, num_processes=num_processes, num_train_timesteps=timesteps)
    fields = run_fields(config, reference=reference, latents=latents, embedding=embedding, num_processes=num_processes)
    checkpoints = CheckpointFolder(store, fields, total_limit=config.checkpoints_total_limit)
    logger.info(
        "global batch %d = %d x %d accumulated x %d processes; learning rate %.2e",
        plan.global_batch,
        config.train_batch_size,
        config.gradient_accumulation_steps,
        num_processes,
        config.peak_learning_rate(num_processes),
    )
    if warning := long_step_warning(
        config,
        peak_learning_rate=config.peak_learning_rate(num_processes),
        typical_element=built.vocabulary_norm / embedding.rows["text_encoder"].shape[1] ** 0.5,
    ):
        logger.warning("%s", warning)
    watcher = None
    if rank == 0:
        tracked = Tracked(
            training_key=checkpoints.training_key,
            config={**config.as_json(), **watching.as_json()},
            placeholder_token=embedding.placeholder_token,
            store=store,
            logging_dir=watching.logging_dir,
        )
        watcher = TrainingWatcher(
            embedding=embedding,
            store=store,
            training_key=checkpoints.training_key,
            save_steps=config.save_steps,
            validation_steps=watching.validation_steps,
            previews=_previews(watching, config, framework, accelerator, reference, tracked),
            trackers=Trackers(trackers, tracked),
        )
    with watcher or contextlib.nullcontext():
        finished = loop.train(
            built.trainer,
            config=config,
            plan=plan,
            checkpoints=checkpoints,
            placement=process.placement,
            watcher=watcher,
        )
    learned = learned_embedding(
        config,
        finished,
        reference=reference,
        latents=latents,
        embedding=embedding,
        training_key=checkpoints.training_key,
        framework=framework,
        devices=process.devices,
    )
    if rank == 0:
        learned.write(output)
        logger.info("learned %s in %d steps: %s", embedding.placeholder_token, learned.steps, output)
    process.end()
    return learned


def _previews(
    watching: WatchConfig,
    config: TrainConfig,
    framework: str,
    accelerator: str,
    reference: ModelReference,
    tracked: Tracked,
) -> Previews | None:
    """Who draws pictures while it trains, with the parts of the base model that it needs; None where nobody does."""
    if not watching.draws:
        return None
    return Previews(
        framework=framework,
        model=materialize(reference, (*PARTS, "vae")),
        accelerator=accelerator,
        prompt=watching.prompt_for(tracked.placeholder_token),
        num_images=watching.num_validation_images,
        seed=config.seed,
        store=tracked.store,
        training_key=tracked.training_key,
    )
