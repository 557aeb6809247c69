"""The denoising UNet of Stable Diffusion 1.x and 2.x (Rombach et al. 2022) and XL (Podell et al. 2023)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from components.flax_models.layers import Conv, Downsample, GroupNorm, Linear, ResnetBlock, Upsample
from components.flax_models.module_configs import UNetConfig
from components.flax_models.transformer import SpatialTransformer


class UNet(nnx.Module):
    """Noisy latents, timesteps and prompts to the prediction; parameters are named as in the model's file."""

    def __init__(self, config: UNetConfig, dtype: Dtype, *, remat: bool = False) -> None:
        """Takes the weights' dtype; with `remat`, blocks are computed again in the backward pass."""
        channels, levels = config.block_out_channels, len(config.block_out_channels)
        time_features = 4 * channels[0]
        make = _BlockMaker(config, dtype, remat, time_features)
        self.config, self.dtype = config, dtype
        self.conv_in = Conv(config.in_channels, channels[0], dtype)
        self.time_embedding = _TimeEmbedding(channels[0], time_features, dtype)
        if config.addition_embed_type:
            self.add_embedding = _TimeEmbedding(config.projection_class_embeddings_input_dim, time_features, dtype)
        down, skips, width = [], [channels[0]], channels[0]
        for level in range(levels):
            last = level == levels - 1
            down.append(make.down(width, level, downsamples=not last))
            width = channels[level]
            skips += [width] * (config.layers_per_block + (not last))
        self.down_blocks = nnx.List(down)
        self.mid_block = _MidBlock(make, width)
        up: list[_UpBlock] = []
        for level in reversed(range(levels)):
            taken = [skips.pop() for _ in range(config.layers_per_block + 1)]
            up.append(make.up(width, taken, level, upsamples=level != 0))
            width = channels[level]
        self.up_blocks = nnx.List(up)
        self.conv_norm_out = GroupNorm(channels[0], config.norm_num_groups, config.norm_eps)
        self.conv_out = Conv(channels[0], config.out_channels, dtype)

    def __call__(
        self,
        latents: jax.Array,
        timesteps: jax.Array,
        prompt: jax.Array,
        pooled: jax.Array | None = None,
        time_ids: jax.Array | None = None,
    ) -> jax.Array:
        """The prediction, float32 [b, h, w, out_channels].

        Args:
            latents: noisy latents, [b, h, w, in_channels].
            timesteps: int32 or float32 [b].
            prompt: the prompt's hidden states, [b, t, cross_attention_dim].
            pooled: the prompt's pooled projection, [b, p], where the UNet is conditioned on it.
            time_ids: the picture's size and crop, float32 [b, 6] (`time_ids.TimeIds`), beside `pooled`.
        """
        x, prompt = self.conv_in(latents.astype(self.dtype)), prompt.astype(self.dtype)
        waves = sinusoids(timesteps, self.config.block_out_channels[0], self.config)
        time = self.time_embedding(waves.astype(self.dtype))
        if pooled is not None and time_ids is not None:
            time = time + self._added(pooled, time_ids)
        skips = [x]
        for block in self.down_blocks:
            x = block(x, time, prompt, skips)
        x = self.mid_block(x, time, prompt)
        for up_block in self.up_blocks:
            x = up_block(x, time, prompt, skips)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x))).astype(jnp.float32)

    def _added(self, pooled: jax.Array, time_ids: jax.Array) -> jax.Array:
        """What the pooled prompt and the time ids add to the timestep's embedding, [b, time_features].

        Reference: `UNet2DConditionModel.get_aug_embed` of diffusers with `text_time`; arXiv 2307.01952, section 2.2.
        """
        waves = sinusoids(time_ids.reshape(-1), self.config.addition_time_embed_dim, self.config)
        added = jnp.concatenate([pooled, waves.reshape(len(pooled), -1)], axis=-1)
        return self.add_embedding(added.astype(self.dtype))


def sinusoids(timesteps: jax.Array, features: int, config: UNetConfig) -> jax.Array:
    """The timesteps' sinusoidal embedding, float32 [b, features] (Vaswani et al. 2017)."""
    half = features // 2
    frequency = jnp.exp(-jnp.log(10_000.0) * jnp.arange(half, dtype=jnp.float32) / (half - config.freq_shift))
    angles = timesteps[:, None].astype(jnp.float32) * frequency
    parts = (jnp.cos(angles), jnp.sin(angles)) if config.flip_sin_to_cos else (jnp.sin(angles), jnp.cos(angles))
    return jnp.concatenate(parts, axis=-1)


class _TimeEmbedding(nnx.Module):
    def __init__(self, features_in: int, features_out: int, dtype: Dtype) -> None:
        self.linear_1 = Linear(features_in, features_out, dtype)
        self.linear_2 = Linear(features_out, features_out, dtype)

    def __call__(self, waves: jax.Array) -> jax.Array:
        return self.linear_2(jax.nn.silu(self.linear_1(waves)))


@dataclasses.dataclass(frozen=True)
class _BlockMaker:
    """What all blocks of one UNet have in common."""

    config: UNetConfig
    dtype: Dtype
    remat: bool
    time_features: int

    def down(self, width: int, level: int, *, downsamples: bool) -> _DownBlock:
        channels = self.config.block_out_channels[level]
        resnets = [self.resnet(width if layer == 0 else channels, channels) for layer in range(self._layers)]
        attentions = self._attentions(self.config.down_block_types[level], level, self._layers)
        samplers = [Downsample(channels, self.dtype)] if downsamples else []
        return _DownBlock(resnets, attentions, samplers, self.remat)

    def up(self, width: int, skips: list[int], level: int, *, upsamples: bool) -> _UpBlock:
        channels = self.config.block_out_channels[level]
        resnets = [
            self.resnet((width if layer == 0 else channels) + skip, channels) for layer, skip in enumerate(skips)
        ]
        kind = self.config.up_block_types[len(self.config.block_out_channels) - 1 - level]
        samplers = [Upsample(channels, self.dtype)] if upsamples else []
        return _UpBlock(resnets, self._attentions(kind, level, len(skips)), samplers, self.remat)

    def resnet(self, channels_in: int, channels_out: int) -> ResnetBlock:
        config = self.config
        return ResnetBlock(
            channels_in, channels_out, config.norm_num_groups, config.norm_eps, self.dtype, self.time_features
        )

    def transformer(self, level: int) -> SpatialTransformer:
        config = self.config
        return SpatialTransformer(
            config.block_out_channels[level],
            config.heads[level],
            config.cross_attention_dim,
            config.norm_num_groups,
            self.dtype,
            depth=config.depths[level],
            linear_projection=config.use_linear_projection,
            remat=self.remat,
        )

    @property
    def _layers(self) -> int:
        return self.config.layers_per_block

    def _attentions(self, kind: str, level: int, count: int) -> list[SpatialTransformer]:
        return [self.transformer(level) for _ in range(count)] if kind.startswith("CrossAttn") else []


class _Layers(nnx.Module):
    """Residual blocks, each followed by a transformer where the level has them."""

    def __init__(self, resnets: list[ResnetBlock], attentions: list[SpatialTransformer], remat: bool) -> None:
        self.remat = remat
        self.resnets, self.attentions = nnx.List(resnets), nnx.List(attentions)

    def layer(self, index: int, x: jax.Array, time: jax.Array, prompt: jax.Array) -> jax.Array:
        x = maybe_remat(self.resnets[index], self.remat)(x, time)
        return self.attentions[index](x, prompt) if len(self.attentions) else x


class _DownBlock(_Layers):
    def __init__(
        self,
        resnets: list[ResnetBlock],
        attentions: list[SpatialTransformer],
        downsamplers: list[Downsample],
        remat: bool,
    ) -> None:
        super().__init__(resnets, attentions, remat)
        self.downsamplers = nnx.List(downsamplers)

    def __call__(self, x: jax.Array, time: jax.Array, prompt: jax.Array, skips: list[jax.Array]) -> jax.Array:
        for index in range(len(self.resnets)):
            x = self.layer(index, x, time, prompt)
            skips.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)
            skips.append(x)
        return x


class _UpBlock(_Layers):
    def __init__(
        self,
        resnets: list[ResnetBlock],
        attentions: list[SpatialTransformer],
        upsamplers: list[Upsample],
        remat: bool,
    ) -> None:
        super().__init__(resnets, attentions, remat)
        self.upsamplers = nnx.List(upsamplers)

    def __call__(self, x: jax.Array, time: jax.Array, prompt: jax.Array, skips: list[jax.Array]) -> jax.Array:
        for index in range(len(self.resnets)):
            x = self.layer(index, jnp.concatenate([x, skips.pop()], axis=-1), time, prompt)
        for upsample in self.upsamplers:
            x = upsample(x, (skips[-1].shape[1], skips[-1].shape[2]))
        return x


class _MidBlock(nnx.Module):
    def __init__(self, make: _BlockMaker, channels: int) -> None:
        self.remat = make.remat
        self.resnets = nnx.List([make.resnet(channels, channels) for _ in range(2)])
        self.attentions = nnx.List([make.transformer(len(make.config.block_out_channels) - 1)])

    def __call__(self, x: jax.Array, time: jax.Array, prompt: jax.Array) -> jax.Array:
        first, second = (maybe_remat(resnet, self.remat) for resnet in self.resnets)
        return second(self.attentions[0](first(x, time), prompt), time)


def maybe_remat(function: Callable[..., jax.Array], remat: bool) -> Callable[..., jax.Array]:
    """The function, computed again in the backward pass if `remat`."""
    return jax.checkpoint(function) if remat else function
