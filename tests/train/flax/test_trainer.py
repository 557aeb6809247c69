"""One step on one device, on many, in several processes, accumulated, with recomputed activations, in bfloat16."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from components.common.errors import ConfigError
from components.common.training.config import TrainConfig
from components.train.flax import micro_batches
from components.train.flax.micro_batches import compiled_that_fits, memory_needed, sizes_that_fit
from components.train.flax.models import noticing_lost_processes
from components.train.flax.row_norms import controlled_gradients
from tests import flax_runs as runs

STEPS = 2
TOO_LARGE = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (72.97G) exceeds available HBM (15.75G). HLO module: jit_f."
)
"""What the compiler for TPUs says, of jax 0.10.2 and libtpu 0.0.52."""
DIMENSION = 32
_BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1}


def train_here(model: Path, **fields: Any) -> dict[str, np.ndarray]:
    config = TrainConfig(**fields)
    trainer, plan = runs.flax_trainer(model, config), runs.sampling_plan(config)
    losses = [trainer.step(plan.batch(step), 1e-2) for step in range(STEPS)]
    return runs.what_was_trained(trainer, losses)


def train_elsewhere(
    model: Path, outputs: list[Path], *, devices: int, environments: list[dict[str, str]], **fields: Any
) -> list[dict[str, np.ndarray]]:
    """The same in processes of their own, one for each output."""
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.flax_runs",
                json.dumps(
                    {
                        "model": str(model),
                        "output": str(output),
                        "steps": STEPS,
                        "num_processes": len(outputs),
                        **fields,
                    }
                ),
            ],
            env=runs.subprocess_environment(devices=devices, **environment),
            cwd=runs.REPOSITORY,
            stderr=subprocess.PIPE,
            text=True,
        )
        for output, environment in zip(outputs, environments, strict=True)
    ]
    for process in started:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-3000:]
    return [dict(np.load(output)) for output in outputs]


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def assert_close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], tolerance: float = 1e-5) -> None:
    assert found.keys() == wanted.keys()
    for name in found.keys() - {"micro_batch_size"}:
        assert relative(found[name], wanted[name]) < tolerance, name


@pytest.fixture(scope="module")
def on_one_device(micro_model: Path) -> dict[str, np.ndarray]:
    return train_here(micro_model, train_batch_size=8)


@pytest.fixture(scope="module")
def on_eight_devices(micro_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, np.ndarray], str]:
    output = tmp_path_factory.mktemp("eight") / "trained.npz"
    (trained,) = train_elsewhere(micro_model, [output], devices=8, environments=[{}], train_batch_size=8)
    return trained, output.with_suffix(".hlo").read_text()


def test_eight_devices_equal_one(
    on_one_device: dict[str, np.ndarray], on_eight_devices: tuple[dict[str, np.ndarray], str]
) -> None:
    assert_close(on_eight_devices[0], on_one_device)
    assert on_eight_devices[0]["micro_batch_size"] == 1


def test_devices_tell_each_other_the_rows_gradient_alone(
    on_eight_devices: tuple[dict[str, np.ndarray], str],
) -> None:
    collectives = collective_bytes(on_eight_devices[1])
    assert set(collectives) == {"all-reduce"}
    assert DIMENSION * 4 <= collectives["all-reduce"] <= DIMENSION * 4 + 64


def collective_bytes(text: str) -> dict[str, int]:
    """Bytes that the collectives of a compiled function give, by kind."""
    kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast"
    found: dict[str, int] = {}
    for shapes, kind in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text):
        for dtype, dimensions in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            count = int(np.prod([int(size) for size in dimensions.split(",") if size]))
            found[kind] = found.get(kind, 0) + count * _BYTES[dtype]
    return found


def two_processes() -> list[dict[str, str]]:
    """The environments in which two processes find each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    return [{**address, "JAX_PROCESS_ID": str(rank)} for rank in range(2)]


def test_two_processes_equal_one(tmp_path: Path, micro_model: Path, on_one_device: dict[str, np.ndarray]) -> None:
    outputs = [tmp_path / f"{rank}.npz" for rank in range(2)]
    first, second = train_elsewhere(micro_model, outputs, devices=2, environments=two_processes(), train_batch_size=4)
    assert_close(first, on_one_device)
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value)


def test_rows_of_two_text_encoders_are_the_same_on_two_devices(tiny_sdxl: Path, tmp_path: Path) -> None:
    output = tmp_path / "trained.npz"
    (found,) = train_elsewhere(tiny_sdxl, [output], devices=2, environments=[{}], train_batch_size=2)
    assert_close(found, train_here(tiny_sdxl, train_batch_size=2))
    assert {"rows.text_encoder", "rows.text_encoder_2"} < found.keys()


def test_accumulation_equals_one_batch(micro_model: Path, on_one_device: dict[str, np.ndarray]) -> None:
    fields = {"train_batch_size": 2, "gradient_accumulation_steps": 4}
    assert_close(train_here(micro_model, **fields, fuse_micro_batches=False), on_one_device)


def test_recomputed_activations_change_nothing(micro_model: Path, on_one_device: dict[str, np.ndarray]) -> None:
    assert_close(train_here(micro_model, train_batch_size=8, gradient_checkpointing=True), on_one_device)


def test_bfloat16_keeps_the_gradients_direction(micro_model: Path, on_one_device: dict[str, np.ndarray]) -> None:
    found = train_here(micro_model, train_batch_size=8, mixed_precision="bf16")
    assert all(value.dtype == np.float32 for name, value in found.items() if name != "micro_batch_size")
    ours, exact = (each[f"first.{runs.TEXT_ENCODER}"].ravel() for each in (found, on_one_device))
    assert ours @ exact / (np.linalg.norm(ours) * np.linalg.norm(exact)) > 0.99
    assert not np.array_equal(ours, exact)


def test_step_is_compiled_once(micro_model: Path) -> None:
    config = TrainConfig(train_batch_size=2)
    trainer, plan = runs.flax_trainer(micro_model, config), runs.sampling_plan(config)
    trainer.step(plan.batch(0), 1e-2)
    compiled: list[str] = []

    def note(event: str, duration: float, **more: str | int) -> None:
        if "compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        for step in range(1, 4):
            trainer.step(plan.batch(step), 1e-2 / step)
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert compiled == []


def test_failed_step_of_a_process_alone_is_blamed_on_no_other() -> None:
    def fail(values: np.ndarray) -> np.ndarray:
        raise ValueError("the device failed")

    compute = jax.jit(lambda values: jax.pure_callback(fail, jax.ShapeDtypeStruct((2,), np.float32), values))
    with pytest.raises(jax.errors.JaxRuntimeError, match="the device failed"), noticing_lost_processes():
        compute(np.ones(2, np.float32)).block_until_ready()


@pytest.mark.parametrize(("share_of_memory", "found"), [(0.9, 2), (1e-9, 1)])
def test_kept_size_is_taken_when_memory_allows(
    micro_model: Path, monkeypatch: pytest.MonkeyPatch, share_of_memory: float, found: int
) -> None:
    config = TrainConfig(train_batch_size=2, gradient_accumulation_steps=2)
    trainer, plan = runs.flax_trainer(micro_model, config), runs.sampling_plan(config)
    monkeypatch.setattr(micro_batches, "MEMORY_SHARE", share_of_memory)
    state = trainer.copy_state(0, []).read()[0]
    trainer.write_state(dataclasses.replace(state, micro_batch_size=2))
    trainer.step(plan.batch(0), 1e-2)
    assert trainer.copy_state(1, []).read()[0].micro_batch_size == found


def test_copy_is_done_only_when_read_and_never_changes(micro_model: Path) -> None:
    config = TrainConfig(train_batch_size=2)
    trainer, plan = runs.flax_trainer(micro_model, config), runs.sampling_plan(config)
    before = trainer.copy_state(0, [])
    loss = trainer.step(plan.batch(0), 1e-2)
    after = trainer.copy_state(1, [loss])
    assert before.done()
    state, losses = after.read()
    assert after.done() and losses.shape == (1,) and state.micro_batch_size == 2
    assert not np.array_equal(before.read()[0].rows[runs.TEXT_ENCODER], state.rows[runs.TEXT_ENCODER])
    assert not before.read()[0].first_moment[runs.TEXT_ENCODER].any()


def test_rows_of_two_text_encoders_go_on_as_if_never_stopped(tiny_sdxl: Path) -> None:
    """And each is held to its own vocabulary's norm."""
    config = TrainConfig(train_batch_size=2, ema_decay=0.9, norm_control="rescale", max_grad_norm=1.0)
    trainer, plan = runs.flax_trainer(tiny_sdxl, config, 2), runs.sampling_plan(config)
    states = [trainer.copy_state(0, []).read()[0]]
    for step in range(STEPS):
        trainer.step(plan.batch(step), 1e-2)
        states.append(trainer.copy_state(step + 1, []).read()[0])
    trainer.write_state(dataclasses.replace(states[1], micro_batch_size=None))
    trainer.step(plan.batch(1), 1e-2)
    again = trainer.copy_state(2, []).read()[0]
    assert set(again.rows) == {"text_encoder", "text_encoder_2"}
    for part, norm in trainer.vocabulary_norms.items():
        np.testing.assert_allclose(np.linalg.norm(again.rows[part], axis=1), norm, rtol=1e-5)
        for name in ("rows", "first_moment", "second_moment", "ema"):
            np.testing.assert_array_equal(getattr(again, name)[part], getattr(states[2], name)[part])
        assert np.abs(states[1].rows[part] - states[2].rows[part]).max() > 1e-3


def test_gradients_of_all_text_encoders_are_shortened_together() -> None:
    generator = np.random.default_rng(0)
    given = {name: generator.normal(size=(2, width)).astype(np.float32) for name, width in (("a", 3), ("b", 5))}
    parameters = {name: torch.nn.Parameter(torch.zeros(values.shape)) for name, values in given.items()}
    for name, parameter in parameters.items():
        parameter.grad = torch.from_numpy(given[name].copy())
    torch.nn.utils.clip_grad_norm_(list(parameters.values()), 0.5)
    found = controlled_gradients(TrainConfig(max_grad_norm=0.5), given, given)
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        np.testing.assert_allclose(found[name], parameter.grad.numpy(), rtol=1e-6)


def test_batch_that_devices_cannot_share_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train_batch_size 3 x .* 2 = 6 samples .* 4 devices .* 4, 8, 12"):
        sizes_that_fit(TrainConfig(train_batch_size=3, gradient_accumulation_steps=2), 4)
    with pytest.raises(ConfigError, match="train_batch_size 2 without fuse_micro_batches"):
        config = TrainConfig(train_batch_size=2, gradient_accumulation_steps=2, fuse_micro_batches=False)
        sizes_that_fit(config, 4)


def test_sizes_are_shares_that_devices_can_halve() -> None:
    config = TrainConfig(train_batch_size=2, gradient_accumulation_steps=6)
    assert sizes_that_fit(config, 2) == [12, 6, 4, 2]
    assert sizes_that_fit(TrainConfig(train_batch_size=2, fuse_micro_batches=False), 2) == [2]


def compiled_for(size: int) -> jax.stages.Compiled:
    return jax.jit(lambda x: x @ x.T).lower(jax.ShapeDtypeStruct((size, 100), jnp.float32)).compile()


def compiler_that_refuses(at_least: int, message: str = TOO_LARGE) -> Callable[[int], jax.stages.Compiled]:
    def compile_size(size: int) -> jax.stages.Compiled:
        if size >= at_least:
            raise jax.errors.JaxRuntimeError(message)
        return compiled_for(size)

    return compile_size


def test_size_that_the_compiler_refuses_is_followed_by_the_next() -> None:
    size, compiled = compiled_that_fits([8, 4, 2], compiler_that_refuses(8), limit=1e9)
    assert size == 4 and compiled(jnp.ones((4, 100))).shape == (4, 4)


def test_size_that_takes_too_much_is_followed_by_the_next() -> None:
    limit = memory_needed(compiled_for(4))
    assert compiled_that_fits([8, 4, 2], compiled_for, limit)[0] == 4
    assert compiled_that_fits([8, 4, 2], compiled_for, limit=0)[0] == 2, "the last one is tried all the same"


def test_error_names_all_sizes_when_none_compiles() -> None:
    with pytest.raises(ConfigError, match=r"with 8, 4 samples at once.*exceeds available HBM.*gradient_checkpointing"):
        compiled_that_fits([8, 4], compiler_that_refuses(0), limit=1e9)


def test_other_errors_of_the_compiler_are_raised() -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match="UNIMPLEMENTED"):
        compiled_that_fits([8, 4], compiler_that_refuses(8, "UNIMPLEMENTED: a layout"), limit=1e9)


def test_trainer_goes_on_with_the_size_that_compiles(micro_model: Path) -> None:
    config = TrainConfig(train_batch_size=2)

    def compile_lowered(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
        if "tensor<1x2x4x8x8xf32>" in lowered.as_text():  # one micro-batch of both samples' noise
            raise jax.errors.JaxRuntimeError(TOO_LARGE)
        return lowered.compile()

    trainer, plan = runs.flax_trainer(micro_model, config, compile_lowered=compile_lowered), runs.sampling_plan(config)
    state, _ = trainer.copy_state(1, [trainer.step(plan.batch(0), 1e-2)]).read()
    assert state.micro_batch_size == 1


def test_processes_agree_on_the_size_when_one_is_refused() -> None:
    code = f"""
from components.flax_models.devices import join_processes
join_processes()
import jax, jax.numpy as jnp
from components.train.flax.micro_batches import compiled_that_fits

def compile_size(size):
    if size >= 8 // (1 + jax.process_index()):
        raise jax.errors.JaxRuntimeError({TOO_LARGE!r})
    return jax.jit(jnp.sin).lower(jax.ShapeDtypeStruct((size,), jnp.float32)).compile()

print(compiled_that_fits([8, 4, 2], compile_size, limit=1e9)[0])
"""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=runs.subprocess_environment(**environment),
            cwd=runs.REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in two_processes()
    ]
    ended = [process.communicate(timeout=240) for process in started]
    assert [told.splitlines()[-1:] for told, _ in ended] == [["2"], ["2"]], ended  # after what Gloo says
