"""A base model on all devices of a process, and at most one learned concept: what samplers and measurements draw on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from components.common.artifacts import read_clip_skip, read_learned_embeds
from components.common.errors import BaseModelError, InputError, TokenError
from components.common.prompts import placeholder_tokens
from components.common.sources.checks import read_object
from components.common.tokenizer import limit_to_text_encoder
from components.common.vocabulary import load_tokenizer
from components.flax_models.devices import DATA
from components.flax_models.loading import load_text_encoder, load_unet, load_vae, replicated, weight_dtype
from components.flax_models.samplers import load_sampler

TEXT_ENCODER = "text_encoder"


class Weights(NamedTuple):
    """The parts' weights on every device, an argument of compiled functions."""

    text_encoder: Any
    unet: Any
    vae: Any


class FlaxPipeline:
    """The parts of a base model, and the rows of at most one concept.

    Attributes:
        mesh: the devices.
        matmul_precision: in which precision compiled functions multiply.
        sampler: the model's schedule, as a sampler walks it.
        text_encoder, unet, vae: the modules' definitions.
        weights: their weights, on every device.
        rows: the concept's rows, float32 [n, d], on every device.
        first_id: the concept's first token id.
        clip_skip: how many of the text encoder's last layers the concept wants left out.
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
        self.sampler = load_sampler(model, sampler)
        self.text_encoder, self.unet = load_text_encoder(model, dtype=dtype), load_unet(model, dtype=dtype)
        self.vae = load_vae(model)
        self.weights: Weights = replicated(
            Weights(self.text_encoder.weights, self.unet.weights, self.vae.weights), mesh
        )
        self.first_id, self.clip_skip = self.text_encoder.config.vocab_size, 0
        self.rows = replicated(np.zeros((1, self.text_encoder.config.hidden_size), np.float32), mesh)
        self._model, self._tokens = model, tuple[str, ...]()
        self._tokenizer = limit_to_text_encoder(load_tokenizer(model / "tokenizer"), model / TEXT_ENCODER)

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

    def vocabulary(self) -> tuple[list[str], np.ndarray]:
        """The tokens without a concept's, and the text encoder's table of them, float32 [tokens, d]."""
        table = np.asarray(self.text_encoder.weights["embeddings"]["token_embedding"]["embedding"][...], np.float32)
        size = min(len(self._tokenizer) - len(self._tokens), len(table))
        return self._tokenizer.convert_ids_to_tokens(list(range(size))), table[:size]

    def load_concept(self, file: Path) -> tuple[str, ...]:
        """The placeholder's tokens, after loading a learned-embedding file; in prompts stands the first one alone.

        Raises:
            TokenError: when the placeholder is in the vocabulary already.
            InputError: when the rows are of another width than the text encoder, or of another text encoder.
        """
        header, rows = read_learned_embeds(file)
        token, width = header["placeholder_token"], self.text_encoder.config.hidden_size
        if set(rows) != {TEXT_ENCODER} or rows[TEXT_ENCODER].shape[1] != width:
            found = ", ".join(f"{name} of width {values.shape[1]}" for name, values in rows.items())
            raise InputError(
                f"{file} has rows for {found}, expected {TEXT_ENCODER} of width {width}: use the base model that the "
                "concept was learned on"
            )
        if token in self._tokenizer.get_vocab():
            raise TokenError(f"the placeholder {token!r} is in the tokenizer's vocabulary already: choose another one")
        tokens = placeholder_tokens(token, len(rows[TEXT_ENCODER]))
        self._tokenizer.add_tokens(list(tokens))
        self._tokens, self.first_id = tokens, self._tokenizer.convert_tokens_to_ids(tokens[0])
        self.clip_skip = read_clip_skip(file)
        self.write_rows(rows[TEXT_ENCODER])
        return tokens

    def write_rows(self, rows: np.ndarray) -> None:
        """Puts other rows, float32 [n, d], under the tokens that `load_concept` gave."""
        self.rows = replicated(rows.astype(np.float32), self.mesh)

    def prompt_ids(self, prompts: Sequence[str]) -> np.ndarray:
        """The token ids of prompts with the placeholder alone for a concept of several vectors, int32 [prompts, t]."""
        texts = [
            prompt.replace(self._tokens[0], " ".join(self._tokens)) if self._tokens else prompt for prompt in prompts
        ]
        length = self._tokenizer.model_max_length
        encoded = self._tokenizer(texts, padding="max_length", truncation=True, max_length=length)
        return np.array(encoded.input_ids, np.int32)

    def cut(self, values: np.ndarray) -> jax.Array:
        """The array, whose first axis is a multiple of the devices, in equal shares on them."""
        return jax.device_put(values, NamedSharding(self.mesh, P(DATA)))
