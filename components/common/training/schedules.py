"""Learning rate and the average's decay as pure functions of the step.

The factors are those of `diffusers.optimization.get_scheduler` and `diffusers.training_utils.EMAModel`; a test holds
them together.
"""

from __future__ import annotations

import math

from components.common.training.config import TrainConfig

_POLYNOMIAL_END = 1e-7
"""The learning rate at which diffusers' polynomial schedule ends."""


def learning_rate(config: TrainConfig, *, step: int, peak: float) -> float:
    """The learning rate of the optimizer step `step` (the first is 0).

    Args:
        config: names the schedule, its warm-up, cycles and power, and the number of steps.
        step: counts optimizer steps from 0.
        peak: the learning rate that the schedule's factor multiplies.
    """
    return peak * _factor(config, step, peak)


def ema_decay(config: TrainConfig, *, step: int) -> float:
    """What the optimizer step `step` (the first is 0) leaves of the average before it; the rest are the new rows.

    It rises to `config.ema_decay`: an average of few steps shall not hang on to the initial rows.
    """
    return min((1 + step) / (10 + step), config.ema_decay) if step else 0.0


def _factor(config: TrainConfig, step: int, peak: float) -> float:
    name, warmup = config.lr_scheduler, config.lr_warmup_steps
    if name == "constant":
        return 1.0
    if step < warmup:
        return step / warmup
    if name == "constant_with_warmup":
        return 1.0
    if name == "polynomial" and step > config.max_train_steps:
        return _POLYNOMIAL_END / peak
    progress = (step - warmup) / max(1, config.max_train_steps - warmup)
    match name:
        case "linear":
            return max(0.0, 1.0 - progress)
        case "cosine":
            return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
        case "cosine_with_restarts":
            if progress >= 1.0:
                return 0.0
            return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((config.lr_num_cycles * progress) % 1.0))))
        case "polynomial":
            decayed = (peak - _POLYNOMIAL_END) * (1.0 - progress) ** config.lr_power + _POLYNOMIAL_END
            return decayed / peak
    raise AssertionError(f"TrainConfig let the schedule {name!r} pass")
