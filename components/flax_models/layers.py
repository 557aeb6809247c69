"""The layers that the modules are made of, with zeros for weights: loading fills them.

Shapes in comments and names: b pictures or prompts, h x w places, c channels, t tokens. Pictures and latents are NHWC,
the layout that XLA prefers on TPUs. Weights, matrix products and convolutions have the module's dtype; norms are
float32 within, whatever goes in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype


class Linear(nnx.Module):
    """A dense layer."""

    def __init__(self, features_in: int, features_out: int, dtype: Dtype, *, bias: bool = True) -> None:
        """Takes the features of input and output; kernel [in, out]."""
        self.kernel = nnx.Param(jnp.zeros((features_in, features_out), dtype))
        self.bias = nnx.Param(jnp.zeros(features_out, dtype)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., features_in] to [..., features_out]."""
        y = x @ self.kernel[...]
        return y if self.bias is None else y + self.bias[...]


class Conv(nnx.Module):
    """A square convolution."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        dtype: Dtype,
        *,
        size: int = 3,
        stride: int = 1,
        padding: tuple[int, int] | None = None,
    ) -> None:
        """Takes the padding (before, after) of both axes, by default the same size comes out; kernel HWIO."""
        self.stride, self.padding = stride, padding or (size // 2, size // 2)
        self.kernel = nnx.Param(jnp.zeros((size, size, channels_in, channels_out), dtype))
        self.bias = nnx.Param(jnp.zeros(channels_out, dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, h, w, channels_in] to [b, h / stride, w / stride, channels_out]."""
        y = jax.lax.conv_general_dilated(
            x,
            self.kernel[...],
            (self.stride, self.stride),
            (self.padding, self.padding),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + self.bias[...]


class Embedding(nnx.Module):
    """A table of vectors."""

    def __init__(self, entries: int, features: int, dtype: Dtype) -> None:
        """Takes the number of vectors and their features."""
        self.embedding = nnx.Param(jnp.zeros((entries, features), dtype))

    def __call__(self, index: jax.Array) -> jax.Array:
        """The vectors at `index`: [...] to [..., features]."""
        return self.embedding[...][index]


class GroupNorm(nnx.Module):
    """Group normalisation over places and the channels of a group (Wu & He 2018), of [b, h, w, c] or [b, t, c]."""

    def __init__(self, channels: int, groups: int, epsilon: float) -> None:
        """Takes the number of channels, into how many groups they go, and what is added to the variance."""
        self.groups, self.epsilon = groups, epsilon
        self.scale, self.bias = nnx.Param(jnp.zeros(channels)), nnx.Param(jnp.zeros(channels))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`x` normalised, in its dtype."""
        grouped = x.astype(jnp.float32).reshape(x.shape[0], -1, self.groups, x.shape[-1] // self.groups)
        normal = _standardised(grouped, (1, 3), self.epsilon).reshape(x.shape)
        return (normal * self.scale[...] + self.bias[...]).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer normalisation over the features of each token (Ba et al. 2016)."""

    def __init__(self, features: int, epsilon: float = 1e-5) -> None:
        """Takes the number of features and what is added to the variance."""
        self.epsilon = epsilon
        self.scale, self.bias = nnx.Param(jnp.zeros(features)), nnx.Param(jnp.zeros(features))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`x` normalised, in its dtype."""
        normal = _standardised(x.astype(jnp.float32), (-1,), self.epsilon)
        return (normal * self.scale[...] + self.bias[...]).astype(x.dtype)


def _standardised(x: jax.Array, axes: tuple[int, ...], epsilon: float) -> jax.Array:
    centred = x - x.mean(axes, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + epsilon)


class ResnetBlock(nnx.Module):
    """Two normalised convolutions beside a shortcut; the timestep's embedding, if any, is added between them."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        groups: int,
        epsilon: float,
        dtype: Dtype,
        time_features: int | None = None,
    ) -> None:
        """Takes channels, the norms' groups and epsilon, and the timestep embedding's features."""
        self.norm1 = GroupNorm(channels_in, groups, epsilon)
        self.conv1 = Conv(channels_in, channels_out, dtype)
        if time_features is not None:
            self.time_emb_proj = Linear(time_features, channels_out, dtype)
        self.norm2 = GroupNorm(channels_out, groups, epsilon)
        self.conv2 = Conv(channels_out, channels_out, dtype)
        self.has_shortcut = channels_in != channels_out
        if self.has_shortcut:
            self.conv_shortcut = Conv(channels_in, channels_out, dtype, size=1)

    def __call__(self, x: jax.Array, time: jax.Array | None = None) -> jax.Array:
        """[b, h, w, channels_in] and [b, time_features] to [b, h, w, channels_out]."""
        hidden = self.conv1(jax.nn.silu(self.norm1(x)))
        if time is not None:
            hidden = hidden + self.time_emb_proj(jax.nn.silu(time))[:, None, None, :]
        hidden = self.conv2(jax.nn.silu(self.norm2(hidden)))
        return (self.conv_shortcut(x) if self.has_shortcut else x) + hidden


class Downsample(nnx.Module):
    """Half the height and width by a convolution of stride 2."""

    def __init__(self, channels: int, dtype: Dtype, padding: tuple[int, int] = (1, 1)) -> None:
        """Takes the padding (before, after): the UNet pads both sides, the VAE the far one."""
        self.conv = Conv(channels, channels, dtype, stride=2, padding=padding)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, h, w, c] to [b, h/2, w/2, c], rounded up."""
        return self.conv(x)


class Upsample(nnx.Module):
    """Twice the height and width: every place repeated, then a convolution."""

    def __init__(self, channels: int, dtype: Dtype) -> None:
        """Takes the number of channels."""
        self.conv = Conv(channels, channels, dtype)

    def __call__(self, x: jax.Array, size: tuple[int, int] | None = None) -> jax.Array:
        """[b, h, w, c] to [b, 2h, 2w, c], or to `size` where an odd size was halved on the way down."""
        height, width = size or (2 * x.shape[1], 2 * x.shape[2])
        return self.conv(x.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width])


def quick_gelu(x: jax.Array) -> jax.Array:
    """OpenAI CLIP's approximation of GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


def exact_gelu(x: jax.Array) -> jax.Array:
    """GELU by the error function, not by tanh."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"gelu": exact_gelu, "quick_gelu": quick_gelu}
"""CLIP's activations by the name in its configuration: those of `module_configs.HIDDEN_ACTS`."""


EACH = "each"
"""What stands in the paths of a `Stack`'s parameters where a model's file has the number of a layer."""


class Stack(nnx.Module):
    """Layers of one kind, one after the other, each with its own weights.

    They are the steps of one loop, so that a compiler takes as long for many as for one. Their parameters are
    `each.<parameter of a layer>` with a leading axis, the number of the layer.
    """

    def __init__(self, make: Callable[[], nnx.Module], depth: int, *, remat: bool = False) -> None:
        """Takes what makes a layer, and how many there are; with `remat`, the backward pass repeats each of them."""
        self.depth, self.remat = depth, remat
        definition, weights = nnx.split(make())
        self.each = nnx.merge(definition, jax.tree.map(lambda x: jnp.broadcast_to(x, (depth, *x.shape)), weights))

    def __call__(self, x: jax.Array, *context: jax.Array) -> jax.Array:
        """What the last layer gives; a layer takes what the one before it gave, and `context` as all do."""
        return self._loop(lambda layer, x: layer(x, *context), x)

    def keeping(self, x: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        """What the last layer gives, and what the first `count` of them give, which may be none: then `x`."""

        def apply(layer: Any, carry: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
            x, kept, number = carry
            x = layer(x)
            return x, jnp.where(number < count, x, kept), number + 1

        last, kept, _ = self._loop(apply, (x, x, jnp.zeros((), jnp.int32)))
        return last, kept

    def _loop(self, apply: Callable[[Any, Any], Any], carry: Any) -> Any:
        definition, weights = nnx.split(self.each)

        def step(carry: Any, weights: Any) -> tuple[Any, None]:
            return apply(nnx.merge(definition, weights), carry), None

        # A loop's steps cannot be merged with their repetition, which is what `prevent_cse` guards against.
        carry, _ = jax.lax.scan(jax.checkpoint(step, prevent_cse=False) if self.remat else step, carry, weights)
        return carry
