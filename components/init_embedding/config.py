"""Which new word is to be learned, and what it starts from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from components.common.errors import ConfigError
from components.common.learned_files import CHAMPION, PUBLISHED, mistakes_of_published
from components.common.options import Config, option
from components.common.prompts import placeholder_tokens
from components.common.start_word import AUTO


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitOptions(Config):
    """The new word and what it starts from."""

    title = "The new word"

    placeholder_token: str = option("the new word, one that the model does not know, such as <cat-toy>")
    initializer_token: str = option(
        "a word of one token that says roughly what the pictures show, such as toy; as many words as vectors start one "
        f"each, other numbers start all from their mean; {AUTO} takes the word that explains the pictures best"
    )
    num_vectors: int = option(
        "how many vectors the new word has: more hold more detail and are harder to edit", 1, least=1
    )

    initializer_embedding: str = option(
        "a learned embedding to start from instead of words: the address of a .safetensors file of diffusers, "
        "AUTOMATIC1111 or ComfyUI, registry:CONCEPT@ALIAS_OR_VERSION of the run's registry, or "
        f"{CHAMPION} for the version of this concept that registry_alias points at, where there is one that fits the "
        "base model; initializer_token is then only what samples are scored by",
        "",
    )

    def find_mistakes(self) -> Iterable[str]:
        """See `Config.find_mistakes`."""
        try:
            placeholder_tokens(self.placeholder_token, self.num_vectors)
        except ConfigError as error:
            yield str(error)
        if not self.initializer_token:
            yield f"initializer_token: found {self.initializer_token!r}, expected a word such as toy"
        for mistake in mistakes_of_published(self.initializer_embedding):
            yield f"initializer_embedding: {mistake}"

    @property
    def words(self) -> tuple[str, ...]:
        """The words to start from; none where they are to be found."""
        return () if self.initializer_token == AUTO else tuple(self.initializer_token.split())

    @property
    def known_word(self) -> str:
        """A word for prompts without the placeholder."""
        return next(iter(self.words), "concept")

    @property
    def tokens(self) -> tuple[str, ...]:
        """What the placeholder becomes in a prompt: `<x>`, `<x>_1`, ..."""
        return placeholder_tokens(self.placeholder_token, self.num_vectors)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitConfig(InitOptions):
    """What the step is told: the new word, and the state of the embedding that it starts from."""

    initializer_embedding_sha256: str = option(
        "SHA-256 that the embedding must still have, from the preflight step; empty: any", ""
    )

    def find_mistakes(self) -> Iterable[str]:
        """See `Config.find_mistakes`."""
        yield from super().find_mistakes()
        if self.initializer_embedding == CHAMPION or self.initializer_embedding.startswith(PUBLISHED):
            yield (
                f"initializer_embedding: found {self.initializer_embedding!r}, expected the address of a file: the "
                "preflight step of a run follows an alias, `textual-inversion registry show` says where it leads"
            )
