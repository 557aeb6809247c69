"""Loading a base model's parts: what fits is taken, in any precision and under old names; the rest is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
from flax import nnx

from components.common.errors import BaseModelError, ConfigError
from components.flax_models.loading import Loaded, load_text_encoders, load_unet, load_vae, weight_dtype
from components.flax_models.noise_schedule import load_noise_schedule
from tests import flax_runs as runs

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_micro_model(tmp_path_factory.mktemp("models") / "micro")


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(original, tmp_path / "model"))


def change_weights(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    (file,) = folder.glob("*.safetensors")
    safetensors.torch.save_file(change(safetensors.torch.load_file(file)), file)


def change_config(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def same(found: Loaded[Any], wanted: Loaded[Any], tolerance: float = 0.0) -> bool:
    pairs = zip(nnx.to_flat_state(found.weights), nnx.to_flat_state(wanted.weights), strict=True)
    return all(
        our_path == their_path and np.allclose(ours.get_value(), theirs.get_value(), rtol=0, atol=tolerance)
        for (our_path, ours), (their_path, theirs) in pairs
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2)])
def test_half_precision_files_load(original: Path, model: Path, dtype: torch.dtype, tolerance: float) -> None:
    change_weights(model / "unet", lambda weights: {key: value.to(dtype) for key, value in weights.items()})
    assert same(load_unet(model, dtype=jnp.float32), load_unet(original, dtype=jnp.float32), tolerance)


def test_norms_stay_float32_when_weights_are_bfloat16(original: Path) -> None:
    dtypes = {
        path[-1]: str(v.get_value().dtype)
        for path, v in nnx.to_flat_state(load_unet(original, dtype=jnp.bfloat16).weights)
    }
    assert dtypes["kernel"] == "bfloat16" and dtypes["scale"] == "float32"


@pytest.mark.parametrize("prefixed", [True, False])
def test_text_encoder_loads_with_and_without_prefix(original: Path, model: Path, prefixed: bool) -> None:
    def rename(weights: Tensors) -> Tensors:
        bare = {key.removeprefix("text_model."): value for key, value in weights.items()}
        named = {f"text_model.{key}": value for key, value in bare.items()} if prefixed else bare
        positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]} if prefixed else {}
        return {**named, **positions}

    change_weights(model / "text_encoder", rename)
    (ours, wanted) = (load_text_encoders(each, runs.SD1, dtype=jnp.float32) for each in (model, original))
    assert same(ours[runs.TEXT_ENCODER], wanted[runs.TEXT_ENCODER])


def test_vae_of_2022_loads(original: Path, model: Path) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(weights: Tensors) -> Tensors:
        for new, name in old.items():
            weights = {key.replace(f".{new}.", f".{name}."): value for key, value in weights.items()}
        return weights

    change_weights(model / "vae", rename)
    assert same(load_vae(model), load_vae(original))


def test_shards_load(original: Path, model: Path) -> None:
    (file,) = (model / "unet").glob("*.safetensors")
    weights = safetensors.torch.load_file(file)
    file.unlink()
    shards: dict[str, Tensors] = {"a.safetensors": {}, "b.safetensors": {}}
    table = {key: sorted(shards)[index % 2] for index, key in enumerate(weights)}
    for key, name in table.items():
        shards[name][key] = weights[key]
    for name, part in shards.items():
        safetensors.torch.save_file(part, model / "unet" / name)
    index = model / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": table}))
    assert same(load_unet(model, dtype=jnp.float32), load_unet(original, dtype=jnp.float32))


def test_missing_and_unexpected_keys_are_named(model: Path) -> None:
    change_weights(model / "unet", lambda weights: {"lora.up": weights.pop("conv_in.weight"), **weights})
    with pytest.raises(BaseModelError, match=r"1 missing: conv_in\.weight; 1 unexpected: lora\.up"):
        load_unet(model, dtype=jnp.float32)


def test_wrong_shape_is_named(model: Path) -> None:
    change_weights(model / "unet", lambda weights: {**weights, "conv_out.weight": torch.zeros(4, 32, 1, 1)})
    with pytest.raises(
        BaseModelError, match=r"conv_out\.weight has the shape \[4, 32, 1, 1\], expected \[4, 32, 3, 3\]"
    ):
        load_unet(model, dtype=jnp.float32)


def test_truncated_file_is_refused(model: Path) -> None:
    (file,) = (model / "unet").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BaseModelError, match="by its safetensors header: it is cut off"):
        load_unet(model, dtype=jnp.float32)


def test_pickled_weights_are_refused(model: Path) -> None:
    (file,) = (model / "unet").glob("*.safetensors")
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(BaseModelError, match="a base model needs safetensors weights"):
        load_unet(model, dtype=jnp.float32)


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        ("unet", {"class_embed_type": "timestep"}),
        ("unet", {"addition_embed_type": "image"}),
        ("unet", {"transformer_layers_per_block": [[1, 1], [2, 2]]}),
        ("unet", {"reverse_transformer_layers_per_block": [2, 1]}),
        ("unet", {"dual_cross_attention": True}),
        ("unet", {"invented_last_week": 3}),
        ("unet", {"num_attention_heads": 8}),
        ("unet", {"layers_per_block": [1, 2]}),
        ("unet", {"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]}),
        ("vae", {"use_quant_conv": False}),
        ("vae", {"up_block_types": ["AttnUpDecoderBlock2D"] * 4}),
        ("text_encoder", {"hidden_act": "relu"}),
    ],
)
def test_config_that_is_not_implemented_is_refused_by_name(model: Path, part: str, fields: dict[str, Any]) -> None:
    change_config(model / part / "config.json", **fields)
    load = {"unet": lambda: load_unet(model, dtype=jnp.float32), "vae": lambda: load_vae(model)}
    with pytest.raises(BaseModelError, match=f"do not compute: {next(iter(fields))} = "):
        load.get(part, lambda: load_text_encoders(model, runs.SD1, dtype=jnp.float32))()


def test_heads_that_do_not_divide_are_refused(model: Path) -> None:
    change_config(model / "unet" / "config.json", attention_head_dim=5)
    with pytest.raises(BaseModelError, match="attention_head_dim is 5, expected a divisor of 32"):
        load_unet(model, dtype=jnp.float32)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prediction_type": "sample"}, "found prediction_type sample, expected one of epsilon"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'"),
        ({"thresholding": True}, "asks for thresholding"),
    ],
)
def test_noise_schedule_that_is_not_implemented_is_refused(model: Path, fields: dict[str, Any], message: str) -> None:
    change_config(model / "scheduler" / "scheduler_config.json", **fields)
    with pytest.raises(BaseModelError, match=message):
        load_noise_schedule(model)


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_noise_schedule_equals_diffusers(model: Path, beta_schedule: str, zero_snr: bool) -> None:
    from diffusers import DDPMScheduler

    file = model / "scheduler" / "scheduler_config.json"
    change_config(file, beta_schedule=beta_schedule, rescale_betas_zero_snr=zero_snr)
    wanted = DDPMScheduler.from_pretrained(model / "scheduler").alphas_cumprod.numpy()
    found = load_noise_schedule(model).alphas_cumprod
    assert bool(found[-1]) is not zero_snr
    np.testing.assert_allclose(found, wanted, rtol=1e-4 if zero_snr else 2e-6)
    np.testing.assert_allclose(1 - found, 1 - wanted, rtol=1e-6, atol=5e-7 if zero_snr else 0)


def test_precisions_are_float32_and_bfloat16() -> None:
    assert weight_dtype("no") == jnp.float32 and weight_dtype("bf16") == jnp.bfloat16
    with pytest.raises(ConfigError, match="fp16"):
        weight_dtype("fp16")
