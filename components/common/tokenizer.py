"""How long prompts may be: what the tokenizer says, and what the text encoder takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.common.errors import BaseModelError
from components.common.sources.checks import read_object

_SHORTEST_PROMPT = 3  # start, a word, end


def limit_to_text_encoder(tokenizer: Any, text_encoder: Path) -> Any:
    """The tokenizer, whose `model_max_length` is from here on no more than the text encoder takes.

    A tokenizer without a length of its own says 1e30, so that no prompt is ever cut off, or can be padded.

    Args:
        tokenizer: a tokenizer of transformers; it is changed.
        text_encoder: the folder of the text encoder that it belongs to.

    Raises:
        BaseModelError: when the text encoder's configuration does not tell how many tokens it takes, or the tokenizer
            has more tokens than the text encoder has rows for.
    """
    file = text_encoder / "config.json"
    config = read_object(file)
    positions, rows = config.get("max_position_embeddings"), config.get("vocab_size")
    if type(positions) is not int or positions < _SHORTEST_PROMPT:
        raise BaseModelError(
            f"{file} does not say max_position_embeddings: found {str(positions)[:80]!r}, expected how many tokens it "
            "takes: import the base model again"
        )
    if isinstance(rows, int) and len(tokenizer) > rows:
        raise BaseModelError(
            f"the tokenizer beside {file} has {len(tokenizer)} tokens, expected at most the {rows} of vocab_size: they "
            "are not of the same model"
        )
    length = tokenizer.model_max_length
    if not isinstance(length, int | float) or length < _SHORTEST_PROMPT:
        raise BaseModelError(
            f"the tokenizer beside {file} takes {str(length)[:80]!r} tokens (model_max_length), expected "
            f"{_SHORTEST_PROMPT} or more: import the base model again"
        )
    tokenizer.model_max_length = int(min(length, positions))
    return tokenizer
