"""One optimizer step of one word or of several that share every pass of the models.

Each word has its own samples, loss, gradient and update: a word's rows do not enter the others' losses, so that the
gradient of the sum of the words' losses is each one's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from components.common.errors import TrainingError
from components.common.training.loop import NextStep
from components.common.training.sampling_plan import Batch
from components.train.torch.micro_batches import WAYS_TO_SAVE_MEMORY
from components.train.torch.objective import mean_loss
from components.train.torch.samples import Samples

if TYPE_CHECKING:
    from components.train.torch.trainer import TorchTrainer

Work = Sequence[tuple["TorchTrainer", Batch]]
"""This process's samples of some words."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Denoising:
    """What the UNet is asked with b samples of one word, and what it should predict.

    Attributes:
        noisy_latents: float32 [b, C, h, w].
        timestep: int64 [b].
        prompt_ids: int64 [b, tokens] for each text encoder, with all words' rows.
        time_ids: float32 [b, 6], see `components.common.time_ids`.
        target: float32 [b, C, h, w].
        weights: of the samples' losses, float32 [b]; None where all weigh the same.
    """

    noisy_latents: torch.Tensor
    timestep: torch.Tensor
    prompt_ids: Mapping[str, torch.Tensor]
    time_ids: torch.Tensor
    target: torch.Tensor
    weights: torch.Tensor | None


def take_steps(steps: Sequence[NextStep]) -> list[torch.Tensor]:
    """One optimizer step with each of some trainers of the same models; gives their mean losses, float32 [].

    Raises:
        ConfigError: in the first step, when a GPU cannot hold the fewest samples that the configuration allows.
        TrainingError: when a GPU runs out of memory later.
        LostProcessError: when another process is gone.
    """
    work = [(step.trainer, step.batch) for step in steps]
    size = _size_for(work)
    try:
        losses = accumulate_gradients(work, at_once=size)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU ran out of memory with {size} samples at once, which fitted before "
            f"({error}): keep others off this GPU and start the same command again, or {WAYS_TO_SAVE_MEMORY}"
        ) from error
    # The losses go with the gradients: what a collective costs at this size is the waiting for all processes.
    found = [
        part
        for (trainer, _), loss in zip(work, losses, strict=True)
        for part in (trainer.gradient() / trainer.loss_scale, loss.reshape(1))
    ]
    shared = work[0][0].models.mean_over_processes(torch.cat(found)).split([len(part) for part in found])
    for step, gradient in zip(steps, shared[::2], strict=True):
        step.trainer.update(gradient, step.learning_rate, step.batch.step)
    return [loss[0] for loss in shared[1::2]]


def accumulate_gradients(work: Work, *, at_once: int) -> list[torch.Tensor]:
    """Adds the gradient of each batch's mean loss to its rows' gradient; gives those losses, float32 [].

    Text encoders and UNet take `at_once` samples at a time, so that the activations of the others are not in memory.
    """
    return _losses(work, at_once, learn=True)


def mean_losses(work: Work, *, at_once: int) -> list[torch.Tensor]:
    """Each batch's mean loss, float32 []; nothing is learned from it."""
    return _losses(work, at_once, learn=False)


def _losses(work: Work, at_once: int, *, learn: bool) -> list[torch.Tensor]:
    losses = [torch.zeros((), device=trainer.models.device) for trainer, _ in work]
    for part in _parts(work, at_once):
        found = _losses_of_part([(work[number][0], samples) for number, samples in part])
        scaled = []
        for (number, samples), loss in zip(part, found, strict=True):
            trainer, batch = work[number]
            share = loss * (len(samples) / len(batch))
            losses[number] += share.detach()
            scaled.append(share * trainer.loss_scale)
        if learn:
            torch.autograd.backward(scaled)
    return losses


def _losses_of_part(part: Sequence[tuple[TorchTrainer, Samples]]) -> list[torch.Tensor]:
    """The mean error of the UNet's prediction over each word's samples, float32 [], by one pass of all models."""
    models, config = part[0][0].models, part[0][0].config
    asked = [trainer.denoising(samples) for trainer, samples in part]
    prediction = models.predict(
        torch.cat([each.noisy_latents for each in asked]),
        torch.cat([each.timestep for each in asked]),
        models.encode({name: torch.cat([each.prompt_ids[name] for each in asked]) for name in models.text_encoders}),
        torch.cat([each.time_ids for each in asked]),
    )
    predictions = prediction.split([len(each.timestep) for each in asked])
    return [
        mean_loss(config, predicted, each.target, each.weights)
        for predicted, each in zip(predictions, asked, strict=True)
    ]


def _parts(work: Work, at_once: int) -> Iterator[list[tuple[int, Samples]]]:
    """All samples, word after word, cut into parts of `at_once`: the samples of each word in a part, by its number."""
    part: list[tuple[int, Samples]] = []
    room = at_once
    for number, (trainer, batch) in enumerate(work):
        samples, start = Samples.of(batch, trainer.models.device), 0
        while start < len(samples):
            taken = samples.part(slice(start, start + room))
            part.append((number, taken))
            start, room = start + len(taken), room - len(taken)
            if not room:
                yield part
                part, room = [], at_once
    if part:
        yield part


def _size_for(work: Work) -> int:
    """The samples to take at once, chosen with the first step."""
    kept = {trainer.kept_size for trainer, _ in work}

    def try_size(size: int) -> None:
        tried, room = [], size
        for trainer, batch in work:
            if room:
                tried.append((trainer, batch.part(slice(0, room))))
                room -= len(tried[-1][1])
        try:
            accumulate_gradients(tried, at_once=size)
        finally:
            for trainer, _ in tried:
                trainer.forget_gradient()

    return work[0][0].models.choose_size(
        sum(len(batch) for _, batch in work),
        words=len(work),
        kept=kept.pop() if len(kept) == 1 else None,
        try_size=try_size,
    )
