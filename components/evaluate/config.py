"""How a learned concept is sampled, scored and judged."""

from __future__ import annotations

import dataclasses

from components.common.errors import ConfigError

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The parameters of the step; `DESCRIPTIONS` says what each one is."""

    prompts: tuple[str, ...] = ()
    reference_prompt: str = ""
    images_per_prompt: int = 4
    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    negative_prompt: str = ""
    sampling_batch_size: int = 4
    seed: int = 0
    min_clip_i_gain: float = 0.02
    min_clip_i: float = 0.0
    min_clip_t: float = 0.0

    def __post_init__(self) -> None:
        """Raises `ConfigError` on a value that cannot be right."""
        object.__setattr__(self, "prompts", tuple(self.prompts))
        for prompt in self.prompts:
            if "{}" not in prompt:
                raise ConfigError(
                    f"prompts: found {prompt!r}, expected {{}} where the placeholder is to stand, "
                    "such as 'a photo of a {}'"
                )
        for name in ("images_per_prompt", "num_inference_steps", "sampling_batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected 1 or more")
        if self.guidance_scale < 0:
            raise ConfigError(f"guidance_scale: found {self.guidance_scale}, expected 0 or more")
        if self.seed < 0:
            raise ConfigError(f"seed: found {self.seed}, expected 0 or more")
        for name in ("min_clip_i_gain", "min_clip_i", "min_clip_t"):
            if not -1 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected -1 to 1, as cosines are")

    def prompts_for(self, learnable_property: str) -> tuple[str, ...]:
        """The prompts to sample: those given, or the default ones of `object` or `style`."""
        return self.prompts or DEFAULT_PROMPTS[learnable_property]


DESCRIPTIONS = {
    "prompts": "prompts to sample, with {} in the placeholder's place; none: four that suit the learnable_property",
    "reference_prompt": "words that describe the concept exactly, where they are known: they are sampled too, "
    "and CLIP-T is measured against them instead of the initializer token",
    "images_per_prompt": "pictures for each prompt",
    "num_inference_steps": "denoising steps for each picture",
    "guidance_scale": "weight of classifier-free guidance",
    "negative_prompt": "what guidance leads away from",
    "sampling_batch_size": "pictures drawn at once; it changes speed and memory, not the pictures",
    "seed": "seed of the first picture; the n-th picture after it has seed + n",
    "min_clip_i_gain": "how much closer to the concept's pictures (CLIP-I) the samples must be than those of "
    "the initializer token; -1 turns it off",
    "min_clip_i": "least CLIP-I of the samples; 0 turns it off",
    "min_clip_t": "least CLIP-T of the samples; 0 turns it off",
}
"""What each parameter is, for the command line and the documentation."""
