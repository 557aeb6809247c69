"""Which word training is to start from, or that it is to be found."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from components.common.options import Config, option
from components.common.prompts import TEMPLATES
from components.common.training.config import ACCELERATORS


@dataclasses.dataclass(frozen=True, kw_only=True)
class FindStartWordConfig(Config):
    """What the step is told."""

    initializer_token: str = option("the word or words to measure, or auto to find one")
    learnable_property: str = option(
        "object or style: chooses the prompt that words are measured in", "object", choices=tuple(TEMPLATES)
    )
    clip_skip: int = option("how many of the text encoder's last layers prompts go without, as in training", 0, least=0)
    accelerator: str = option("where to measure", "gpu", choices=ACCELERATORS)

    def find_mistakes(self) -> Iterable[str]:
        """See `Config.find_mistakes`."""
        if not self.initializer_token:
            yield f"initializer_token: found {self.initializer_token!r}, expected a word such as toy, or auto"
