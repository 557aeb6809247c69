"""The parts of a base model as Flax NNX modules, from a local diffusers folder."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype

from components.common.errors import ConfigError
from components.common.families import Family, TextEncoder
from components.common.weights import check_keys, not_finite, wrong_shape
from components.flax_models.clip_text import ClipTextEncoder
from components.flax_models.layers import EACH
from components.flax_models.model_config import read_text_config, read_unet_config, read_vae_config
from components.flax_models.unet import UNet
from components.flax_models.vae import Vae
from components.flax_models.weights import read_weights

logger = logging.getLogger(__name__)

WEIGHT_DTYPES: dict[str, Any] = {"no": jnp.float32, "bf16": jnp.bfloat16}
"""The dtype of frozen weights by `mixed_precision`."""

Module = TypeVar("Module", ClipTextEncoder, UNet, Vae)

_OLD_VAE_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""The names of attention weights in VAEs saved in 2022."""


@dataclasses.dataclass(frozen=True)
class Loaded(Generic[Module]):
    """A module's definition and its weights apart, so that a compiled function can take the weights as an argument.

    Attributes:
        config: the module's configuration.
        definition: what `nnx.merge(definition, weights)` makes a module of.
        weights: a pytree of arrays; on the host after loading.
    """

    config: Any
    definition: nnx.GraphDef[Module]
    weights: Any

    def module(self, weights: Any) -> Module:
        """The module with `weights`, which may be traced."""
        return nnx.merge(self.definition, weights)


def weight_dtype(mixed_precision: str) -> Any:
    """The dtype of frozen weights.

    Raises:
        ConfigError: for fp16, whose range the modules do not guard by scaling the loss.
    """
    if mixed_precision not in WEIGHT_DTYPES:
        raise ConfigError(
            f"mixed_precision: found {mixed_precision!r}, expected one of {', '.join(WEIGHT_DTYPES)} with Flax: bf16 "
            "is what TPUs compute in"
        )
    return WEIGHT_DTYPES[mixed_precision]


def load_text_encoders(
    model: Path, family: Family, *, dtype: Dtype, remat: bool = False
) -> dict[str, Loaded[ClipTextEncoder]]:
    """The CLIP text encoders of a family by their folders in the model; keys may begin with `text_model.`."""
    return {each.part: _load_text_encoder(model / each.part, each, dtype, remat) for each in family.text_encoders}


def _load_text_encoder(folder: Path, encoder: TextEncoder, dtype: Dtype, remat: bool) -> Loaded[ClipTextEncoder]:
    config = read_text_config(folder, encoder.class_name)
    build = functools.partial(ClipTextEncoder, config, dtype, encoder, remat=remat)
    return _load(folder, config, build, _text_key, encoder.class_name)


def load_unet(model: Path, *, dtype: Dtype, remat: bool = False) -> Loaded[UNet]:
    """The UNet in the model's folder `unet`."""
    folder = model / "unet"
    config = read_unet_config(folder)
    return _load(folder, config, lambda: UNet(config, dtype, remat=remat), str, "UNet2DConditionModel")


def load_vae(model: Path) -> Loaded[Vae]:
    """The VAE in the model's folder `vae`, in float32."""
    folder = model / "vae"
    config = read_vae_config(folder)
    return _load(folder, config, lambda: Vae(config), _vae_key, "AutoencoderKL")


def replicated(weights: Any, mesh: jax.sharding.Mesh) -> Any:
    """The pytree of host arrays on every device of the mesh, of whichever process."""
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(everywhere, np.asarray(x)), weights)


def _load(
    folder: Path, config: Any, build: Callable[[], Module], rename: Callable[[str], str], class_name: str
) -> Loaded[Module]:
    given = {rename(key): value for key, value in read_weights(folder, class_name).items()}
    definition, abstract = nnx.split(nnx.eval_shape(build))
    wanted = {path: variable.get_value() for path, variable in nnx.to_flat_state(abstract)}
    keys = {path: _keys_of(path, like.shape) for path, like in wanted.items()}
    expected = set(itertools.chain.from_iterable(keys.values()))
    check_keys(missing=expected - set(given), unexpected=set(given) - expected, folder=folder)
    filled = {
        path: _filled(like, path, {key: given[key] for key in keys[path]}, folder) for path, like in wanted.items()
    }
    state = nnx.from_flat_state([(path, nnx.Param(filled[path])) for path in filled])
    count = sum(array.size for array in filled.values())
    logger.info("loaded %s: %.1f M parameters, %s", folder.name, count / 1e6, next(iter(filled.values())).dtype)
    return Loaded(config, definition, state)


def _keys_of(path: tuple[Any, ...], shape: tuple[int, ...]) -> list[str]:
    """A parameter's keys in the safetensors file: one, or one for each layer of a `Stack`."""
    *parents, name = map(str, path)
    numbers = [str(number) for number in range(shape[0])] if EACH in parents else [EACH]
    suffix = "bias" if name == "bias" else "weight"
    return [".".join([*(number if part == EACH else part for part in parents), suffix]) for number in numbers]


def _filled(wanted: Any, path: tuple[Any, ...], given: Mapping[str, np.ndarray], folder: Path) -> np.ndarray:
    """A parameter like `wanted`: the one array given for it, or those of a stack's layers."""
    in_stack = EACH in path
    shape = wanted.shape[1:] if in_stack else wanted.shape
    is_kernel = path[-1] == "kernel"
    arrays = [_converted(array, key, shape, wanted.dtype, is_kernel, folder) for key, array in given.items()]
    return np.stack(arrays) if in_stack else arrays[0]


def _converted(
    given: np.ndarray, key: str, shape: tuple[int, ...], dtype: Any, is_kernel: bool, folder: Path
) -> np.ndarray:
    """The array in JAX's layout and the module's dtype: OI becomes IO, OIHW becomes HWIO."""
    order = {2: (1, 0), 4: (2, 3, 1, 0)}[len(shape)] if is_kernel else tuple(range(len(shape)))
    expected = tuple(shape[order.index(axis)] for axis in range(len(order)))
    if given.shape != expected:
        raise wrong_shape(key, given.shape, expected, folder)
    with np.errstate(over="ignore"):  # what the dtype does not hold is infinite, and told below
        converted = np.ascontiguousarray(given.transpose(order).astype(dtype))
    if not np.isfinite(converted).all():  # 1.5 s for 1e9 numbers in float32
        raise not_finite(key, str(converted.dtype), folder)
    return converted


def _text_key(key: str) -> str:
    return key.removeprefix("text_model.")


def _vae_key(key: str) -> str:
    match = re.fullmatch(r"(.*\.attentions\.\d+)\.(\w+)\.(weight|bias)", key)
    if match is None or match[2] not in _OLD_VAE_NAMES:
        return key
    return f"{match[1]}.{_OLD_VAE_NAMES[match[2]]}.{match[3]}"
