"""What the tests of the Flax trainer share; importing it makes XLA compile fast rather than well.

`micro` models are Stable Diffusion cut to two levels, so that a step compiles in seconds; the `tiny` ones have all of
its levels.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from components.common.artifacts import InitialEmbedding, Latents, LatentSet, Picture
from components.common.families import FAMILIES, family_of
from components.common.prompts import OBJECT_TEMPLATES, placeholder_tokens
from components.common.sources.checks import read_object
from components.common.training.config import TrainConfig
from components.common.training.prompt_ids import load_tokenizers, training_prompt_ids
from components.common.training.sampling_plan import SamplingPlan
from components.flax_models.devices import mesh_for
from components.flax_models.loading import load_text_encoders, load_unet, weight_dtype
from components.flax_models.module_configs import ClipTextConfig
from components.flax_models.noise_schedule import load_noise_schedule
from components.train.flax.models import FrozenModels
from components.train.flax.trainer import FlaxTrainer

_SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": tempfile.mkdtemp(prefix="jax-cache-"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
}
for _name, _value in _SETTINGS.items():
    jax.config.update(_name.lower(), float(_value) if _name.endswith("SECS") else _value)
_XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", _XLA_FLAGS)  # read when the first computation starts

REPOSITORY = Path(__file__).parents[1]
TEXT_ENCODER = "text_encoder"
SD1, SDXL = (next(family for family in FAMILIES if family.name == name) for name in ("sd1", "sdxl"))
LATENTS_SHAPE = (4, 8, 8)
PICTURES = 3

_MICRO_UNET = {
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "sample_size": 8,
}
_MICRO_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def make_micro_model(path: Path, *, v_prediction: bool = False, seed: int = 0) -> Path:
    """A diffusers folder with two levels and random weights; with v_prediction in the style of SD 2."""
    from tests.tiny_models import ModelWidths, make_model  # here: the processes that train load no PyTorch

    style: dict[str, Any] = {"attention_head_dim": 4}
    if v_prediction:
        style = {"attention_head_dim": (2, 4), "use_linear_projection": True}
    widths = ModelWidths(
        text={**_MICRO_TEXT, "hidden_act": "gelu" if v_prediction else "quick_gelu"},
        unet={**_MICRO_UNET, **style},
        vae_channels=(8, 8, 8, 8),
        norm_num_groups=8,
        scheduler={"prediction_type": "v_prediction" if v_prediction else "epsilon"},
    )
    return make_model(path, widths, seed)


def latent_set() -> LatentSet:
    """Random latents of `PICTURES` pictures, which are cut at the sides."""
    generator = np.random.default_rng(5)

    def draw(low: float, high: float) -> np.ndarray:
        return generator.uniform(low, high, LATENTS_SHAPE).astype(np.float32)

    record = Picture(source="0.png", caption=None, original_size=(64, 96), crop_top_left=(0, 10), size=(64, 64))
    latents = tuple(
        Latents(picture=record, mean=draw(-4, 4), std=draw(0.1, 1), flipped_mean=draw(-4, 4), flipped_std=draw(0.1, 1))
        for _ in range(PICTURES)
    )
    return LatentSet(latents=latents, scaling_factor=0.18215, base_model_digest="", image_set_digest="")


def initial_embedding(widths: Mapping[str, int], num_vectors: int) -> InitialEmbedding:
    """An embedding of random rows, as wide as the text encoders."""
    generator = np.random.default_rng(6)
    rows = {
        name: generator.normal(scale=0.5, size=(num_vectors, each)).astype(np.float32) for name, each in widths.items()
    }
    return InitialEmbedding(
        placeholder_token="<cat-toy>",
        tokens=placeholder_tokens("<cat-toy>", num_vectors),
        token_ids=tuple(range(ClipTextConfig.vocab_size, ClipTextConfig.vocab_size + num_vectors)),
        initializer_token="toy",
        initializer_token_id=0,
        rows=rows,
        base_model_digest="",
    )


def sampling_plan(config: TrainConfig, num_processes: int = 1) -> SamplingPlan:
    """The plan of a run on `latent_set`."""
    return SamplingPlan(
        seed=3,
        num_pictures=PICTURES,
        repeats=2,
        global_batch=config.global_batch(num_processes),
        num_templates=len(OBJECT_TEMPLATES),
        flip_probability=0.5,
        num_train_timesteps=1000,
        latents_shape=LATENTS_SHAPE,
    )


def flax_trainer(model: Path, config: TrainConfig, num_vectors: int = 1, **more: Any) -> FlaxTrainer:
    """A trainer of a model in a folder on all CPU devices of this process."""
    dtype, remat = weight_dtype(config.mixed_precision), config.gradient_checkpointing
    family = family_of([path.name for path in model.iterdir()], read_object(model / "unet" / "config.json"))
    text_encoders = load_text_encoders(model, family, dtype=dtype, remat=remat)
    widths = {name: each.config.hidden_size for name, each in text_encoders.items()}
    embedding = initial_embedding(widths, num_vectors)
    return FlaxTrainer(
        config=config,
        latent_set=latent_set(),
        embedding=embedding,
        prompt_ids=training_prompt_ids(load_tokenizers(model, embedding), embedding, "object"),
        models=FrozenModels(
            config,
            family=family,
            text_encoders=text_encoders,
            unet=load_unet(model, dtype=dtype, remat=remat),
            noise_schedule=load_noise_schedule(model),
            mesh=mesh_for("cpu"),
            first_id=embedding.token_ids[0],
            scaling_factor=latent_set().scaling_factor,
            **more,
        ),
    )


def subprocess_environment(*, devices: int = 1, **more: str) -> dict[str, str]:
    """The environment of a Python of its own with that many CPU devices."""
    flags = f"{_XLA_FLAGS} --xla_force_host_platform_device_count={devices}"
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, **_SETTINGS, "XLA_FLAGS": flags, "PYTHONPATH": paths, **more}


def what_was_trained(trainer: FlaxTrainer, losses: list[jax.Array]) -> dict[str, np.ndarray]:
    """Losses, and rows and moments by text encoder, such as `rows.text_encoder`."""
    state, read = trainer.copy_state(len(losses), losses).read()
    kinds = {"rows": state.rows, "first": state.first_moment, "second": state.second_moment}
    by_encoder = {f"{kind}.{part}": values for kind, parts in kinds.items() for part, values in parts.items()}
    return {"losses": read, **by_encoder, "micro_batch_size": np.array(state.micro_batch_size)}


def train_steps(model: Path, output: Path, *, steps: int, num_processes: int, **fields: Any) -> None:
    """Trains some steps on this process's share, and writes what came of it."""
    config = TrainConfig(**fields)
    trainer, plan = flax_trainer(model, config), sampling_plan(config, num_processes)
    share = plan.global_batch // num_processes
    start = jax.process_index() * share
    losses = [trainer.step(plan.batch(step, range(start, start + share)), 1e-2) for step in range(steps)]
    np.savez(output, **what_was_trained(trainer, losses))
    assert trainer.compiled is not None
    output.with_suffix(".hlo").write_text(trainer.compiled.as_text())


if __name__ == "__main__":
    import json

    from components.flax_models.devices import join_processes

    join_processes()
    given = json.loads(sys.argv[1])
    train_steps(Path(given.pop("model")), Path(given.pop("output")), **given)
