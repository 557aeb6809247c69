"""Every argument of the guide and of diffusers' scripts is an option here, or says what to do instead."""

from __future__ import annotations

import argparse

import pytest

from components.common.cli import parse_flags
from components.common.errors import ConfigError
from components.common.upstream_names import HINTS, no_such_option
from components.preflight.options import check_options, known_options

GUIDE = """
    pretrained_model_name_or_path revision variant tokenizer_name train_data_dir output_dir push_to_hub hub_token
    hub_model_id checkpointing_steps resume_from_checkpoint checkpoints_total_limit num_vectors placeholder_token
    initializer_token learnable_property gradient_accumulation_steps save_steps save_as_full_pipeline seed resolution
    center_crop repeats train_batch_size num_train_epochs max_train_steps learning_rate scale_lr lr_scheduler
    lr_warmup_steps lr_num_cycles dataloader_num_workers adam_beta1 adam_beta2 adam_weight_decay adam_epsilon
    use_8bit_adam mixed_precision gradient_checkpointing allow_tf32 report_to logging_dir validation_prompt
    num_validation_images validation_steps enable_xformers_memory_efficient_attention no_safe_serialization
    interpolation
"""
SCRIPTS = "validation_epochs local_rank use_auth_token streaming size flip_p set"


@pytest.mark.parametrize("name", [*GUIDE.split(), *SCRIPTS.split()])
def test_every_name_of_the_reference_is_an_option_or_has_a_hint(name: str) -> None:
    assert name in known_options() or HINTS[name]


def test_hint_is_told_with_the_options_and_for_flags(capsys: pytest.CaptureFixture[str]) -> None:
    told = "train_data_dir: there is no such option: it is images_uri here"
    with pytest.raises(ConfigError, match=told):
        check_options({"train_data_dir": "x"})
    with pytest.raises(SystemExit):
        parse_flags(argparse.ArgumentParser(), ["--train-data-dir=x", "--hub_token", "y"], options=known_options())
    said = capsys.readouterr().err
    assert told in said and "hub_token: there is no such option: everybody could read" in said


def test_hints_name_options_that_there_are() -> None:
    named = {word for hint in HINTS.values() if "it is " in hint for word in hint.split() if "_" in word}
    assert {word.strip(",:") for word in named if word.islower()} <= {*known_options(), "hub_token"}


def test_close_name_is_proposed() -> None:
    assert no_such_option("learning_rat", known_options()).endswith("did you mean learning_rate?")
    assert no_such_option("zzzz", known_options()) == "zzzz: there is no such option"
