"""Whether a model's tokenizers take the new word, and its text encoders every prompt that a run will draw."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from components.common.errors import TokenError
from components.common.families import TextEncoder, text_config
from components.common.learned_files import ExistingEmbedding
from components.common.sources.checks import read_json
from components.common.sources.models import ModelSource
from components.common.tokenizer import limit_to_text_encoder
from components.common.vocabulary import (
    add_placeholder,
    check_prompt_length,
    initializer_ids,
    load_tokenizer,
    same_in_all,
)
from components.evaluate.config import EvaluateOptions
from components.init_embedding.config import InitOptions


def check_new_word(
    source: ModelSource,
    text_encoders: Sequence[TextEncoder],
    *,
    word: InitOptions,
    evaluation: EvaluateOptions,
    learnable_property: str,
) -> tuple[int, ...]:
    """The ids that the placeholder's tokens get in every tokenizer of a model, of which only small files are read.

    Args:
        source: a diffusers model.
        text_encoders: its text encoders.
        word: the placeholder and its initializer.
        evaluation: the prompts that samples are drawn from.
        learnable_property: `object` or `style`, which decides about prompts where none are given.

    Raises:
        BaseModelError: when a tokenizer cannot be read, or two number the tokens differently.
        StorageError: when the files cannot be fetched.
        TokenError: naming everything: an initializer of several tokens, a placeholder that a tokenizer knows, prompts
            for which a text encoder has no room.
    """
    tokenizers = _tokenizers(source, text_encoders)
    mistakes = dict.fromkeys(
        mistake
        for tokenizer in tokenizers.values()
        for mistake in _mistakes(tokenizer, word, evaluation, evaluation.prompts_for(learnable_property))
    )
    if mistakes:
        raise TokenError(*mistakes)
    return same_in_all(
        {name: tuple(each.convert_tokens_to_ids(list(word.tokens))) for name, each in tokenizers.items()},
        source.repository,
    )


def check_embedding_fits(
    existing: ExistingEmbedding, source: ModelSource, text_encoders: Sequence[TextEncoder]
) -> None:
    """Returns when an existing embedding has rows for every text encoder of a model, as wide as each.

    Raises:
        BaseModelError: naming the families and widths of both.
        StorageError: when the model's files cannot be fetched.
    """
    with tempfile.TemporaryDirectory() as scratch:
        names = {each.part: f"{each.part}/config.json" for each in text_encoders}
        configs = {part: read_json(source.fetch(name, Path(scratch)), name) for part, name in names.items()}
    existing.check_widths({part: text_config(config).get("hidden_size", 0) for part, config in configs.items()})


def _tokenizers(source: ModelSource, text_encoders: Sequence[TextEncoder]) -> dict[str, Any]:
    """The tokenizer of each text encoder, by the text encoder."""
    configs = {f"{each.part}/config.json" for each in text_encoders}
    folders = tuple(f"{each.tokenizer}/" for each in text_encoders)
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        for name in source.files:
            if name in configs or (name.startswith(folders) and name.endswith((".json", ".txt"))):
                (model / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source.fetch(name, Path(scratch) / "fetched"), model / name)
        return {
            each.part: limit_to_text_encoder(load_tokenizer(model / each.tokenizer), model / each.part)
            for each in text_encoders
        }


def _mistakes(tokenizer: Any, word: InitOptions, evaluation: EvaluateOptions, prompts: Sequence[str]) -> Sequence[str]:
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
        mistakes += _long_prompts(tokenizer, word, evaluation, prompts)
    return mistakes


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
