"""Which framework trains on what."""

from __future__ import annotations

import pytest

from components.common.errors import ConfigError
from components.train.frameworks import framework_for


@pytest.mark.parametrize(
    ("framework", "accelerator", "trains"),
    [
        ("auto", "cpu", "torch"),
        ("auto", "gpu", "torch"),
        ("auto", "tpu", "flax"),
        ("torch", "cpu", "torch"),
        ("torch", "gpu", "torch"),
        ("flax", "cpu", "flax"),
        ("flax", "gpu", "flax"),
        ("flax", "tpu", "flax"),
    ],
)
def test_framework_trains_where_it_can(framework: str, accelerator: str, trains: str) -> None:
    assert framework_for(framework, accelerator) == trains


@pytest.mark.parametrize(
    ("framework", "accelerator", "message"),
    [
        (
            "torch",
            "tpu",
            "framework: found torch with accelerator tpu, expected auto or flax: torch trains on cpu, gpu",
        ),
        ("auto", "cuda", "accelerator: found 'cuda', expected one of cpu, gpu, tpu"),
        ("tensorflow", "cpu", "framework: found 'tensorflow', expected one of auto, torch, flax"),
    ],
)
def test_what_cannot_train_is_refused(framework: str, accelerator: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        framework_for(framework, accelerator)
