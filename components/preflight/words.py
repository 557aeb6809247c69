"""More words in the same run: what each has of its own, and every option of a run as it is for one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from components.common.options import Config, option

INHERITED = ("initializer_token", "num_vectors", "learnable_property", "evaluation_prompts")
"""Options that a word may have of its own; where it has none they are the first word's."""

OWN_ALONE = (
    "images_uri",
    "scoring_images_uri",
    "initializer_embedding",
    "evaluation_reference_prompt",
    "concept_name",
)
"""Options of a word that say nothing about another word: they are never the first word's."""

TOKEN = "placeholder_token"
_EXAMPLE = '{"<dog-toy>": {"images_uri": "gs://bucket/dog", "initializer_token": "dog"}}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordsOptions(Config):
    """The words beside the first one."""

    title = "More words"

    more_words: Mapping[str, Any] = option(
        "further words that are learned in the same run, which is sooner than in runs of their own, as JSON by "
        f"placeholder, such as {_EXAMPLE}; each has its images_uri and may have {', '.join(OWN_ALONE[1:])}, and "
        f"{', '.join(INHERITED)}, which else are those of the run; all other options are the same for all words",
        {},
    )

    def find_mistakes(self) -> Iterable[str]:
        """See `Config.find_mistakes`."""
        allowed = {*INHERITED, *OWN_ALONE}
        for token, own in self.more_words.items():
            if not isinstance(own, Mapping):
                yield f"more_words: found {own!r} for {token}, expected its options by name, as in {_EXAMPLE}"
                continue
            for name in own:
                if name not in allowed:
                    yield (
                        f"{in_word(token)}{name}: no option that a word has of its own, expected one of "
                        f"{', '.join(sorted(allowed))}"
                    )
            if not own.get("images_uri"):
                yield f"{in_word(token)}images_uri: found nothing, expected the pictures of this word"


def in_word(token: str) -> str:
    """What goes before an option in a message about one of `more_words`."""
    return f'more_words["{token}"].'


def values_by_word(values: Mapping[str, Any], more_words: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each further word with the options of a run that it would have alone.

    Args:
        values: the options of the run, which are the first word's.
        more_words: the words' own options, by placeholder.
    """
    shared = {name: value for name, value in values.items() if name not in (*OWN_ALONE, "more_words")}
    for token, own in more_words.items():
        yield token, {**shared, **own, TOKEN: token}
