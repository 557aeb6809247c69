"""The placeholder's tokens and the rows that training starts from."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np

from components.common.artifacts import InitialEmbedding, Rows, row_widths
from components.common.base_model import materialize, read_reference
from components.common.errors import ConfigError, InputError
from components.common.families import text_encoders_of
from components.common.learned_files import read_existing_embedding
from components.common.start_word import AUTO, StartWord
from components.common.tokenizer import limit_to_text_encoder
from components.common.vocabulary import (
    add_placeholder,
    check_prompt_length,
    initializer_ids,
    load_tokenizer,
    same_in_all,
)
from components.init_embedding.config import InitConfig
from components.init_embedding.token_table import read_token_row

logger = logging.getLogger(__name__)


def init_embedding(
    config: InitConfig, base_model: Path, output: Path, *, start_word: Path | None = None
) -> InitialEmbedding:
    """The initial embedding for a base model, written to `output`: every row is a copy of a known one.

    Known rows are those of words, or of an existing embedding. As many as there are vectors give one each; of another
    number every vector gets the mean.

    Reference: the set-up in `main` of diffusers' examples/textual_inversion; arXiv 2208.01618, section 4.

    Args:
        config: the word to be learned.
        base_model: folder of the base model's reference.
        output: folder for the artifact.
        start_word: folder of the StartWord, for a config that leaves the word to it.

    Raises:
        ConfigError: when the word is left to a StartWord and there is none.
        InputError: when the existing embedding cannot be used.
        TokenError: when the placeholder or the initializer cannot be used with the model's tokenizer.
        BaseModelError: when the model has no CLIP tokenizer or token table.
        ArtifactError: when the reference cannot be read or `output` cannot be written.
        StorageError: when the model store cannot be reached.
    """
    reference = read_reference(base_model)
    words = _words(config, start_word)
    encoders = {each.part: each.tokenizer for each in text_encoders_of(reference.subfolders)}
    folder = materialize(reference, [*encoders, *encoders.values()])
    found = [_token_ids(config, words, folder / tokenizer, folder / name) for name, tokenizer in encoders.items()]
    token_ids, initializers = (
        same_in_all(dict(zip(encoders, ids, strict=True)), reference.source) for ids in zip(*found, strict=True)
    )
    of_words = {name: np.stack([read_token_row(folder / name, word) for word in initializers]) for name in encoders}
    known = _existing_rows(config, of_words) if config.initializer_embedding else of_words
    rows = {name: _spread(values, len(token_ids)) for name, values in known.items()}
    embedding = InitialEmbedding(
        placeholder_token=config.placeholder_token,
        tokens=config.tokens,
        token_ids=token_ids,
        initializer_token=words,
        initializer_token_id=initializers[0],
        rows=rows,
        base_model_digest=reference.digest,
        initializer_embedding=config.initializer_embedding,
    )
    written = embedding.write(output)
    for name, row in rows.items():
        logger.info(
            "%s: %d x %d from %r, norm %.3f",
            name,
            *row.shape,
            config.initializer_embedding or words,
            np.linalg.norm(row[0]),
        )
    logger.info("%s is %s, tokens %s", config.placeholder_token, " ".join(config.tokens), list(token_ids))
    return dataclasses.replace(embedding, digest=written.digest)


def _words(config: InitConfig, start_word: Path | None) -> str:
    if config.initializer_token != AUTO:
        return config.initializer_token
    if start_word is None:
        raise ConfigError(
            f"initializer_token: found {AUTO} without a StartWord, expected one: give what components.find_start_word "
            "has found, or a word"
        )
    return StartWord.read(start_word).word


def _token_ids(
    config: InitConfig, words: str, tokenizer_folder: Path, text_encoder: Path
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The placeholder's ids and those of the initializer's words in one tokenizer."""
    tokenizer = limit_to_text_encoder(load_tokenizer(tokenizer_folder), text_encoder)
    initializers = initializer_ids(tokenizer, words)
    check_prompt_length(tokenizer, config.num_vectors, tokenizer.model_max_length)
    return add_placeholder(tokenizer, config.tokens, config.known_word), initializers


def _existing_rows(config: InitConfig, of_words: Rows) -> Rows:
    """The rows of the existing embedding, once they fit the model, whose words have the rows `of_words`."""
    existing = read_existing_embedding(config.initializer_embedding)
    if config.initializer_embedding_sha256 not in ("", existing.sha256):
        raise InputError(
            f"initializer_embedding: {existing.address} has the SHA-256 {existing.sha256[:12]}, expected "
            f"{config.initializer_embedding_sha256[:12]} as when the run began: start the run again"
        )
    existing.check_widths(row_widths(of_words))
    return existing.rows


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """Rows to start from, float32 [count, d]: as many are taken as they are, of others each is the mean."""
    return rows if len(rows) == count else np.tile(rows.mean(axis=0), (count, 1))
