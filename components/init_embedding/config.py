"""Which new word is to be learned, and what it starts from."""

from __future__ import annotations

import dataclasses

from components.common.errors import ConfigError
from components.common.prompts import placeholder_tokens

DESCRIPTIONS = {
    "placeholder_token": "the new word, one that the model does not know, such as <cat-toy>",
    "initializer_token": "a word of one token that says roughly what the pictures show, such as toy",
    "num_vectors": "how many vectors the new word has: more hold more detail and are harder to edit",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitConfig:
    """The parameters of the step; `DESCRIPTIONS` says what each one is.

    Raises:
        ConfigError: for a value that cannot be right, naming the field.
    """

    placeholder_token: str
    initializer_token: str
    num_vectors: int = 1

    def __post_init__(self) -> None:
        placeholder_tokens(self.placeholder_token, self.num_vectors)
        if not self.initializer_token.strip():
            raise ConfigError(f"initializer_token: found {self.initializer_token!r}, expected a word such as toy")

    @property
    def tokens(self) -> tuple[str, ...]:
        """What the placeholder becomes in a prompt: `<x>`, `<x>_1`, ..."""
        return placeholder_tokens(self.placeholder_token, self.num_vectors)
