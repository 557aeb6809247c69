from __future__ import annotations

import argparse

import pytest

from components.common.cli import add_config_flags, config_from_flags
from components.common.errors import ConfigError
from components.evaluate.config import DEFAULT_PROMPTS, EvaluateConfig


def test_prompts_are_those_given_or_suit_the_property():
    assert EvaluateConfig(prompts=["a {} car"]).prompts_for("style") == ("a {} car",)
    for kind, expected in DEFAULT_PROMPTS.items():
        assert EvaluateConfig().prompts_for(kind) == expected
        assert EvaluateConfig(prompts=expected).prompts == expected  # the defaults are prompts that may be given


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompts": ("a photo of a cat",)}, "prompts: found 'a photo of a cat', expected {} where"),
        ({"images_per_prompt": 0}, "images_per_prompt: found 0, expected 1 or more"),
        ({"num_inference_steps": 0}, "num_inference_steps: found 0"),
        ({"sampling_batch_size": -1}, "sampling_batch_size: found -1"),
        ({"guidance_scale": -0.5}, "guidance_scale: found -0.5"),
        ({"seed": -1}, "seed: found -1"),
        ({"min_clip_i_gain": 2.0}, "min_clip_i_gain: found 2.0, expected -1 or more and at most 1"),
        ({"min_clip_i": float("nan")}, "min_clip_i: found nan"),
        ({"min_clip_t": -1.5}, "min_clip_t: found -1.5"),
        ({"champion": {"version": 3}}, "champion: it lacks 'alias', expected alias, version, uri and digest"),
        ({"champion": {"alias": "a", "version": "3"}}, "champion: version: found '3', expected int"),
    ],
)
def test_config_refuses(fields, message):
    with pytest.raises(ConfigError) as refused:
        EvaluateConfig(**fields)
    assert message in str(refused.value)


def test_flags_give_a_config():
    parser = argparse.ArgumentParser()
    add_config_flags(parser, EvaluateConfig)

    assert config_from_flags(EvaluateConfig, parser.parse_args([])) == EvaluateConfig()
    given = parser.parse_args(["--prompts", "a {}", "the {} here", "--min-clip-i-gain", "-1", "--seed", "3"])
    expected = EvaluateConfig(prompts=("a {}", "the {} here"), min_clip_i_gain=-1.0, seed=3)
    assert config_from_flags(EvaluateConfig, given) == expected
