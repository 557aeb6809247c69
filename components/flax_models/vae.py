"""The autoencoder of Stable Diffusion 1.x and 2.x: pictures to latents and back (Rombach et al. 2022)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from components.flax_models.layers import Conv, Downsample, GroupNorm, ResnetBlock, Upsample
from components.flax_models.module_configs import VaeConfig
from components.flax_models.transformer import Attention

_EPSILON = 1e-6


class Vae(nnx.Module):
    """The autoencoder, in float32; parameters are named as in the model's file."""

    def __init__(self, config: VaeConfig, dtype: Dtype = jnp.float32) -> None:
        """Takes the configuration; float32, for it runs once a picture and low precision overflows in some."""
        latent = config.latent_channels
        self.config = config
        self.encoder = _Encoder(config, dtype)
        self.quant_conv = Conv(2 * latent, 2 * latent, dtype, size=1)
        self.post_quant_conv = Conv(latent, latent, dtype, size=1)
        self.decoder = _Decoder(config, dtype)

    def encode(self, pictures: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation of the posterior, unscaled: float32 [b, h/8, w/8, latent].

        Args:
            pictures: [b, h, w, 3], -1 to 1.
        """
        mean, log_variance = jnp.split(self.quant_conv(self.encoder(pictures)), 2, axis=-1)
        return mean, jnp.exp(0.5 * jnp.clip(log_variance, -30.0, 20.0))

    def decode(self, latents: jax.Array) -> jax.Array:
        """Pictures, [b, 8h, 8w, 3], about -1 to 1, of unscaled latents [b, h, w, latent]."""
        return self.decoder(self.post_quant_conv(latents))


class _Encoder(nnx.Module):
    def __init__(self, config: VaeConfig, dtype: Dtype) -> None:
        channels, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = Conv(config.in_channels, channels[0], dtype)
        blocks, width = [], channels[0]
        for level, out in enumerate(channels):
            last = level == len(channels) - 1
            blocks.append(_Level(width, out, config.layers_per_block, groups, dtype, "none" if last else "down"))
            width = out
        self.down_blocks = nnx.List(blocks)
        self.mid_block = _MidBlock(width, groups, dtype, config.mid_block_add_attention)
        self.conv_norm_out = GroupNorm(width, groups, _EPSILON)
        self.conv_out = Conv(width, 2 * config.latent_channels, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(self.mid_block(x))))


class _Decoder(nnx.Module):
    def __init__(self, config: VaeConfig, dtype: Dtype) -> None:
        channels, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = Conv(config.latent_channels, channels[0], dtype)
        self.mid_block = _MidBlock(channels[0], groups, dtype, config.mid_block_add_attention)
        blocks, width = [], channels[0]
        for level, out in enumerate(channels):
            last = level == len(channels) - 1
            blocks.append(_Level(width, out, config.layers_per_block + 1, groups, dtype, "none" if last else "up"))
            width = out
        self.up_blocks = nnx.List(blocks)
        self.conv_norm_out = GroupNorm(width, groups, _EPSILON)
        self.conv_out = Conv(width, config.out_channels, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))


class _Level(nnx.Module):
    """Residual blocks at one size, then `down`, `up` or `none`."""

    def __init__(self, channels_in: int, channels: int, layers: int, groups: int, dtype: Dtype, then: str) -> None:
        self.resnets = nnx.List(
            [
                ResnetBlock(channels_in if layer == 0 else channels, channels, groups, _EPSILON, dtype)
                for layer in range(layers)
            ]
        )
        self.downsamplers = nnx.List([Downsample(channels, dtype, padding=(0, 1))] if then == "down" else [])
        self.upsamplers = nnx.List([Upsample(channels, dtype)] if then == "up" else [])

    def __call__(self, x: jax.Array) -> jax.Array:
        for module in (*self.resnets, *self.downsamplers, *self.upsamplers):
            x = module(x)
        return x


class _MidBlock(nnx.Module):
    def __init__(self, channels: int, groups: int, dtype: Dtype, attends: bool) -> None:
        self.resnets = nnx.List([ResnetBlock(channels, channels, groups, _EPSILON, dtype) for _ in range(2)])
        self.attentions = nnx.List([_PlaceAttention(channels, groups, dtype)] if attends else [])

    def __call__(self, x: jax.Array) -> jax.Array:
        for module in (self.resnets[0], *self.attentions, self.resnets[1]):
            x = module(x)
        return x


class _PlaceAttention(Attention):
    """Attention of all places to each other, in one head, beside a shortcut."""

    def __init__(self, channels: int, groups: int, dtype: Dtype) -> None:
        super().__init__(channels, 1, channels, dtype, bias=True)
        self.group_norm = GroupNorm(channels, groups, _EPSILON)

    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        tokens = self.group_norm(x).reshape(x.shape[0], -1, x.shape[-1])
        return x + super().__call__(tokens, context).reshape(x.shape)
