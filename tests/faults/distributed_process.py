"""One process of several that says which gradient they find together, and what they send each other while training.

torchrun -m tests.faults.distributed_process ROWS.npy OUT BATCH_SIZE LATENT_SET BASE_MODEL INITIAL_EMBEDDING

ROWS.npy is float32 [k, n, d]. OUT/gradients.npy is the gradient of step i at rows i, of the same shape; and
OUT/collectives-RANK.json all that a training of `PROFILED_STEPS` sends: for each collective its name and shapes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from components.common.artifacts import InitialEmbedding, LatentSet
from components.common.base_model import materialize, read_reference
from components.common.training.checkpoints import TrainingState
from components.common.training.config import TrainConfig
from components.common.training.loop import Placement
from components.common.training.prompt_ids import load_tokenizers, training_prompt_ids
from components.common.training.run_artifacts import sampling_plan
from components.train.torch.trainer import TorchTrainer
from components.train.train import train
from tests.torch_runs import frozen_models

PROFILED_STEPS = 3
TEXT_ENCODER = "text_encoder"
COLLECTIVES = ("gloo:", "nccl:", "c10d::")
"""How torch.profiler's names of what processes send each other begin."""


def gradients(rows: np.ndarray, inputs: dict[str, Path], train_batch_size: int) -> np.ndarray:
    """The gradient of every step at its rows, over all processes: float32 [k, n, d], like `rows`."""
    process = Accelerator(cpu=True)
    trainer, plan = _trainer_and_plan(inputs, TrainConfig(train_batch_size=train_batch_size), process)
    placement = Placement(rank=process.process_index, num_processes=process.num_processes)
    found = []
    for step, values in enumerate(rows):
        nothing = {TEXT_ENCODER: np.zeros_like(values)}
        trainer.write_state(
            TrainingState(step=0, rows={TEXT_ENCODER: values}, first_moment=nothing, second_moment=nothing)
        )
        trainer.step(plan.batch(step, placement.positions(plan.global_batch)), 1e-3)
        moment = trainer.copy_state(1, []).read()[0].first_moment[TEXT_ENCODER]
        found.append(moment / (1 - TrainConfig.adam_beta1))
    return np.stack(found)


def collectives(inputs: dict[str, Path], train_batch_size: int, folder: Path) -> list[tuple[str, Any]]:
    """Name and shapes of every collective of a whole training, as torch.profiler saw them."""
    config = TrainConfig(train_batch_size=train_batch_size, max_train_steps=PROFILED_STEPS, checkpointing_steps=1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        train(
            config,
            framework="torch",
            **inputs,
            checkpoint_root=str(folder / "checkpoints"),
            accelerator="cpu",
            output=folder / "learned",
        )
    return [(event.name, event.input_shapes) for event in profile.events() if event.name.startswith(COLLECTIVES)]


def _trainer_and_plan(inputs: dict[str, Path], config: TrainConfig, process: Accelerator) -> tuple[TorchTrainer, Any]:
    model = materialize(read_reference(inputs["base_model"]), ["tokenizer", "text_encoder", "unet", "scheduler"])
    latents, embedding = LatentSet.read(inputs["latent_set"]), InitialEmbedding.read(inputs["initial_embedding"])
    models = frozen_models(model, config, process)
    trainer = TorchTrainer(
        config=config,
        latent_set=latents,
        embedding=embedding,
        prompt_ids=training_prompt_ids(load_tokenizers(model, embedding), embedding, config.learnable_property),
        models=models,
    )
    timesteps = models.noise_scheduler.config.num_train_timesteps
    plan = sampling_plan(config, latents, num_processes=process.num_processes, num_train_timesteps=timesteps)
    return trainer, plan


def main(arguments: Sequence[str]) -> None:
    """Writes both files."""
    rows, folder, train_batch_size = np.load(arguments[0]), Path(arguments[1]), int(arguments[2])
    names = ("latent_set", "base_model", "initial_embedding")
    inputs = dict(zip(names, map(Path, arguments[3:]), strict=True))
    found = gradients(rows, inputs, train_batch_size)
    rank = Accelerator().process_index
    if rank == 0:
        np.save(folder / "gradients.npy", found)
    sent = collectives(inputs, train_batch_size, folder)
    (folder / f"collectives-{rank}.json").write_text(json.dumps(sent))


if __name__ == "__main__":
    main(sys.argv[1:])
