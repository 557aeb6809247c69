"""DPM-Solver++ 2M (Lu et al., arXiv 2211.01095) and Euler (Karras et al., arXiv 2206.00364), beside DDIM.

All three take the same step: towards the picture that the UNet predicts, along a straight line in the ratio of noise
to signal. They choose other timesteps, and DPM-Solver++ bends the line by how the prediction changed. So each is a
table of steps for `Ddim.denoise`; the tables are those of diffusers' `DPMSolverMultistepScheduler` and
`EulerDiscreteScheduler`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from components.common.errors import ConfigError
from components.flax_models.ddim import Ddim, Steps, load_ddim

_LEAST_SIGNAL = 2.0**-24
"""The share of signal where the schedule leaves none: without any, the ratio of noise to signal is infinite."""


class _RatioSampler(Ddim):
    """A sampler in the ratio of noise to signal, which ends at no noise at all."""

    def _ratios(self) -> np.ndarray:
        """The ratio of noise to signal at each timestep, float64 [timesteps]."""
        alphas = self.schedule.alphas_cumprod.astype(np.float64)
        alphas[-1] = alphas[-1] or _LEAST_SIGNAL
        return np.sqrt((1 - alphas) / alphas)

    def _check_count(self, count: int, most: int) -> None:
        if not 1 <= count <= most:
            raise ConfigError(f"num_inference_steps: found {count}, expected 1 to {most}")


class DpmSolver(_RatioSampler):
    """DPM-Solver++ of the second order, multistep, by the midpoint; its first and last step are of the first order."""

    def steps(self, count: int) -> Steps:
        """See `Ddim`."""
        total = self.schedule.num_train_timesteps
        self._check_count(count, total - 1)
        match self.spacing:
            case "leading":
                chosen = np.arange(1, count + 1)[::-1] * (total // (count + 1)) + float(self.offset)
            case "trailing":
                chosen = np.round(np.arange(total, 0, -total / count)) - 1
            case _:
                chosen = np.round(np.linspace(0, total - 1, count + 1))[:0:-1]
        timesteps = chosen.astype(np.int32)
        self.check_signal(timesteps)
        ratios = self._ratios()[timesteps]
        bend = np.zeros(count)
        for i in range(1, count - 1):
            # Half of the change of the prediction by a unit of the logarithm of the ratio, for the next of its changes.
            line = (1 - ratios[i + 1] / ratios[i]) / np.hypot(1, ratios[i + 1])
            bend[i] = line * 0.5 * np.log(ratios[i] / ratios[i + 1]) / np.log(ratios[i - 1] / ratios[i])
        return _steps(timesteps, ratios, bend)


class Euler(_RatioSampler):
    """Euler's method without noise on the way."""

    def steps(self, count: int) -> Steps:
        """See `Ddim`."""
        total = self.schedule.num_train_timesteps
        self._check_count(count, total)
        match self.spacing:
            case "leading":
                chosen = np.arange(count)[::-1] * (total // count) + float(self.offset)
            case "trailing":
                chosen = np.round(np.arange(total, 0, -total / count)) - 1
            case _:
                chosen = np.linspace(0, total - 1, count, dtype=np.float32)[::-1]
        self.check_signal(np.floor(chosen).astype(int))
        ratios = np.interp(chosen, np.arange(total), self._ratios())
        return _steps(chosen.astype(np.float32), ratios, np.zeros(count))

    def noise_scale(self, steps: Steps) -> float:
        """See `Ddim`: in diffusers the deviation is the ratio of noise to signal alone, but with leading timesteps."""
        return 1.0 if self.spacing == "leading" else float(np.sqrt(1 - steps.alpha[0]))


def _steps(timesteps: np.ndarray, ratios: np.ndarray, bend: np.ndarray) -> Steps:
    """The table of steps from each ratio of noise to signal to the next one, and to 0 at last."""
    alphas = (1 / (1 + np.append(ratios, 0.0) ** 2)).astype(np.float32)
    return Steps(timestep=timesteps, alpha=alphas[:-1], alpha_after=alphas[1:], bend=bend.astype(np.float32))


_KINDS: dict[str, type[Ddim]] = {"auto": Ddim, "ddim": Ddim, "dpm-solver++": DpmSolver, "euler": Euler}
"""By the names of `drawing.SAMPLERS`."""

SCHEDULERS = {Ddim: "DDIMScheduler", DpmSolver: "DPMSolverMultistepScheduler", Euler: "EulerDiscreteScheduler"}
"""What diffusers calls each."""


def load_sampler(model: Path, name: str = "auto") -> Ddim:
    """The sampler of that name (`drawing.SAMPLERS`) with the schedule in the model's folder `scheduler`.

    Raises:
        BaseModelError: as of `load_ddim`.
    """
    ddim, kind = load_ddim(model, is_asked_for=name != "auto"), _KINDS[name]
    fields = {field.name: getattr(ddim, field.name) for field in dataclasses.fields(ddim)}
    # Only DDIM clips, and only where the model's own DDIM does.
    return kind(**fields if kind is Ddim else {**fields, "clip": False})
