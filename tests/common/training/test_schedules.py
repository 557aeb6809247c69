"""Learning-rate schedules equal those of diffusers."""

from __future__ import annotations

import pytest
import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from components.common.training.config import LR_SCHEDULERS, TrainConfig
from components.common.training.schedules import ema_decay, learning_rate

PEAK = 2e-3
STEPS = 100


@pytest.mark.parametrize("warmup", [0, 1, 20])
@pytest.mark.parametrize("name", LR_SCHEDULERS)
def test_learning_rate_equals_diffusers(name: str, warmup: int) -> None:
    config = TrainConfig(
        lr_scheduler=name, lr_warmup_steps=warmup, max_train_steps=STEPS, lr_num_cycles=3, lr_power=2.0
    )
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    theirs = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=STEPS, num_cycles=3, power=2.0)
    for step in range(STEPS + 5):
        assert learning_rate(config, step=step, peak=PEAK) == pytest.approx(
            theirs.get_last_lr()[0], rel=1e-12, abs=1e-18
        )
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("decay", [0.3, 0.99])
def test_decay_of_the_average_equals_diffusers(decay: float) -> None:
    reference = EMAModel([torch.nn.Parameter(torch.zeros(1))], decay=decay)
    config = TrainConfig(ema_decay=decay)
    for step in range(1200):
        assert ema_decay(config, step=step) == reference.get_decay(step + 1)
