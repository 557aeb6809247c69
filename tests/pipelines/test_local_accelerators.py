"""What the steps see of this machine's accelerators."""

from __future__ import annotations

import pytest

from pipelines.local_accelerators import visible_gpus


@pytest.mark.parametrize(("given", "seen"), [(None, "0,1"), ("3,5,7", "3,5"), ("GPU-a", "GPU-a")])
def test_steps_see_as_many_gpus_as_asked_for(given: str | None, seen: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus("gpu", 2) == {"CUDA_VISIBLE_DEVICES": seen}
    assert visible_gpus("cpu", 0) == visible_gpus("tpu", 4) == {}
