"""A process of a training in PyTorch: joined by accelerate, with one device of its own."""

from __future__ import annotations

import functools

import torch
from accelerate import Accelerator

from components.common.training.config import TrainConfig
from components.common.training.loop import Placement
from components.common.training.run_artifacts import check_channels
from components.torch_models.loading import (
    WEIGHT_DTYPES,
    describe_device,
    device_for,
    load_noise_scheduler,
    load_text_encoders,
    load_unet,
)
from components.train.process import Built, Process, TrainerInputs
from components.train.torch.launcher import check_launcher, check_processes
from components.train.torch.models import FrozenModels
from components.train.torch.together import take_steps
from components.train.torch.trainer import TorchTrainer


def join_torch(config: TrainConfig, accelerator: str) -> Process:
    """This process, joined with the others that accelerate's or torch's launcher has started.

    Args:
        config: how to train.
        accelerator: `cpu` or `gpu`.

    Raises:
        ConfigError: when the launcher's configuration cannot be honoured, or the device or a process is missing.
    """
    check_launcher(accelerator)
    # Weights are loaded in their precision: accelerate has nothing to cast, and no gradient to scale.
    joined = Accelerator(cpu=device_for(accelerator).type == "cpu", mixed_precision="no")
    check_processes(joined.num_processes)
    allow_tf32(config.allow_tf32)
    return Process(
        packages=("torch", "diffusers", "transformers", "accelerate"),
        placement=Placement(
            rank=joined.process_index,
            num_processes=joined.num_processes,
            from_all=lambda own: joined.gather(torch.tensor([own], device=joined.device)).tolist(),
        ),
        devices=describe_device(joined.device, joined.num_processes),
        build=functools.partial(_build, joined),
        end=joined.end_training,
    )


def allow_tf32(allowed: bool) -> None:
    """Lets NVIDIA GPUs round fp32 operands to TF32 in matrix products and convolutions, or forbids it in both.

    PyTorch's own defaults differ: it allows TF32 in convolutions alone.
    """
    precision = "tf32" if allowed else "ieee"
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]


def _build(joined: Accelerator, inputs: TrainerInputs) -> Built:
    dtype = WEIGHT_DTYPES[inputs.config.mixed_precision]
    noise_scheduler = load_noise_scheduler(inputs.model)
    unet = load_unet(inputs.model, dtype=dtype, device=joined.device)
    for word in inputs.words:
        check_channels(unet.config.in_channels, word.latents)
    text_encoders = load_text_encoders(inputs.model, inputs.family, dtype=dtype, device=joined.device)
    models = FrozenModels(
        inputs.config,
        family=inputs.family,
        text_encoders=text_encoders,
        unet=unet,
        noise_scheduler=noise_scheduler,
        accelerator=joined,
    )
    return Built(
        trainers=[
            TorchTrainer(
                config=word.config,
                latent_set=word.latents,
                embedding=word.embedding,
                prompt_ids=word.prompt_ids,
                models=models,
            )
            for word in inputs.words
        ],
        take_steps=take_steps,
        num_train_timesteps=noise_scheduler.config.num_train_timesteps,
    )
