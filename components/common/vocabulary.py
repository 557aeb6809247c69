"""The placeholder as new tokens of a tokenizer, and everything that can be wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.common.errors import BaseModelError, TokenError
from components.common.prompts import TEMPLATES
from components.common.sources.checks import read_object
from components.common.storage.retries import one_line

Tokenizer = Any
"""`transformers.CLIPTokenizer`, which is imported only where it is used."""

_END_OF_WORD = "</w>"  # how CLIP marks the piece that ends a word
_SOON = 8  # times the rank of its own merge


def load_tokenizer(folder: Path) -> Tokenizer:
    """The CLIP tokenizer in a folder; needs no torch, and runs no code that the folder brings.

    Raises:
        BaseModelError: when there is none, a document of it is no JSON, or its tokens are not numbered from 0 on.
    """
    from transformers import CLIPTokenizer

    try:
        for document in folder.glob("*.json"):
            read_object(document)
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        ids = sorted(tokenizer.get_vocab().values())
    except Exception as error:  # the parsers of vocabularies raise whatever they run into
        told = error if isinstance(error, BaseModelError) else one_line(error)
        raise BaseModelError(f"{folder} holds no CLIP tokenizer that can be read: {told}") from error
    # The placeholder's ids follow these, and each of these is a row of the text encoder's table.
    odd = next((number for number, found in enumerate(ids) if found != number), None)
    if odd is not None:
        raise BaseModelError(
            f"the tokenizer in {folder} numbers {len(ids)} tokens from {ids[0]} to {ids[-1]}, of which none or several "
            f"have the id {odd}, expected 0 to {len(ids) - 1}: choose another base model"
        )
    return tokenizer


def one_token_words(tokenizer: Tokenizer) -> list[str]:
    """The words that are one token each, in the vocabulary's order, without what is rather the end of a longer word.

    A vocabulary learned by byte-pair encoding holds `hoto` on the way to `photo`: an end of words that is joined to a
    longer one soon after it came up. It is dropped with a few real words (`ball` for `football`), for which there are
    others; as a start or in a prompt it would stand for nothing.
    """
    merges = [tuple(pair) for pair in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]]
    ranks = {"".join(pair): rank for rank, pair in enumerate(merges, start=1)}
    ends = {end for rank, (_, end) in enumerate(merges, start=1) if end in ranks and rank < _SOON * ranks[end]}
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    words = [token for token, _ in vocabulary if token.endswith(_END_OF_WORD) and token not in ends]
    return [token.removesuffix(_END_OF_WORD) for token in words]


def initializer_ids(tokenizer: Tokenizer, initializer_token: str) -> tuple[int, ...]:
    """The ids of the initializer's words, which are one token each.

    Raises:
        TokenError: when there is no word, or one is several tokens or one that the tokenizer does not know.
    """
    return tuple(_word_id(tokenizer, word) for word in initializer_token.split() or [""])


def _word_id(tokenizer: Tokenizer, word: str) -> int:
    pieces = tokenizer.tokenize(word)
    ids = tokenizer.convert_tokens_to_ids(pieces)
    known_words = "choose common words"
    if len(ids) == 1 and ids[0] not in tokenizer.all_special_ids:
        return int(ids[0])
    if not ids or set(ids) & set(tokenizer.all_special_ids):
        raise TokenError(f"initializer_token: the tokenizer does not know {word!r}: {known_words}")
    shown = ", ".join(repr(piece.removesuffix(_END_OF_WORD)) for piece in pieces)
    raise TokenError(f"initializer_token: {word!r} is {len(ids)} tokens ({shown}), expected one: {known_words}")


def add_placeholder(tokenizer: Tokenizer, tokens: Sequence[str], known_word: str) -> tuple[int, ...]:
    """The ids of `tokens` after adding them to the tokenizer, in which prompts with `known_word` are read as before.

    Raises:
        TokenError: when several have capital letters, the tokenizer has one of them already, or with them reads
            prompts in another way.
    """
    if len(tokens) > 1 and tokens[0] != tokens[0].lower():
        raise TokenError(
            f"placeholder_token: found {tokens[0]!r} for {len(tokens)} vectors, of which diffusers would find the "
            f"first alone, since CLIP reads prompts in lower case: choose {tokens[0].lower()!r}"
        )
    vocabulary = tokenizer.get_vocab()
    taken = [
        token
        for token in tokens
        if any(spelling in vocabulary for spelling in (token, token.lower(), token.lower() + _END_OF_WORD))
    ]
    if taken:
        raise TokenError(
            f"placeholder_token: the tokenizer has {', '.join(map(repr, taken))} already: "
            f"choose a word that the model does not know, such as <my-{known_word}>"
        )
    plain_prompts = [template.format(known_word) for template in _templates()]
    before = [tokenizer.encode(prompt) for prompt in plain_prompts]
    tokenizer.add_tokens(list(tokens))
    ids = tuple(int(token_id) for token_id in tokenizer.convert_tokens_to_ids(list(tokens)))
    for prompt, expected in zip(plain_prompts, before, strict=True):
        if tokenizer.encode(prompt) != expected:
            raise TokenError(
                f"placeholder_token: {tokens[0]!r} is part of other words and changes how {prompt!r} is read: "
                f"choose one in angle brackets, such as <my-{known_word}>"
            )
    if tuple(tokenizer.encode(" ".join(tokens), add_special_tokens=False)) != ids:
        raise TokenError(
            f"placeholder_token: {' '.join(tokens)!r} is not read as tokens of their own: "
            f"choose letters, digits and '-' in angle brackets, such as <my-{known_word}>"
        )
    return ids


def same_in_all(ids: Mapping[str, tuple[int, ...]], source: str) -> tuple[int, ...]:
    """The ids that tokens have in every tokenizer of a model, of the one as of the other.

    Args:
        ids: by text encoder.
        source: where the model is from, for messages.

    Raises:
        BaseModelError: when two tokenizers number them differently.
    """
    first, *others = ids.values()
    if any(other != first for other in others):
        raise BaseModelError(f"the tokenizers of {source} number the tokens differently: {dict(ids)}")
    return first


def check_prompt_length(tokenizer: Tokenizer, num_vectors: int, longest_prompt: int) -> None:
    """Checks that the paper's longest prompt has room for all vectors of the placeholder.

    Raises:
        TokenError: when it is longer than `longest_prompt` tokens, start and end included.
    """
    lengths = {template: len(tokenizer.encode(template.format(""))) for template in _templates()}
    template = max(lengths, key=lambda template: lengths[template])
    most = longest_prompt - lengths[template]
    if num_vectors > most:
        raise TokenError(
            f"num_vectors: found {num_vectors}, expected at most {most}: the text encoder takes prompts of "
            f"{longest_prompt} tokens, and {template!r} has {lengths[template]} beside the placeholder"
        )


def _templates() -> list[str]:
    return [template for templates in TEMPLATES.values() for template in templates]
