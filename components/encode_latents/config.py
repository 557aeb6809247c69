"""Where pictures are encoded."""

from __future__ import annotations

import dataclasses

from components.common.options import Config, option
from components.common.training.config import ACCELERATORS


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodeConfig(Config):
    """What the step is told."""

    accelerator: str = option("where to encode", "gpu", choices=ACCELERATORS)
