"""Writes `sampling_plan.json`: `python -m tests.goldens.make_sampling_plan`. Only when PLAN_VERSION is raised."""

from __future__ import annotations

import json
from pathlib import Path

from components.common.training.sampling_plan import PLAN_VERSION
from tests.common.training.test_sampling_plan import make_plan

STEPS = (0, 1, 3, 4, 1000)


def main() -> None:
    """Writes the golden beside this file."""
    batches = []
    for step in STEPS:
        batch = make_plan().batch(step)
        batches.append(
            {
                "step": step,
                "picture": batch.picture.tolist(),
                "flipped": batch.flipped.tolist(),
                "template": batch.template.tolist(),
                "timestep": batch.timestep.tolist(),
                "posterior_noise": batch.posterior_noise[:, 0, 0].tolist(),
                "diffusion_noise": batch.diffusion_noise[:, 0, 0].tolist(),
            }
        )
    golden = {"plan_version": PLAN_VERSION, "batches": batches}
    Path(__file__).with_name("sampling_plan.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
