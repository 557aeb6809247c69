"""The sampling plan: the same samples for any number of processes and after any restart, rightly distributed."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from components.common.training.loop import Placement
from components.common.training.sampling_plan import PLAN_VERSION, Batch, SamplingPlan

GOLDEN = Path(__file__).parents[2] / "goldens" / "sampling_plan.json"


def make_plan(**changes: object) -> SamplingPlan:
    fields = {
        "seed": 1234,
        "num_pictures": 5,
        "repeats": 3,
        "global_batch": 4,
        "num_templates": 27,
        "flip_probability": 0.5,
        "num_train_timesteps": 1000,
        "latents_shape": (4, 2, 2),
    }
    return SamplingPlan(**{**fields, **changes})  # type: ignore[arg-type]


def assert_same(left: Batch, right: Batch) -> None:
    for field in dataclasses.fields(Batch):
        np.testing.assert_array_equal(getattr(left, field.name), getattr(right, field.name), err_msg=field.name)


def joined(parts: list[Batch]) -> Batch:
    names = [field.name for field in dataclasses.fields(Batch) if field.name != "step"]
    return Batch(step=parts[0].step, **{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})


OPTIONS = {"timesteps": range(100, 300), "stratified_timesteps": True, "noise_offset": 0.1}


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["plain", "options"])
@pytest.mark.parametrize("num_processes", [1, 2, 4, 8])
def test_batch_is_same_for_any_number_of_processes(num_processes: int, options: dict[str, object]) -> None:
    plan = make_plan(global_batch=8, **options)
    for step in (0, 1, 17):
        shares = [Placement(rank=rank, num_processes=num_processes).positions(8) for rank in range(num_processes)]
        assert_same(joined([plan.batch(step, share) for share in shares]), plan.batch(step))


def test_batch_is_same_after_restart() -> None:
    uninterrupted = make_plan()
    batches = [uninterrupted.batch(step) for step in range(40)]
    assert_same(make_plan().batch(39), batches[39])
    assert_same(make_plan().batch(3), batches[3])


def test_batch_equals_golden() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert golden["plan_version"] == PLAN_VERSION
    for expected in golden["batches"]:
        batch = make_plan().batch(expected["step"])
        assert batch.picture.tolist() == expected["picture"]
        assert batch.flipped.tolist() == expected["flipped"]
        assert batch.template.tolist() == expected["template"]
        assert batch.timestep.tolist() == expected["timestep"]
        np.testing.assert_array_equal(batch.posterior_noise[:, 0, 0], np.float32(expected["posterior_noise"]))
        np.testing.assert_array_equal(batch.diffusion_noise[:, 0, 0], np.float32(expected["diffusion_noise"]))


def test_every_picture_comes_repeats_times_in_an_epoch() -> None:
    plan = make_plan()
    pictures = np.concatenate([plan.batch(step).picture for step in range(60)])
    epochs = pictures.reshape(-1, 15)
    assert (np.stack([np.bincount(epoch, minlength=5) for epoch in epochs]) == 3).all()
    assert any((epoch != epochs[0]).any() for epoch in epochs[1:])


def test_batch_differs_when_seed_differs() -> None:
    ours, theirs = make_plan().batch(0), make_plan(seed=1235).batch(0)
    assert (ours.timestep != theirs.timestep).any()
    assert not np.isin(ours.diffusion_noise, theirs.diffusion_noise).any()


def test_posterior_and_diffusion_noise_are_independent() -> None:
    batch = make_plan(latents_shape=(4, 16, 16), global_batch=64).batch(0)
    correlation = np.corrcoef(batch.posterior_noise.ravel(), batch.diffusion_noise.ravel())[0, 1]
    assert abs(correlation) < 5 / math.sqrt(batch.diffusion_noise.size)


def test_flip_never_or_always_when_probability_is_0_or_1() -> None:
    assert not make_plan(flip_probability=0.0, global_batch=200).batch(0).flipped.any()
    assert make_plan(flip_probability=1.0, global_batch=200).batch(0).flipped.all()


def chi_square(counts: np.ndarray) -> float:
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize(("name", "kinds"), [("template", 27), ("flipped", 2), ("timestep", 1000)])
def test_choices_are_uniform(name: str, kinds: int) -> None:
    values = getattr(make_plan(global_batch=40_000, latents_shape=(1, 1, 1)).batch(0), name).astype(np.int64)
    statistic = chi_square(np.bincount(values, minlength=kinds))
    freedom = kinds - 1
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom) + 5


def test_noise_is_standard_normal() -> None:
    noise = make_plan(global_batch=256, latents_shape=(4, 16, 16)).batch(5).diffusion_noise.ravel().astype(np.float64)
    bound = 5 / math.sqrt(noise.size)
    assert abs(noise.mean()) < bound
    assert abs(noise.var() - 1) < bound * math.sqrt(2)
    assert abs((noise**4).mean() - 3) < bound * math.sqrt(96)
    within_one = np.mean(np.abs(noise) < 1)
    assert abs(within_one - math.erf(1 / math.sqrt(2))) < bound


def test_part_is_slice_of_batch() -> None:
    batch = make_plan().batch(2)
    assert_same(batch.part(slice(1, 3)), make_plan().batch(2, range(1, 3)))


def test_timesteps_are_those_that_are_asked_for() -> None:
    drawn = make_plan(global_batch=2000, timesteps=range(998, 1000), latents_shape=(1, 1, 1)).batch(0).timestep
    assert set(drawn.tolist()) == {998, 999}


@pytest.mark.parametrize(("timesteps", "global_batch"), [(range(1000), 8), (range(100, 107), 16), (range(3, 1000), 5)])
def test_every_stratum_gives_a_global_batch_one_timestep(timesteps: range, global_batch: int) -> None:
    plan = make_plan(global_batch=global_batch, timesteps=timesteps, stratified_timesteps=True)
    bounds = np.arange(global_batch + 1) * len(timesteps) / global_batch
    orders = set()
    for step in range(50):
        places = plan.batch(step).timestep - timesteps.start
        order = np.argsort(places, kind="stable")
        assert (places[order] >= np.floor(bounds[:-1])).all() and (places[order] < np.ceil(bounds[1:])).all()
        orders.add(tuple(order))
    assert len(orders) > 40


def test_stratified_timesteps_are_uniform() -> None:
    plan = make_plan(global_batch=8, latents_shape=(1, 1, 1), timesteps=range(20), stratified_timesteps=True)
    for position in (0, 7):
        drawn = [plan.batch(step, [position]).timestep[0] for step in range(4000)]
        assert chi_square(np.bincount(drawn, minlength=20)) < 19 + 5 * math.sqrt(2 * 19)


def test_offset_noise_is_one_number_for_each_sample_and_channel() -> None:
    shape = {"global_batch": 64, "latents_shape": (4, 8, 8)}
    plain, shifted = make_plan(**shape).batch(3), make_plan(**shape, noise_offset=0.5).batch(3)
    offset = (shifted.diffusion_noise - plain.diffusion_noise) / 0.5
    np.testing.assert_allclose(offset, np.broadcast_to(offset[:, :, :1, :1], offset.shape), atol=1e-5)
    numbers = offset[:, :, 0, 0]
    assert len(np.unique(numbers)) == numbers.size
    assert abs(numbers.mean()) < 5 / math.sqrt(numbers.size) and abs(numbers.std() - 1) < 0.25
    np.testing.assert_array_equal(shifted.posterior_noise, plain.posterior_noise)
    np.testing.assert_array_equal(shifted.timestep, plain.timestep)
