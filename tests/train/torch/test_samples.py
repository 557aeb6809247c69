"""A batch is the same on the device, whole and in parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from components.common.training.sampling_plan import SamplingPlan
from components.train.torch.samples import Samples

PLAN = SamplingPlan(
    seed=0,
    num_pictures=5,
    repeats=2,
    global_batch=6,
    num_templates=27,
    flip_probability=0.5,
    num_train_timesteps=1000,
    latents_shape=(4, 8, 8),
)


@pytest.mark.parametrize("size", [6, 4, 1])
def test_parts_are_the_batch_in_its_order(size: int) -> None:
    batch = PLAN.batch(3)
    samples = Samples.of(batch, torch.device("cpu"))
    parts = [samples.part(slice(at, at + size)) for at in range(0, 6, size)]
    assert [len(part) for part in parts] == [len(batch.part(slice(at, at + size))) for at in range(0, 6, size)]

    picture, flipped, template, timestep = torch.cat([part.numbers for part in parts], dim=1).numpy()
    posterior_noise, noise = torch.cat([part.noise for part in parts], dim=1).numpy()
    assert 0 < flipped.sum() < len(batch)
    for found, expected in (
        (picture, batch.picture),
        (flipped, batch.flipped),
        (template, batch.template),
        (timestep, batch.timestep),
        (posterior_noise, batch.posterior_noise),
        (noise, batch.diffusion_noise),
    ):
        np.testing.assert_array_equal(found, expected)
