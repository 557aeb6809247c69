"""How a learned concept is sampled, scored and judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from components.common.champion import ChampionAddress
from components.common.drawing import (
    BATCH_SIZE,
    BATCH_SIZE_MEANING,
    PRECISION_MEANING,
    PRECISIONS,
    SAMPLER_MEANING,
    SAMPLERS,
)
from components.common.foreign_json import record_of
from components.common.options import Config, option
from components.common.training.config import FLAX_ACCELERATORS, MAX_SEED

DEFAULT_PROMPTS = {
    "object": (
        "a photo of a {}",
        "a photo of a {} on the beach",
        "a {} with a city in the background",
        "an oil painting of a {}",
    ),
    "style": (
        "a painting in the style of {}",
        "a portrait of a woman in the style of {}",
        "a city street in the style of {}",
        "a bowl of fruit in the style of {}",
    ),
}
"""What is sampled when no prompts are given: the concept itself first, then in new surroundings."""

NO_GAIN = -1
"""The `min_clip_i_gain` that asks for none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Config):
    """How a concept is sampled, scored and judged."""

    prefix = "evaluation_"
    title = "Samples, scores and the quality gate"

    prompts: tuple[str, ...] = option(
        "prompts to sample, with {} in the placeholder's place; none: four that suit the learnable_property",
        (),
        free_text=True,
    )
    reference_prompt: str = option(
        "words that describe the concept exactly, where they are known: they are sampled too, and CLIP-T is measured "
        "against them instead of the initializer token",
        "",
        free_text=True,
    )
    images_per_prompt: int = option("pictures for each prompt", 4, least=1)
    num_inference_steps: int = option("denoising steps for each picture", 50, least=1)
    guidance_scale: float = option("weight of classifier-free guidance", 7.5, least=0)
    negative_prompt: str = option("what guidance leads away from", "", free_text=True)
    sampling_batch_size: int = option(BATCH_SIZE_MEANING, BATCH_SIZE, least=1)
    sampler: str = option(SAMPLER_MEANING, SAMPLERS[0], choices=SAMPLERS)
    sampling_precision: str = option(
        f"{PRECISION_MEANING}; where pictures come out blank, all are drawn once more in fp32",
        PRECISIONS[0],
        choices=PRECISIONS,
    )
    safety_checker: str = option(
        "whether the base model's own safety checker looks at the samples: those that it objects to are shown blurred "
        "and counted, and count in the scores",
        "off",
        choices=("off", "on"),
    )
    seed: int = option("seed of the first picture; the n-th picture after it has seed + n", 0, least=0, most=MAX_SEED)
    min_clip_i_gain: float = option(
        "how much closer to the concept's pictures (CLIP-I) the samples must be than those of what training started "
        "from; -1 turns it off, as a start from the champion does",
        0.02,
        least=NO_GAIN,
        most=1,
    )
    min_clip_i: float = option("least CLIP-I of the samples; 0 turns it off", 0.0, least=-1, most=1)
    min_clip_t: float = option("least CLIP-T of the samples; 0 turns it off", 0.0, least=-1, most=1)

    def find_mistakes(self) -> Iterable[str]:
        """See `Config.find_mistakes`."""
        for prompt in self.prompts:
            if "{}" not in prompt:
                yield (
                    f"prompts: found {prompt!r}, expected {{}} where the placeholder is to stand, "
                    "such as 'a photo of a {}'"
                )

    def prompts_for(self, learnable_property: str) -> tuple[str, ...]:
        """The prompts to sample: those given, or the default ones of `object` or `style`."""
        return self.prompts or DEFAULT_PROMPTS[learnable_property]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig(EvaluateOptions):
    """What the step is told: the options, where it draws, and what a reference does not say."""

    dino: str = option("where the DINO model came from that was imported beside the scorer, for the record", "")
    accelerator: str = option("where to draw: cpu and gpu by PyTorch, tpu by JAX", "gpu", choices=FLAX_ACCELERATORS)
    champion: Mapping[str, Any] = option(
        "what to hold the samples against, a version of a registry: its alias, version, uri and digest (bundle_digest "
        "of its manifest); empty: nothing",
        {},
    )

    def find_mistakes(self) -> Iterable[str]:
        """See `Config.find_mistakes`."""
        yield from super().find_mistakes()
        try:
            _ = self.champion_address
        except ValueError as error:
            yield f"champion: {error}, expected alias, version, uri and digest"

    @property
    def champion_address(self) -> ChampionAddress | None:
        """What to hold the samples against; None when nobody looked for it."""
        return record_of(ChampionAddress, dict(self.champion)) if self.champion else None
