"""The token ids of every training prompt, made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from components.common import vocabulary
from components.common.artifacts import InitialEmbedding
from components.common.errors import TokenError
from components.common.prompts import templates_for
from components.common.tokenizer import limit_to_text_encoder


def load_tokenizer(model: Path, embedding: InitialEmbedding) -> Any:
    """The model's CLIP tokenizer with the placeholder's tokens added, for prompts as long as the text encoder takes.

    Raises:
        BaseModelError: when it cannot be read, or the text encoder does not tell how many tokens it takes.
        TokenError: when they do not get the ids that the initial embedding was made with.
    """
    tokenizer = limit_to_text_encoder(vocabulary.load_tokenizer(model / "tokenizer"), model / "text_encoder")
    tokenizer.add_tokens(list(embedding.tokens))
    found = tokenizer.convert_tokens_to_ids(list(embedding.tokens))
    if tuple(found) != tuple(embedding.token_ids):
        raise TokenError(
            f"the tokens {', '.join(embedding.tokens)} got the ids {found} in {model / 'tokenizer'}, expected "
            f"{list(embedding.token_ids)} as in the initial embedding: make it again from this base model"
        )
    return tokenizer


def training_prompt_ids(tokenizer: Any, embedding: InitialEmbedding, learnable_property: str) -> np.ndarray:
    """The ids of every template with the placeholder in it: int64 [templates, tokens], padded as the reference does."""
    placeholder = " ".join(embedding.tokens)
    prompts = [template.format(placeholder) for template in templates_for(learnable_property)]
    encoded = tokenizer(prompts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length)
    return np.array(encoded.input_ids, dtype=np.int64)
