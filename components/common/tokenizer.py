"""How long prompts may be: what the tokenizer says, and what the text encoder takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.common.errors import BaseModelError


def limit_to_text_encoder(tokenizer: Any, text_encoder: Path) -> Any:
    """The tokenizer, whose `model_max_length` is from here on no more than the text encoder takes.

    A tokenizer without a length of its own says 1e30, so that no prompt is ever cut off, or can be padded.

    Args:
        tokenizer: a tokenizer of transformers; it is changed.
        text_encoder: the folder of the text encoder that it belongs to.

    Raises:
        BaseModelError: when the text encoder's configuration does not tell how many tokens it takes.
    """
    file = text_encoder / "config.json"
    try:
        positions = int(json.loads(file.read_text(encoding="utf-8"))["max_position_embeddings"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BaseModelError(f"{file} does not say max_position_embeddings ({error!r})") from error
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    return tokenizer
