"""The training configuration refuses what cannot be right, and its key covers what determines the rows."""

from __future__ import annotations

import dataclasses

import pytest

from components.common.errors import ConfigError
from components.common.training.config import MAX_SEED, TrainConfig, check_accelerator, key_fields


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
    ],
)
def test_key_changes_when_rows_change(changes: dict[str, object]) -> None:
    assert key_fields(TrainConfig(**changes), 1) != key_fields(TrainConfig(), 1)  # type: ignore[arg-type]


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
