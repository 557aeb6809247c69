"""The evaluation in JAX: the same pictures, losses and words as in PyTorch, and every part of the report."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from components.common.artifacts import LEARNED_EMBEDS, Evaluation, learned_embeds_bytes
from components.common.errors import ConfigError
from components.common.training.config import TPU_STAND_IN_VARIABLE
from components.evaluate.config import EvaluateConfig
from components.evaluate.drawing.flax_painter import FlaxPainter
from components.evaluate.drawing.painter import Painter, painter_for
from components.evaluate.drawing.torch_painter import TorchPainter
from components.evaluate.evaluation import evaluate
from components.flax_models.devices import mesh_for
from tests import flax_runs as runs
from tests.conftest import imported
from tests.evaluate.conftest import World, write_concept
from tests.evaluate.contents import image_set, pattern

SPRITES = runs.REPOSITORY / "examples" / "sprites" / "base_model"
CONFIG = EvaluateConfig(num_inference_steps=4, guidance_scale=2.5, sampling_batch_size=2, negative_prompt="a toy")
PROMPTS, SEEDS = ["a photo of a <concept>", "a star", "a <concept> on the snow"], [3, 4, 5]
ROUNDING = 1
"""How far a byte may be off: both compute in float32, and round to the other side now and then."""


def random_rows(width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (2, width)).astype(np.float32)


@pytest.fixture(scope="module")
def painters(tmp_path_factory: pytest.TempPathFactory) -> tuple[Painter, Painter]:
    """JAX and PyTorch with a concept of two vectors on the tiny world, whose scheduler is DDIM."""
    both = FlaxPainter(SPRITES, mesh=mesh_for("cpu")), TorchPainter(SPRITES, device=torch.device("cpu"))
    found, expected = (painter.vocabulary(runs.TEXT_ENCODER) for painter in both)
    np.testing.assert_array_equal(found.table, expected.table)
    assert list(found.tokens) == list(expected.tokens)
    file = tmp_path_factory.mktemp("concept") / LEARNED_EMBEDS
    rows = random_rows(expected.table.shape[1], seed=0)
    file.write_bytes(learned_embeds_bytes("<concept>", {runs.TEXT_ENCODER: rows}, {}))
    for painter in both:
        painter.load_concept(file)
    return both


def test_pictures_equal_torch_from_the_same_seeds(painters: tuple[Painter, Painter]) -> None:
    ours, theirs = (np.stack(painter.draw(PROMPTS, SEEDS, CONFIG, label="")) for painter in painters)
    assert ours.shape == (3, 32, 32, 3) and ours.dtype == np.uint8
    assert theirs.std() > 10
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= ROUNDING


def test_picture_is_that_of_its_seed_whatever_is_drawn_with_it(painters: tuple[Painter, Painter]) -> None:
    painter, _ = painters
    together = painter.draw(PROMPTS, SEEDS, CONFIG, label="")
    [alone] = painter.draw(PROMPTS[2:], SEEDS[2:], CONFIG, label="")
    assert np.abs(alone.astype(int) - together[2].astype(int)).max() <= ROUNDING
    [other] = painter.draw(PROMPTS[2:], [9], CONFIG, label="")
    assert (other != alone).any()


def test_three_devices_draw_and_measure_what_one_does(painters: tuple[Painter, Painter], tmp_path: Path) -> None:
    prompts = ["a star", "a circle on the snow", "a star", "a circle"]
    code = f"""
import numpy as np
from pathlib import Path
from components.evaluate.config import EvaluateConfig
from components.evaluate.drawing.flax_painter import FlaxPainter
from components.flax_models.devices import mesh_for
from tests.evaluate.contents import pattern
painter = FlaxPainter(Path({str(SPRITES)!r}), mesh=mesh_for("cpu"))
assert painter.settings["devices"] == "3 x cpu standing in for tpu"
drawn = painter.draw({prompts}, range(4), {CONFIG!r}, label="")
loss = painter.held_out_loss([pattern(seed) for seed in range(4)], "a star")
np.savez({str(tmp_path / "drawn.npz")!r}, pictures=np.stack(drawn), loss=loss)
"""
    environment = runs.subprocess_environment(devices=3)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runs.REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found, (painter, _) = np.load(tmp_path / "drawn.npz"), painters
    drawn = np.stack(painter.draw(prompts, range(4), CONFIG, label=""))
    assert np.abs(found["pictures"].astype(int) - drawn.astype(int)).max() <= ROUNDING
    loss = painter.held_out_loss([pattern(seed) for seed in range(4)], "a star")
    assert float(found["loss"]) == pytest.approx(loss, rel=1e-5)


def test_held_out_loss_equals_torch_and_follows_the_rows(painters: tuple[Painter, Painter]) -> None:
    pictures = [pattern(seed) for seed in range(3)]
    width = painters[0].vocabulary(runs.TEXT_ENCODER).table.shape[1]
    losses = []
    for seed in (0, 1):
        for painter in painters:
            painter.write_rows({runs.TEXT_ENCODER: random_rows(width, seed)})
        ours, theirs = (painter.held_out_loss(pictures, PROMPTS[0]) for painter in painters)
        assert ours == pytest.approx(theirs, rel=1e-4)
        losses.append(ours)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_second_concept_is_drawn_under_its_own_placeholder(painters: tuple[Painter, Painter], tmp_path: Path) -> None:
    """As a champion is, after the candidate."""
    rows = random_rows(painters[0].vocabulary(runs.TEXT_ENCODER).table.shape[1], seed=2)
    (tmp_path / LEARNED_EMBEDS).write_bytes(learned_embeds_bytes("<champion-0a>", {runs.TEXT_ENCODER: rows}, {}))
    for painter in painters:
        painter.load_concept(tmp_path / LEARNED_EMBEDS)
    prompts = [prompt.replace("<concept>", "<champion-0a>") for prompt in PROMPTS]
    ours, theirs = (np.stack(painter.draw(prompts, SEEDS, CONFIG, label="")) for painter in painters)
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= ROUNDING


def test_picture_is_black_when_rows_are_too_large_to_compute_with(tmp_path: Path) -> None:
    painter = FlaxPainter(SPRITES, mesh=mesh_for("cpu"))
    width = painter.vocabulary(runs.TEXT_ENCODER).table.shape[1]
    (tmp_path / LEARNED_EMBEDS).write_bytes(
        learned_embeds_bytes("<concept>", {runs.TEXT_ENCODER: np.full((1, width), 3e38, np.float32)}, {})
    )
    painter.load_concept(tmp_path / LEARNED_EMBEDS)
    without, with_concept = painter.draw(["a star", "a <concept>"], [0, 1], CONFIG, label="")
    assert with_concept.max() == 0 < without.max()


@pytest.fixture(scope="module")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The base model and the scorer of the tiny world, and a scoring set of three pictures."""
    scoring_set = tmp_path_factory.mktemp("scoring") / "set"
    image_set(3).write(scoring_set)
    return World(
        base_model=imported(SPRITES, tmp_path_factory),
        scorer=imported(SPRITES.parent / "clip", tmp_path_factory, kind="clip"),
        scoring_set=scoring_set,
        model=SPRITES,
    )


def test_evaluation_for_tpus_has_every_part(tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TPU_STAND_IN_VARIABLE, "cpu")
    concept = write_concept(tiny_world, tmp_path, vectors=2, moved=0.1, initializer="circle")
    asked = {"prompts": ("a photo of a {}",), "images_per_prompt": 3, "reference_prompt": "star"}
    evaluate(
        dataclasses.replace(CONFIG, **asked, min_clip_i_gain=-1.0),
        base_model=tiny_world.base_model,
        scorer=tiny_world.scorer,
        scoring_set=tiny_world.scoring_set,
        initial_embedding=concept.initial_embedding,
        learned_embedding=concept.learned_embedding,
        accelerator="tpu",
        output=tmp_path / "out",
    )
    found = Evaluation.read(tmp_path / "out")

    assert found.passed
    assert list(found.scores) == ["after", "before", "real", "true_caption"]
    drawn = [sample.variant for sample in found.samples]
    assert {variant: drawn.count(variant) for variant in drawn} == {
        "before": 3, "after": 3, "true_caption": 3, "step-2": 1
    }  # fmt: skip
    drawn_by = {name: found.settings[name] for name in ("framework", "scheduler", "precision")}
    assert drawn_by == {"framework": "flax", "scheduler": "DDIMScheduler", "precision": "float32"}
    assert found.settings["devices"].endswith("x cpu standing in for tpu")
    for part in ("Held-out loss", found.settings["devices"], "Training loss", "nearest words"):
        assert part in found.report_html, part


def test_evaluation_is_refused_where_there_is_no_tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TPU_STAND_IN_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="tpu was asked for"):
        painter_for("tpu")


def test_pictures_and_losses_equal_torch_without_the_last_layers(
    painters: tuple[Painter, Painter], tmp_path: Path
) -> None:
    width = painters[0].vocabulary(runs.TEXT_ENCODER).table.shape[1]
    file, rows = tmp_path / LEARNED_EMBEDS, random_rows(width, seed=0)
    file.write_bytes(learned_embeds_bytes("<concept>", {runs.TEXT_ENCODER: rows}, {"clip_skip": "1"}))
    both = FlaxPainter(SPRITES, mesh=mesh_for("cpu")), TorchPainter(SPRITES, device=torch.device("cpu"))
    for painter in both:
        painter.load_concept(file)
    ours, theirs = (np.stack(painter.draw(PROMPTS[:2], SEEDS[:2], CONFIG, label="")) for painter in both)
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= ROUNDING
    pictures = [pattern(0)]
    our_loss, their_loss = (painter.held_out_loss(pictures, PROMPTS[0]) for painter in both)
    assert our_loss == pytest.approx(their_loss, rel=1e-4)
    painters[1].write_rows({runs.TEXT_ENCODER: rows})
    assert painters[1].held_out_loss(pictures, PROMPTS[0]) != pytest.approx(their_loss, rel=1e-3)


def test_pictures_and_losses_equal_torch_with_two_text_encoders(tiny_sdxl: Path, tmp_path: Path) -> None:
    embedding = runs.initial_embedding({"text_encoder": 32, "text_encoder_2": 48}, 2)
    (tmp_path / LEARNED_EMBEDS).write_bytes(learned_embeds_bytes("<concept>", embedding.rows, {}))
    both = FlaxPainter(tiny_sdxl, mesh=mesh_for("cpu")), TorchPainter(tiny_sdxl, device=torch.device("cpu"))
    tables = [painter.vocabulary("text_encoder_2").table for painter in both]
    np.testing.assert_array_equal(*tables)
    for painter in both:
        painter.load_concept(tmp_path / LEARNED_EMBEDS)
    config = dataclasses.replace(CONFIG, negative_prompt="")
    ours, theirs = (np.stack(painter.draw(PROMPTS[:2], SEEDS[:2], config, label="")) for painter in both)
    assert ours.shape == (2, 16, 16, 3) and theirs.std() > 1
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= ROUNDING
    our_loss, their_loss = (painter.held_out_loss([pattern(0)], PROMPTS[0]) for painter in both)
    assert our_loss == pytest.approx(their_loss, rel=1e-4)


def test_sampler_and_precision_are_those_that_are_asked_for() -> None:
    painter = FlaxPainter(SPRITES, mesh=mesh_for("cpu"), sampler="dpm-solver++", precision="bf16")
    expected = {"scheduler": "DPMSolverMultistepScheduler", "precision": "bfloat16"}
    assert {name: painter.settings[name] for name in expected} == expected
    assert painter.widen()
    assert {name: painter.settings[name] for name in expected} == {**expected, "precision": "float32"}
    assert not painter.widen(), "there is nothing wider"
