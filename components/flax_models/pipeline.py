"""A base model on all devices of a process, and at most one learned concept: what samplers and measurements draw on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from components.common.artifacts import Rows, read_clip_skip, read_learned_embeds, row_widths
from components.common.errors import BaseModelError, TokenError
from components.common.families import TOKENIZERS, check_word_fits, family_of
from components.common.prompts import placeholder_tokens
from components.common.sources.checks import read_object
from components.common.time_ids import drawing_time_ids
from components.common.tokenizer import limit_to_text_encoder
from components.common.vocabulary import load_tokenizer
from components.flax_models.conditioning import Conditioning, conditioning
from components.flax_models.devices import DATA
from components.flax_models.loading import load_text_encoders, load_unet, load_vae, replicated, weight_dtype
from components.flax_models.samplers import load_sampler


class Weights(NamedTuple):
    """The parts' weights on every device, an argument of compiled functions."""

    text_encoders: Mapping[str, Any]
    unet: Any
    vae: Any


class FlaxPipeline:
    """The parts of a base model, and the rows of at most one concept.

    Attributes:
        mesh: the devices.
        matmul_precision: in which precision compiled functions multiply.
        sampler: the model's schedule, as a sampler walks it.
        text_encoders: the modules' definitions by their folders, in the family's order.
        unet, vae: the modules' definitions.
        weights: their weights, on every device.
        rows: the concept's rows by text encoder, float32 [n, d] each, on every device.
        first_id: the concept's first token id.
        clip_skip: how many of the text encoders' last layers the concept wants left out.
        zeroed_negative: whether an empty negative prompt is told to the UNet as zeros.
    """

    def __init__(self, model: Path, *, mesh: Mesh, mixed_precision: str = "no", sampler: str = "auto") -> None:
        """Loads all parts of a local diffusers folder onto every device of the mesh, which is of one process.

        Args:
            model: the folder.
            mesh: the devices.
            mixed_precision: `no` or `bf16`.
            sampler: one of `drawing.SAMPLERS`.

        Raises:
            BaseModelError: when a part is missing or not implemented.
        """
        dtype = weight_dtype(mixed_precision)
        # Else TPUs multiply float32 by one pass of bfloat16.
        self.mesh, self.matmul_precision = mesh, "highest" if mixed_precision == "no" else "default"
        self._family = family_of([path.name for path in model.iterdir()], read_object(model / "unet" / "config.json"))
        self.zeroed_negative = bool(
            read_object(model / "model_index.json").get("force_zeros_for_empty_prompt", self._family.zeroed_negative)
        )
        self.sampler = load_sampler(model, sampler)
        self.text_encoders = load_text_encoders(model, self._family, dtype=dtype)
        self.unet, self.vae = load_unet(model, dtype=dtype), load_vae(model)
        texts = {part: encoder.weights for part, encoder in self.text_encoders.items()}
        self.weights: Weights = replicated(Weights(texts, self.unet.weights, self.vae.weights), mesh)
        self.first_id, self.clip_skip = max(each.config.vocab_size for each in self.text_encoders.values()), 0
        self.write_rows({part: np.zeros((1, width), np.float32) for part, width in self._widths.items()})
        self._model, self._tokens = model, tuple[str, ...]()
        self._tokenizers = {
            part: limit_to_text_encoder(load_tokenizer(model / TOKENIZERS[part]), model / part)
            for part in self.text_encoders
        }

    @property
    def latents_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of latents of the size that the UNet was trained for.

        Raises:
            BaseModelError: when its configuration does not tell the size.
        """
        size = read_object(self._model / "unet" / "config.json").get("sample_size")
        height, width = (size, size) if isinstance(size, int) else size or (None, None)
        if not isinstance(height, int) or not isinstance(width, int):
            raise BaseModelError(f"sample_size is {size!r} in {self._model / 'unet'}, expected the size of the latents")
        return self.unet.config.in_channels, height, width

    def vocabulary(self, encoder: str) -> tuple[list[str], np.ndarray]:
        """The tokens without a concept's, and a text encoder's table of them, float32 [tokens, d]."""
        weights, tokenizer = self.text_encoders[encoder].weights, self._tokenizers[encoder]
        table = np.asarray(weights["embeddings"]["token_embedding"]["embedding"][...], np.float32)
        size = min(len(tokenizer) - len(self._tokens), len(table))
        return tokenizer.convert_ids_to_tokens(list(range(size))), table[:size]

    def load_concept(self, file: Path) -> tuple[str, ...]:
        """The placeholder's tokens, after loading a learned-embedding file; in prompts stands the first one alone.

        Raises:
            TokenError: when the placeholder is in the vocabulary already.
            BaseModelError: when the rows are for another family, or of other widths than the text encoders.
        """
        header, rows = read_learned_embeds(file)
        token = header["placeholder_token"]
        check_word_fits(str(file), row_widths(rows), self._widths)
        if any(token in tokenizer.get_vocab() for tokenizer in self._tokenizers.values()):
            raise TokenError(f"the placeholder {token!r} is in the tokenizer's vocabulary already: choose another one")
        tokens = placeholder_tokens(token, len(next(iter(rows.values()))))
        for tokenizer in self._tokenizers.values():
            tokenizer.add_tokens(list(tokens))
        first_ids = {part: each.convert_tokens_to_ids(tokens[0]) for part, each in self._tokenizers.items()}
        if len(set(first_ids.values())) > 1:
            raise TokenError(
                f"the placeholder {token!r} got the ids {first_ids}, expected one id: choose another model"
            )
        self._tokens, self.first_id = tokens, next(iter(first_ids.values()))
        self.clip_skip = read_clip_skip(file)
        self.write_rows(rows)
        return tokens

    def write_rows(self, rows: Rows) -> None:
        """Puts other rows, float32 [n, d] by text encoder, under the tokens that `load_concept` gave."""
        self.rows = replicated({part: rows[part].astype(np.float32) for part in self.text_encoders}, self.mesh)

    def prompt_ids(self, prompts: Sequence[str]) -> dict[str, np.ndarray]:
        """The token ids of prompts by text encoder, int32 [prompts, t] each.

        For a concept of several vectors the placeholder stands alone.
        """
        texts = [
            prompt.replace(self._tokens[0], " ".join(self._tokens)) if self._tokens else prompt for prompt in prompts
        ]
        return {part: _ids(tokenizer, texts) for part, tokenizer in self._tokenizers.items()}

    def condition(
        self,
        weights: Weights,
        ids: Mapping[str, jax.Array],
        rows: Mapping[str, jax.Array],
        first_id: int | jax.Array,
        *,
        height: int,
        width: int,
        clip_skip: int = 0,
    ) -> Conditioning:
        """What the UNet is told of prompts, and of pictures from the height and width of their latents.

        It is traced; other arguments as of `conditioning`.
        """
        modules = {part: encoder.module(weights.text_encoders[part]) for part, encoder in self.text_encoders.items()}
        time_ids, count = None, len(next(iter(ids.values())))
        if self._family.time_ids:
            scale = 2 ** (len(self.vae.config.block_out_channels) - 1)
            told = jnp.array(drawing_time_ids(scale * height, scale * width), jnp.float32)
            time_ids = jnp.broadcast_to(told, (count, len(told)))
        return conditioning(modules, ids, rows, first_id, clip_skip=clip_skip, time_ids=time_ids)

    def cut(self, values: Any) -> Any:
        """The array, or each of a pytree, whose first axis is a multiple of the devices, in equal shares on them."""
        return jax.device_put(values, NamedSharding(self.mesh, P(DATA)))

    @property
    def _widths(self) -> dict[str, int]:
        return {part: encoder.config.hidden_size for part, encoder in self.text_encoders.items()}


def _ids(tokenizer: Any, texts: Sequence[str]) -> np.ndarray:
    length = tokenizer.model_max_length
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=length)
    return np.array(encoded.input_ids, np.int32)
