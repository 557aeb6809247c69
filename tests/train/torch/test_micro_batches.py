"""How many samples are taken at once: what the configuration allows, and what memory holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from components.common.errors import ConfigError
from components.common.training.config import TrainConfig
from components.train.torch.micro_batches import (
    allowed_sizes,
    choose_on_cpu,
    choose_on_gpu,
    fair_share_of_free_memory,
)


@pytest.mark.parametrize(
    ("fuse", "kept", "expected"),
    [
        (True, None, [12, 6, 4, 3, 2]),
        (True, 4, [4, 3, 2]),
        (True, 12, [12, 6, 4, 3, 2]),
        (True, 1, [12, 6, 4, 3, 2]),
        (True, 5, [12, 6, 4, 3, 2]),
        (True, 96, [12, 6, 4, 3, 2]),
        (False, None, [2]),
        (False, 12, [2]),
        (False, 2, [2]),
    ],
)
def test_sizes_cut_the_share_evenly_and_begin_with_the_kept_one(
    fuse: bool, kept: int | None, expected: list[int]
) -> None:
    config = TrainConfig(train_batch_size=2, gradient_accumulation_steps=6, fuse_micro_batches=fuse)
    assert allowed_sizes(config, 12, kept) == expected


def device_holding(most: int, tried: list[int]) -> Callable[[int], None]:
    """A trial on a device that holds `most` samples; notes the sizes."""

    def try_size(size: int) -> None:
        tried.append(size)
        if size > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has 4.00 MiB free.")

    return try_size


@pytest.mark.parametrize(("most", "found", "trials"), [(12, 12, [12]), (5, 4, [12, 6, 4]), (1, 1, [12, 6, 4, 1])])
def test_gpu_takes_the_largest_size_that_fits(most: int, found: int, trials: list[int]) -> None:
    tried: list[int] = []
    assert choose_on_gpu([12, 6, 4, 1], device_holding(most, tried)) == found
    assert tried == trials


def test_gpu_that_holds_no_size_is_refused_with_ways_out() -> None:
    tried: list[int] = []
    with pytest.raises(ConfigError, match=r"with 2 samples at once.*tried: 4, 2\): turn on gradient_checkpointing"):
        choose_on_gpu([4, 2], device_holding(1, tried))
    assert tried == [4, 2]


def test_other_errors_of_a_trial_are_not_taken_for_lack_of_memory() -> None:
    def fail(size: int) -> None:
        raise RuntimeError(f"no kernel for {size}")

    with pytest.raises(RuntimeError, match="no kernel for 4"):
        choose_on_gpu([4, 2], fail)


def test_cpu_tries_nothing_when_there_is_no_choice() -> None:
    tried: list[int] = []
    assert choose_on_cpu([3], tried.append) == 3
    assert not tried


def test_processes_of_one_machine_share_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = fair_share_of_free_memory()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert alone / 16 < fair_share_of_free_memory() < alone / 4
