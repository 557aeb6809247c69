"""Whether a model's tokenizer takes the new word, and its text encoder every prompt that a run will draw."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from components.common.errors import TokenError
from components.common.learned_files import ExistingEmbedding
from components.common.sources.checks import read_json
from components.common.sources.models import ModelSource
from components.common.tokenizer import limit_to_text_encoder
from components.common.vocabulary import add_placeholder, check_prompt_length, initializer_ids, load_tokenizer
from components.evaluate.config import EvaluateOptions
from components.init_embedding.config import InitOptions

_TOKENIZER, _TEXT_ENCODER = "tokenizer/", "text_encoder/config.json"


def check_new_word(
    source: ModelSource, *, word: InitOptions, evaluation: EvaluateOptions, learnable_property: str
) -> tuple[int, ...]:
    """The ids that the placeholder's tokens get in the tokenizer of a model, of which only small files are read.

    Args:
        source: a diffusers model.
        word: the placeholder and its initializer.
        evaluation: the prompts that samples are drawn from.
        learnable_property: `object` or `style`, which decides about prompts where none are given.

    Raises:
        BaseModelError: when the tokenizer cannot be read.
        StorageError: when the files cannot be fetched.
        TokenError: naming everything: an initializer of several tokens, a placeholder that the tokenizer knows, prompts
            for which the text encoder has no room.
    """
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        for name in source.files:
            if name == _TEXT_ENCODER or (name.startswith(_TOKENIZER) and name.endswith((".json", ".txt"))):
                (model / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source.fetch(name, Path(scratch) / "fetched"), model / name)
        tokenizer = limit_to_text_encoder(load_tokenizer(model / "tokenizer"), model / "text_encoder")
    mistakes: list[str] = []
    for check in (
        lambda: word.words and initializer_ids(tokenizer, word.initializer_token),
        lambda: check_prompt_length(tokenizer, word.num_vectors, tokenizer.model_max_length),
        lambda: add_placeholder(tokenizer, word.tokens, word.known_word),
    ):
        try:
            check()
        except TokenError as error:
            mistakes += error.mistakes
    if not any(mistake.startswith("num_vectors") for mistake in mistakes):  # with so many no prompt has room
        mistakes += _long_prompts(tokenizer, word, evaluation, evaluation.prompts_for(learnable_property))
    if mistakes:
        raise TokenError(*mistakes)
    return tuple(tokenizer.convert_tokens_to_ids(list(word.tokens)))


def check_embedding_fits(existing: ExistingEmbedding, source: ModelSource) -> None:
    """Returns when the rows of an existing embedding are as wide as a model's text encoder.

    Raises:
        BaseModelError: naming both widths.
        StorageError: when the model's file cannot be fetched.
    """
    with tempfile.TemporaryDirectory() as scratch:
        config = read_json(source.fetch(_TEXT_ENCODER, Path(scratch)), _TEXT_ENCODER)
    existing.check_widths({"text_encoder": config.get("hidden_size")})


def _long_prompts(
    tokenizer: Any, word: InitOptions, evaluation: EvaluateOptions, prompts: Sequence[str]
) -> Iterable[str]:
    """Prompts that would be cut off, with the placeholder, the initializer or the reference prompt in their place."""
    most = tokenizer.model_max_length
    words = list(filter(None, (" ".join(word.tokens), " ".join(word.words), evaluation.reference_prompt)))
    for prompt in prompts:
        longest = max(len(tokenizer.encode(prompt.replace("{}", each))) for each in words)
        if longest > most:
            yield (
                f"evaluation_prompts: found {_cut(prompt)!r} of {longest} tokens with its word, expected at most "
                f"{most}, which the text encoder takes: shorten it, or take fewer vectors"
            )
    if (length := len(tokenizer.encode(evaluation.negative_prompt))) > most:
        yield (
            f"evaluation_negative_prompt: found {_cut(evaluation.negative_prompt)!r} of {length} tokens, expected at "
            f"most {most}, which the text encoder takes: shorten it"
        )


def _cut(prompt: str) -> str:
    return prompt if len(prompt) <= 60 else f"{prompt[:57]}..."
