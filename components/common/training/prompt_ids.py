"""The token ids of every training prompt, made once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.common import vocabulary
from components.common.artifacts import InitialEmbedding
from components.common.errors import TokenError
from components.common.families import TOKENIZERS
from components.common.prompts import templates_for
from components.common.tokenizer import limit_to_text_encoder

PromptIds = Mapping[str, np.ndarray]
"""The ids of prompts by text encoder: int64 [prompts, tokens] each. The encoders' tokenizers pad differently."""


def load_tokenizers(model: Path, embedding: InitialEmbedding) -> dict[str, Any]:
    """The CLIP tokenizer of each text encoder that a word has rows for, with the placeholder's tokens added.

    Prompts are as long as the text encoder takes.

    Raises:
        BaseModelError: when one cannot be read, or a text encoder does not tell how many tokens it takes.
        TokenError: when they do not get the ids that the initial embedding was made with.
    """
    return {name: _load_tokenizer(model / TOKENIZERS[name], model / name, embedding) for name in embedding.rows}


def _load_tokenizer(folder: Path, text_encoder: Path, embedding: InitialEmbedding) -> Any:
    tokenizer = limit_to_text_encoder(vocabulary.load_tokenizer(folder), text_encoder)
    tokenizer.add_tokens(list(embedding.tokens))
    found = tokenizer.convert_tokens_to_ids(list(embedding.tokens))
    if tuple(found) != tuple(embedding.token_ids):
        raise TokenError(
            f"the tokens {', '.join(embedding.tokens)} got the ids {found} in {folder}, expected "
            f"{list(embedding.token_ids)} as in the initial embedding: make it again from this base model"
        )
    return tokenizer


def training_prompt_ids(
    tokenizers: Mapping[str, Any], embedding: InitialEmbedding, learnable_property: str
) -> dict[str, np.ndarray]:
    """The ids of every template with the placeholder in it, by text encoder, padded as the reference does.

    Args:
        tokenizers: from `load_tokenizers`.
        embedding: the word.
        learnable_property: `object` or `style`.

    Returns:
        int64 [templates, tokens] each.
    """
    placeholder = " ".join(embedding.tokens)
    prompts = [template.format(placeholder) for template in templates_for(learnable_property)]
    return {name: _ids(tokenizer, prompts) for name, tokenizer in tokenizers.items()}


def _ids(tokenizer: Any, prompts: list[str]) -> np.ndarray:
    encoded = tokenizer(prompts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length)
    return np.array(encoded.input_ids, dtype=np.int64)
