"""What a model's parts are: those fields of their config.json that determine the mathematics. It needs no JAX."""

from __future__ import annotations

import dataclasses

HIDDEN_ACTS = ("gelu", "quick_gelu")
"""CLIP's activations that are implemented."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipTextConfig:
    """The fields of a text encoder's config.json that determine its mathematics, with transformers' defaults."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 512
    eos_token_id: int = 49407


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The fields of a UNet's config.json that determine its mathematics, with diffusers' defaults.

    `attention_head_dim` is the number of heads, of every level or level by level: the name is an old mistake that all
    model files repeat. `transformer_layers_per_block` is the depth of a transformer, given in the same way.
    """

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    layers_per_block: int = 2
    attention_head_dim: int | tuple[int, ...] = 8
    transformer_layers_per_block: int | tuple[int, ...] = 1
    cross_attention_dim: int = 1280
    use_linear_projection: bool = False
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    flip_sin_to_cos: bool = True
    freq_shift: float = 0
    addition_embed_type: str = ""
    addition_time_embed_dim: int = 0
    projection_class_embeddings_input_dim: int = 0

    @property
    def heads(self) -> tuple[int, ...]:
        """The number of attention heads, level by level."""
        return self._by_level(self.attention_head_dim)

    @property
    def depths(self) -> tuple[int, ...]:
        """The number of blocks of a transformer, level by level."""
        return self._by_level(self.transformer_layers_per_block)

    def _by_level(self, given: int | tuple[int, ...]) -> tuple[int, ...]:
        return (given,) * len(self.block_out_channels) if isinstance(given, int) else given


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaeConfig:
    """The fields of a VAE's config.json that determine its mathematics, with diffusers' defaults."""

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    mid_block_add_attention: bool = True
    scaling_factor: float = 0.18215
