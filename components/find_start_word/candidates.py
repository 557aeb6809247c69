"""The words of a model's vocabulary that training may start from."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np

from components.common.drawing import progress_line
from components.common.vocabulary import Tokenizer, one_token_words
from components.torch_models.clip_scorer import ClipScorer

logger = logging.getLogger(__name__)

SHORTEST = 3
"""Letters of the shortest word that is looked at: shorter ones are pieces and particles."""

_LOOK_AT_ONCE = 2048


def whole_words(tokenizer: Tokenizer) -> list[str]:
    """The words of a vocabulary in its order: ASCII letters alone, of which the tokenizer makes one token each."""
    words = (word for word in one_token_words(tokenizer) if len(word) >= SHORTEST and word.isascii() and word.isalpha())
    return [word for word in words if len(tokenizer.tokenize(word)) == 1]


def nearest_words(
    words: Sequence[str], pictures: Sequence[np.ndarray], clip: ClipScorer, *, template: str, count: int
) -> list[str]:
    """The `count` words whose prompts are nearest to the pictures in CLIP's space, the nearest first.

    Args:
        words: the words.
        pictures: uint8 [H, W, 3] each.
        clip: the CLIP model.
        template: the prompt, with `{}` in a word's place.
        count: how many are kept.
    """
    middle = clip.embed_pictures(pictures).mean(axis=0)
    similarities, started = [], time.monotonic()
    for start in range(0, len(words), _LOOK_AT_ONCE):
        looked_at = words[start : start + _LOOK_AT_ONCE]
        similarities.append(clip.embed_texts([template.format(word) for word in looked_at]) @ middle)
        done = start + len(looked_at)
        logger.info("%s", progress_line("CLIP reads words", done, len(words), time.monotonic() - started, "words/s"))
    order = np.argsort(-np.concatenate(similarities), kind="stable")
    return [words[index] for index in order[:count]]
