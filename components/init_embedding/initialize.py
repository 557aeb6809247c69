"""The placeholder's tokens and the rows that training starts from."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np

from components.common.artifacts import InitialEmbedding
from components.common.base_model import materialize, read_reference
from components.common.errors import BaseModelError
from components.common.tokenizer import limit_to_text_encoder
from components.common.vocabulary import (
    add_placeholder,
    check_prompt_length,
    initializer_id,
    load_tokenizer,
)
from components.init_embedding.config import InitConfig
from components.init_embedding.token_table import read_token_row

logger = logging.getLogger(__name__)

TEXT_ENCODERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
"""The tokenizer of each text encoder, by subfolder; SD 1.x and 2.x have the first pair, SDXL has both."""


def init_embedding(config: InitConfig, base_model: Path, output: Path) -> InitialEmbedding:
    """The initial embedding for a base model, written to `output`: every row is a copy of the initializer's.

    Reference: the set-up in `main` of diffusers' examples/textual_inversion; arXiv 2208.01618, section 4.

    Args:
        config: the word to be learned.
        base_model: folder of the base model's reference.
        output: folder for the artifact.

    Raises:
        TokenError: when the placeholder or the initializer cannot be used with the model's tokenizer.
        BaseModelError: when the model has no CLIP tokenizer or token table.
        ArtifactError: when the reference cannot be read or `output` cannot be written.
        StorageError: when the model store cannot be reached.
    """
    reference = read_reference(base_model)
    encoders = [name for name in TEXT_ENCODERS if name in reference.subfolders]
    if not encoders:
        raise BaseModelError(
            f"found no text_encoder in the base model {reference.source}, which has "
            f"{', '.join(reference.subfolders) or 'no subfolders'}: import a diffusion model"
        )
    folder = materialize(reference, [*encoders, *(TEXT_ENCODERS[name] for name in encoders)])
    ids = {name: _token_ids(config, folder / TEXT_ENCODERS[name], folder / name) for name in encoders}
    first, *others = ids.values()
    if any(other != first for other in others):
        raise BaseModelError(f"the tokenizers of {reference.source} number the tokens differently: {ids}")
    token_ids, initializer = first
    rows = {name: _copies(folder / name, initializer, len(token_ids)) for name in encoders}
    embedding = InitialEmbedding(
        placeholder_token=config.placeholder_token,
        tokens=config.tokens,
        token_ids=token_ids,
        initializer_token=config.initializer_token,
        initializer_token_id=initializer,
        rows=rows,
        base_model_digest=reference.digest,
    )
    written = embedding.write(output)
    for name, row in rows.items():
        logger.info(
            "%s: %d x %d from %r (token %d), norm %.3f",
            name,
            *row.shape,
            config.initializer_token,
            initializer,
            np.linalg.norm(row[0]),
        )
    logger.info("%s is %s, tokens %s", config.placeholder_token, " ".join(config.tokens), list(token_ids))
    return dataclasses.replace(embedding, digest=written.digest)


def _token_ids(config: InitConfig, tokenizer_folder: Path, text_encoder: Path) -> tuple[tuple[int, ...], int]:
    """The placeholder's ids and the initializer's id in one tokenizer."""
    tokenizer = limit_to_text_encoder(load_tokenizer(tokenizer_folder), text_encoder)
    initializer = initializer_id(tokenizer, config.initializer_token)
    check_prompt_length(tokenizer, config.initializer_token, config.num_vectors, tokenizer.model_max_length)
    return add_placeholder(tokenizer, config.tokens, config.initializer_token), initializer


def _copies(text_encoder: Path, token_id: int, count: int) -> np.ndarray:
    return np.tile(read_token_row(text_encoder, token_id), (count, 1))
