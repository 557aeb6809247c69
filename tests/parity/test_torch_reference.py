"""The rows' gradient and their values after AdamW steps equal those of the reference's mathematics.

So they do in fp32; with weights of half the bits the gradient is as close as their roundoff lets it be.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from components.common.artifacts import InitialEmbedding, Latents, LatentSet, Picture
from components.common.prompts import OBJECT_TEMPLATES, placeholder_tokens
from components.common.training.checkpoints import TrainingState
from components.common.training.config import TrainConfig
from components.common.training.loop import NextStep
from components.common.training.prompt_ids import load_tokenizers, training_prompt_ids
from components.common.training.sampling_plan import Batch, SamplingPlan
from components.encode_latents.latents import posterior
from components.torch_models.loading import WEIGHT_DTYPES, load_vae
from components.train.torch.together import take_steps
from components.train.torch.trainer import TorchTrainer
from tests.parity.reference import ReferenceTrainer, SdxlReferenceTrainer
from tests.torch_runs import frozen_models

CPU = torch.device("cpu")
SIDE = 64
SDXL_SIDE = 16
SDXL_TOLERANCE = 5e-6
"""Of narrower gradients, in which sums round less evenly; found were up to 3e-6."""
TEXT_ENCODER = "text_encoder"
STEPS = 6
LEARNING_RATE = 5e-3

ROUNDOFF = {"bf16": 2.0**-8, "fp16": 2.0**-11}
"""The largest relative error of one rounding."""
GRADIENT_ROUNDINGS = 12
"""The relative L2 difference of a gradient allowed, in units of roundoff; found were 3 to 9."""


def _pixels(side: int) -> list[np.ndarray]:
    generator = np.random.default_rng(7)
    return [generator.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(3)]


def _pictures(side: int) -> list[Picture]:
    """As it was, cut at the top, and cut from one twice as large."""
    told = [((side, side), (0, 0)), ((side + 24, side), (12, 0)), ((2 * side + 10, 2 * side), (3, 0))]
    return [
        Picture(source=f"{index}.png", caption=None, original_size=size, crop_top_left=corner, size=(side, side))
        for index, (size, corner) in enumerate(told)
    ]


def _latent_set(model: Path, pixels: list[np.ndarray], pictures: list[Picture]) -> LatentSet:
    vae = load_vae(model, device=CPU)
    latents = []
    for picture, values in zip(pictures, pixels, strict=True):
        mean, std = posterior(vae, np.stack([values, values[:, ::-1]]))
        latents.append(Latents(picture=picture, mean=mean[0], std=std[0], flipped_mean=mean[1], flipped_std=std[1]))
    return LatentSet(
        latents=tuple(latents),
        scaling_factor=float(vae.config.scaling_factor),
        base_model_digest="",
        image_set_digest="",
    )


class Both:
    """Our trainer and the reference's of one word, from the same rows and on the same draws."""

    def __init__(
        self,
        model: Path,
        num_vectors: int,
        accumulation: int,
        mixed_precision: str = "no",
        fuse: bool = True,
        kind: type[ReferenceTrainer] = ReferenceTrainer,
        side: int = SIDE,
    ) -> None:
        tokens = placeholder_tokens("<cat-toy>", num_vectors)
        self.reference = kind(model, list(tokens), "toy", LEARNING_RATE, decay=1e-2)
        self.embedding = InitialEmbedding(
            placeholder_token="<cat-toy>",
            tokens=tokens,
            token_ids=tuple(self.reference.ids),
            initializer_token="toy",
            initializer_token_id=0,
            rows=self.reference.rows,
            base_model_digest="",
        )
        self.pixels, self.pictures = _pixels(side), _pictures(side)
        self._config = TrainConfig(
            train_batch_size=2,
            gradient_accumulation_steps=accumulation,
            fuse_micro_batches=fuse,
            learning_rate=LEARNING_RATE,
            mixed_precision=mixed_precision,
        )
        self._latent_set = _latent_set(model, self.pixels, self.pictures)
        self._prompt_ids = training_prompt_ids(load_tokenizers(model, self.embedding), self.embedding, "object")
        self.models = frozen_models(model, self._config)
        self.trainer = self.new_trainer()
        latents = self._latent_set.latents[0].mean
        self.plan = SamplingPlan(
            seed=3,
            num_pictures=len(self.pixels),
            repeats=2,
            global_batch=self._config.global_batch(1),
            num_templates=len(OBJECT_TEMPLATES),
            flip_probability=0.5,
            num_train_timesteps=self.models.noise_scheduler.config.num_train_timesteps,
            latents_shape=latents.shape,
        )

    def new_trainer(self) -> TorchTrainer:
        """A trainer of another word that begins with the same rows and shares the models."""
        return TorchTrainer(
            config=self._config,
            latent_set=self._latent_set,
            embedding=self.embedding,
            prompt_ids=self._prompt_ids,
            models=self.models,
        )

    def reference_step(self, batches: list[Batch]) -> dict[str, np.ndarray]:
        """The reference's gradients of an optimizer step that it takes."""
        return self.reference.step(batches, self.pixels, OBJECT_TEMPLATES, self.pictures)

    def reference_loss(self, batch: Batch) -> float:
        """The reference's loss as it is."""
        with torch.no_grad():
            return self.reference.loss(batch, self.pixels, OBJECT_TEMPLATES, self.pictures).item()


def _relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _rows(trainer: TorchTrainer) -> dict[str, np.ndarray]:
    return dict(trainer.copy_state(STEPS, []).read()[0].rows)


def _assert_gradients_and_rows_equal(both: Both, accumulation: int, tolerance: float = 2e-6) -> None:
    trainer, initial = both.trainer, both.reference.rows
    for step in range(STEPS):
        batch = both.plan.batch(step)
        size = len(batch) // accumulation
        expected = both.reference_step([batch.part(slice(i, i + size)) for i in range(0, len(batch), size)])
        trainer.accumulate_gradient(batch, at_once=size)
        for name, rows in trainer.rows.items():
            assert rows.grad is not None
            error = _relative(rows.grad.numpy(), expected[name])
            assert error < tolerance, f"gradient of {name} in step {step}: relative L2 difference {error:.1e}"
        trainer.forget_gradient()
        trainer.step(batch, LEARNING_RATE)

    found, expected = _rows(trainer), both.reference.rows
    assert set(found) == set(expected)
    for name, rows in expected.items():
        movement = np.linalg.norm(rows - initial[name])
        assert movement / rows.size**0.5 > 2 * LEARNING_RATE
        assert np.linalg.norm(found[name] - rows) / movement < 1e-4


@pytest.mark.parametrize(("num_vectors", "accumulation"), [(1, 1), (4, 1), (1, 4), (4, 4)])
def test_gradient_and_rows_equal_reference(tiny_model: Path, num_vectors: int, accumulation: int) -> None:
    _assert_gradients_and_rows_equal(Both(tiny_model, num_vectors, accumulation), accumulation)


def _both_of_sdxl(model: Path, num_vectors: int, accumulation: int) -> Both:
    return Both(model, num_vectors, accumulation, kind=SdxlReferenceTrainer, side=SDXL_SIDE)


@pytest.mark.parametrize(("num_vectors", "accumulation"), [(1, 1), (4, 4)])
def test_gradients_and_rows_of_both_text_encoders_equal_reference(
    tiny_sdxl: Path, num_vectors: int, accumulation: int
) -> None:
    _assert_gradients_and_rows_equal(_both_of_sdxl(tiny_sdxl, num_vectors, accumulation), accumulation, SDXL_TOLERANCE)


def test_gradients_equal_reference_when_pooled_where_the_highest_id_is(tiny_sdxl: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_sdxl, tmp_path / "model"))
    file = model / "text_encoder_2" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": 2}))
    _assert_gradients_and_rows_equal(_both_of_sdxl(model, 2, 1), 1, SDXL_TOLERANCE)


def test_words_of_two_text_encoders_learn_together_and_go_on_as_alone(tiny_sdxl: Path) -> None:
    both = _both_of_sdxl(tiny_sdxl, 2, 1)
    alone = [both.trainer, both.new_trainer()]
    together = [both.new_trainer(), both.new_trainer()]
    plans = [dataclasses.replace(both.plan, seed=seed) for seed in (3, 4)]

    def steps(trainers: list[TorchTrainer], numbers: range) -> None:
        for number in numbers:
            given = zip(trainers, plans, strict=True)
            take_steps(
                [NextStep(trainer=each, batch=plan.batch(number), learning_rate=LEARNING_RATE) for each, plan in given]
            )

    for trainer, plan in zip(alone, plans, strict=True):
        for number in range(4):
            trainer.step(plan.batch(number), LEARNING_RATE)
    steps(together, range(2))
    resumed = [both.new_trainer(), both.new_trainer()]
    for trainer, before in zip(resumed, together, strict=True):
        trainer.write_state(before.copy_state(2, []).read()[0])
    steps(together, range(2, 4))
    steps(resumed, range(2, 4))

    for one, shared, again in zip(alone, together, resumed, strict=True):
        for name, rows in _rows(one).items():
            moved = np.linalg.norm(rows - both.embedding.rows[name])
            assert moved > 0.05
            assert np.linalg.norm(_rows(shared)[name] - rows) < 1e-3 * moved
            np.testing.assert_array_equal(_rows(again)[name], _rows(shared)[name])
    assert (_rows(alone[0])["text_encoder_2"] != _rows(alone[1])["text_encoder_2"]).any()


def test_rows_alone_are_trained_when_stepping(tiny_sd15: Path) -> None:
    both = Both(tiny_sd15, 2, 1)
    (rows,), modules = both.trainer.rows.values(), (both.models.text_encoders[TEXT_ENCODER], both.models.unet)
    frozen = [parameter for module in modules for parameter in module.parameters() if parameter is not rows]
    before = [parameter.clone() for parameter in frozen]

    both.trainer.step(both.plan.batch(0), LEARNING_RATE)

    assert not any(parameter.requires_grad for parameter in frozen)
    assert all(torch.equal(old, new) for old, new in zip(before, frozen, strict=True))


def _step_at(trainer: TorchTrainer, rows: np.ndarray, batch: Batch, rate: float) -> tuple[TrainingState, np.ndarray]:
    """The state and the loss, float32 [1], after AdamW's first step from `rows`."""
    fresh = {
        "rows": {TEXT_ENCODER: rows},
        "first_moment": {TEXT_ENCODER: np.zeros_like(rows)},
        "second_moment": {TEXT_ENCODER: np.zeros_like(rows)},
    }
    trainer.write_state(TrainingState(step=0, **fresh))
    loss = trainer.step(batch, rate)
    return trainer.copy_state(1, [loss]).read()


@pytest.mark.parametrize(
    ("mixed_precision", "num_vectors", "accumulation"), [("bf16", 4, 1), ("bf16", 1, 4), ("fp16", 4, 1)]
)
def test_gradient_and_loss_are_close_to_reference_with_weights_of_half_the_bits(
    tiny_model: Path, mixed_precision: str, num_vectors: int, accumulation: int
) -> None:
    both = Both(tiny_model, num_vectors, accumulation, mixed_precision, fuse=False)
    roundoff = ROUNDOFF[mixed_precision]

    for step in range(STEPS):
        batch, rows = both.plan.batch(step), both.reference.rows[TEXT_ENCODER]
        expected = both.reference_loss(batch)
        gradient = both.reference_step([batch])[TEXT_ENCODER]
        state, (loss,) = _step_at(both.trainer, rows, batch, LEARNING_RATE)
        ours = state.first_moment[TEXT_ENCODER] / (1 - TrainConfig.adam_beta1)
        error = _relative(ours, gradient)
        assert error < GRADIENT_ROUNDINGS * roundoff, f"gradient of step {step}: relative L2 difference {error:.1e}"
        assert abs(loss - expected) < roundoff * expected


@pytest.mark.parametrize("mixed_precision", ["bf16", "fp16"])
def test_rows_moments_and_loss_are_fp32_with_weights_of_half_the_bits(tiny_model: Path, mixed_precision: str) -> None:
    both = Both(tiny_model, 1, 1, mixed_precision)
    initial = both.reference.rows[TEXT_ENCODER]
    tiny = np.float32(1e-6)  # lost on rows of bf16, of which two neighbours near 0.02 are 1e-4 apart

    state, losses = _step_at(both.trainer, initial, both.plan.batch(0), float(tiny))

    moved = np.abs(state.rows[TEXT_ENCODER] - initial)
    # AdamW's first step is the learning rate, but for an element whose gradient is next to nothing.
    assert np.isclose(moved, tiny, rtol=0.05).mean() > 0.95
    moments = (state.first_moment[TEXT_ENCODER], state.second_moment[TEXT_ENCODER])
    for values in (state.rows[TEXT_ENCODER], *moments, losses):
        assert values.dtype == np.float32
        assert (torch.from_numpy(values).to(WEIGHT_DTYPES[mixed_precision]).float().numpy() != values).any()
