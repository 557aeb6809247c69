"""The sampling plan: what every training sample is, as a pure function of (seed, step, position in the global batch).

It is made on the host by numpy's counter-based Philox generator, the same for PyTorch and JAX and for any number of
processes, so that resuming is exact and the two trainers can be held against each other step by step. Pictures come as
a shuffled permutation of pictures x repeats per epoch, as in the reference script's data loader, without its short
last batch: an epoch's end may lie inside a batch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

PLAN_VERSION = 1
"""Raised whenever the same seed would give other samples; part of the training key."""

_CHOICES, _POSTERIOR_NOISE, _DIFFUSION_NOISE, _ORDER, _OFFSET_NOISE, _STRATA = range(6)
_WORD = 2.0**64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """The samples of some positions of one global batch; b samples, latents of shape [C, h, w].

    Attributes:
        step: the optimizer step, counted from 0.
        picture: int64 [b], index into the latent set.
        flipped: bool [b], whether the mirrored latents are taken.
        template: int64 [b], index into the prompt templates.
        timestep: int64 [b], of the noise scheduler.
        posterior_noise: float32 [b, C, h, w], standard normal: draws the latents from the VAE's posterior.
        diffusion_noise: float32 [b, C, h, w], standard normal, plus the offset noise: what the UNet is to predict.
    """

    step: int
    picture: np.ndarray
    flipped: np.ndarray
    template: np.ndarray
    timestep: np.ndarray
    posterior_noise: np.ndarray
    diffusion_noise: np.ndarray

    def __len__(self) -> int:
        return len(self.picture)

    def part(self, chosen: slice) -> Batch:
        """The batch of some of these samples."""
        arrays = {name: value[chosen] for name, value in vars(self).items() if name != "step"}
        return Batch(step=self.step, **arrays)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """All that determines the samples of a run.

    Attributes:
        seed: the run's seed, 0 to 2**63 - 1.
        num_pictures: pictures in the latent set.
        repeats: how many times each occurs in an epoch.
        global_batch: samples in one optimizer step over all processes.
        num_templates: prompt templates to choose from, uniformly.
        flip_probability: probability of the mirrored latents.
        num_train_timesteps: the noise scheduler's number of timesteps.
        latents_shape: (C, h, w).
        timesteps: those that are drawn, uniformly; None for all.
        stratified_timesteps: whether each of `global_batch` equal parts of the timesteps gives a global batch one.
        noise_offset: standard deviation of one more normal number for each sample and channel, added to the noise
            (diffusers, examples/text_to_image/train_text_to_image.py, `--noise_offset`).
    """

    seed: int
    num_pictures: int
    repeats: int
    global_batch: int
    num_templates: int
    flip_probability: float
    num_train_timesteps: int
    latents_shape: tuple[int, int, int]
    timesteps: range | None = None
    stratified_timesteps: bool = False
    noise_offset: float = 0.0

    def batch(self, step: int, positions: Sequence[int] | None = None) -> Batch:
        """The samples at `positions` (default: all) of the global batch of optimizer step `step`."""
        chosen = range(self.global_batch) if positions is None else positions
        samples = [step * self.global_batch + position for position in chosen]
        words = np.array([self._stream(_CHOICES, sample).random_raw(3) for sample in samples], dtype=np.uint64)
        return Batch(
            step=step,
            picture=np.array([self._picture(sample) for sample in samples], dtype=np.int64),
            flipped=words[:, 0] / _WORD < self.flip_probability,
            template=(words[:, 1] % np.uint64(self.num_templates)).astype(np.int64),
            timestep=self._timesteps(step, chosen, words[:, 2]),
            posterior_noise=self._noise(_POSTERIOR_NOISE, samples, self.latents_shape),
            diffusion_noise=self._diffusion_noise(samples),
        )

    def _picture(self, sample: int) -> int:
        epoch, place = divmod(sample, self.num_pictures * self.repeats)
        return int(_epoch_order(self.seed, epoch, self.num_pictures, self.repeats)[place])

    def _timesteps(self, step: int, positions: Sequence[int], words: np.ndarray) -> np.ndarray:
        among = self.timesteps or range(self.num_train_timesteps)
        if not self.stratified_timesteps:
            return among.start + (words % np.uint64(len(among))).astype(np.int64)
        strata = np.random.Generator(self._stream(_STRATA, step)).permutation(self.global_batch)[list(positions)]
        within = words >> np.uint64(32)
        places = (strata.astype(np.uint64) << np.uint64(32)) + within
        drawn = places * np.uint64(len(among)) // np.uint64(self.global_batch << 32)
        return among.start + drawn.astype(np.int64)

    def _diffusion_noise(self, samples: Sequence[int]) -> np.ndarray:
        noise = self._noise(_DIFFUSION_NOISE, samples, self.latents_shape)
        if self.noise_offset:
            offset = self._noise(_OFFSET_NOISE, samples, (self.latents_shape[0], 1, 1))
            noise += np.float32(self.noise_offset) * offset
        return noise

    def _noise(self, purpose: int, samples: Sequence[int], shape: tuple[int, int, int]) -> np.ndarray:
        noise = np.empty((len(samples), *shape), dtype=np.float32)
        for row, sample in zip(noise, samples, strict=True):
            np.random.Generator(self._stream(purpose, sample)).standard_normal(dtype=np.float32, out=row)
        return noise

    def _stream(self, purpose: int, index: int) -> np.random.Philox:
        return _stream(self.seed, purpose, index)


def _stream(seed: int, purpose: int, index: int) -> np.random.Philox:
    # The lowest word of the counter counts the draws, so streams with another upper word never meet.
    return np.random.Philox(key=[seed, PLAN_VERSION], counter=[0, 0, index, purpose])


@functools.lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, num_pictures: int, repeats: int) -> np.ndarray:
    shuffled = np.random.Generator(_stream(seed, _ORDER, epoch)).permutation(num_pictures * repeats)
    return shuffled % num_pictures
