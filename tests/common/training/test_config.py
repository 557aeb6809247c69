"""The training configuration refuses what cannot be right, and its key covers what determines the rows."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from components.common.errors import ConfigError
from components.common.families import check_clip_skip
from components.common.training.checkpoints import training_key
from components.common.training.config import MAX_SEED, TrainConfig, check_accelerator
from components.common.training.key_fields import key_fields


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_train_steps", -1),
        ("lr_scheduler", "cosinus"),
        ("learnable_property", "person"),
        ("mixed_precision", "fp8"),
        ("train_batch_size", 0),
        ("gradient_accumulation_steps", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("adam_beta2", 1.0),
        ("flip_probability", 1.5),
        ("checkpointing_steps", 0),
        ("repeats", 0),
        ("seed", -1),
        ("seed", MAX_SEED + 1),
        ("snr_gamma", -1.0),
        ("noise_offset", -0.1),
        ("loss_type", "l1"),
        ("huber_delta", 0.0),
        ("timestep_min", -1),
        ("max_grad_norm", -1.0),
        ("clip_skip", -1),
        ("norm_control", "clip"),
        ("ema_decay", 1.0),
    ],
)
def test_config_names_field_and_value_when_impossible(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: found .*{str(value)[:8]}.*expected"):
        TrainConfig(**{name: value})  # type: ignore[arg-type]


def test_accelerator_is_refused_when_unknown() -> None:
    with pytest.raises(ConfigError, match=r"accelerator: found 'npu', expected one of cpu, gpu"):
        check_accelerator("npu")


def test_peak_learning_rate_is_scaled_as_in_reference() -> None:
    config = TrainConfig(learning_rate=5e-4, scale_lr=True, train_batch_size=1, gradient_accumulation_steps=4)
    assert config.peak_learning_rate(1) == pytest.approx(2e-3)
    assert config.peak_learning_rate(8) == pytest.approx(1.6e-2)
    assert dataclasses.replace(config, scale_lr=False).peak_learning_rate(8) == 5e-4


@pytest.mark.parametrize(
    "changes",
    [
        {"train_batch_size": 1, "gradient_accumulation_steps": 16},
        {"mixed_precision": "bf16"},
        {"gradient_checkpointing": True},
        {"checkpointing_steps": 7, "save_steps": 7, "log_steps": 7},
        {"max_train_steps": 10},
        {"num_train_epochs": 3},
        {"use_8bit_adam": True, "dataloader_num_workers": 4},
        {"lr_num_cycles": 9},
        {"lr_warmup_steps": 9},
        {"huber_delta": 0.5},
        {"norm_control": "none"},
        {"early_stopping_window": 9, "early_stopping_min_gain": 0.5, "early_stopping_min_steps": 9},
    ],
)
def test_key_stays_when_rows_stay(changes: dict[str, object]) -> None:
    assert key_fields(TrainConfig(**changes), 1) == key_fields(TrainConfig(), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"learning_rate": 2e-4},
        {"train_batch_size": 8},
        {"scale_lr": True},
        {"lr_scheduler": "constant_with_warmup"},
        {"learnable_property": "style"},
        {"flip_probability": 0.0},
        {"adam_weight_decay": 0.0},
        {"snr_gamma": 5.0},
        {"noise_offset": 0.1},
        {"loss_type": "huber"},
        {"loss_type": "huber", "huber_delta": 0.5},
        {"timestep_min": 1},
        {"timestep_max": 998},
        {"stratified_timesteps": True},
        {"max_grad_norm": 1.0},
        {"norm_control": "rescale"},
        {"norm_control": "fixed"},
        {"ema_decay": 0.99},
        {"clip_skip": 1},
    ],
)
def test_key_changes_when_rows_change(changes: dict[str, object]) -> None:
    assert key_fields(TrainConfig(**changes), 1) != key_fields(TrainConfig(), 1)  # type: ignore[arg-type]


def test_key_is_another_where_early_stopping_did_not_ask_for_a_gain() -> None:
    assert key_fields(TrainConfig(early_stopping_every=5), 1)["early_stopping_min_gain"] > 0
    assert "early_stopping_min_gain" not in key_fields(TrainConfig(), 1)


@pytest.mark.parametrize("name", ["early_stopping_min_gain", "early_stopping_min_steps"])
def test_key_changes_with_when_training_may_stop_early(name: str) -> None:
    changed = TrainConfig(early_stopping_every=5, **{name: 0.5 if name.endswith("gain") else 5})
    assert key_fields(changed, 1) != key_fields(TrainConfig(early_stopping_every=5), 1)


def test_earliest_stop_is_when_the_window_is_full_and_the_fewest_steps_are_taken() -> None:
    assert TrainConfig(early_stopping_every=5, early_stopping_window=4).earliest_stop == 20
    assert TrainConfig(early_stopping_every=5, early_stopping_window=4, early_stopping_min_steps=30).earliest_stop == 30


def test_names_of_the_reference_that_mean_nothing_here_are_taken_and_told() -> None:
    told = list(TrainConfig(use_8bit_adam=True, dataloader_num_workers=4).without_effect())
    assert [line.partition(":")[0] for line in told] == ["use_8bit_adam", "dataloader_num_workers"]
    assert not list(TrainConfig().without_effect())


@pytest.mark.parametrize(("epochs", "processes", "steps"), [(0, 1, 5000), (2, 1, 38), (2, 2, 19), (1, 4, 5)])
def test_epochs_are_as_many_steps_as_their_samples_take(epochs: int, processes: int, steps: int) -> None:
    config = TrainConfig(num_train_epochs=epochs, repeats=50, train_batch_size=4, gradient_accumulation_steps=2)
    resolved = config.with_steps(num_pictures=3, num_processes=processes)
    assert (resolved.max_train_steps, resolved.num_train_epochs) == (steps, 0)


def test_steps_are_in_key_when_schedule_ends_with_them() -> None:
    short = TrainConfig(lr_scheduler="linear", max_train_steps=10)
    long = TrainConfig(lr_scheduler="linear", max_train_steps=20)
    assert key_fields(short, 1) != key_fields(long, 1)


@pytest.mark.parametrize(
    ("fields", "num_processes", "key"),
    [
        ({}, 1, "65fe0907d865c561d19ff1007c4b25b13389bffcfa835f9617209d063cee30a7"),
        (
            {
                "max_embedding_norm": 1.0,
                "lr_scheduler": "cosine",
                "max_train_steps": 200,
                "adam_weight_decay": 0.0,
                "train_batch_size": 4,
            },
            2,
            "ee431796fa10085cde10f436dfd617810d794409f39c16f29583d47f3e742c12",
        ),
        (
            {
                "lr_scheduler": "cosine_with_restarts",
                "scale_lr": True,
                "gradient_accumulation_steps": 4,
            },
            1,
            "54df0d1279d608a9da9c3226275c161eee28f7c372864c3810734939b4c9a932",
        ),
    ],
)
def test_key_is_what_it_was_before_there_were_more_options(
    fields: dict[str, Any], num_processes: int, key: str
) -> None:
    assert training_key(key_fields(TrainConfig(**fields), num_processes)) == key


@pytest.mark.parametrize("control", ["fixed", "none"])
def test_norm_is_refused_with_a_control_that_holds_no_row_to_it(control: str) -> None:
    with pytest.raises(ConfigError, match=rf"max_embedding_norm: found 1.0 with norm_control {control}.*cap or resc"):
        TrainConfig(norm_control=control, max_embedding_norm=1.0)


def test_timesteps_are_from_the_smallest_to_the_largest() -> None:
    assert TrainConfig().timesteps(1000) == range(1000)
    assert TrainConfig(timestep_min=10, timestep_max=20).timesteps(1000) == range(10, 21)
    assert TrainConfig(timestep_min=999).timesteps(1000) == range(999, 1000)


def test_timesteps_are_refused_that_leave_none_or_that_the_schedule_does_not_have() -> None:
    with pytest.raises(ConfigError, match="timestep_max: found 5, expected timestep_min, 6, or more"):
        TrainConfig(timestep_min=6, timestep_max=5)
    for fields in ({"timestep_max": 1000}, {"timestep_min": 1000}):
        with pytest.raises(ConfigError, match=r"timestep_m..: found 1000, expected at most 999"):
            TrainConfig(**fields).timesteps(1000)


def test_clip_skip_leaves_a_layer() -> None:
    check_clip_skip(11, 12)
    with pytest.raises(ConfigError, match="clip_skip: found 12, expected less than 12"):
        check_clip_skip(12, 12)
