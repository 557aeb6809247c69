"""The tokenizer of the tiny world: CLIP's byte-pair encoding, trained until every word of the language is one token."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

from examples.sprites.captions import every_word

MAX_LENGTH = 24
# Only printable ASCII (CLIP has 256 byte symbols), which keeps the table small; anything else becomes the unknown
# token, which as in CLIP is the end of text.
_ALPHABET = tuple(chr(code) for code in range(33, 127))
_WORD_END = "</w>"
_START, _END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(*, pad_token: str = _END) -> CLIPTokenizer:
    """A CLIPTokenizer with one token for each of `every_word`, the same at every call; pads are ends of text."""
    merges = _learn_merges(every_word())
    tokens = [*_ALPHABET, *(f"{character}{_WORD_END}" for character in _ALPHABET)]
    tokens += [*("".join(pair) for pair in merges), _START, _END]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_LENGTH, pad_token=pad_token)


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Writes the tokenizer as ``tokenizer.json``, and as Stable Diffusion's ``vocab.json`` and ``merges.txt``."""
    # The last call's padding and truncation would be written too.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    merges = [" ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")


def _learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """The merges, most frequent pair first (Sennrich et al. 2016), that make each word one piece; ties by spelling."""
    spelled = [[*word[:-1], word[-1] + _WORD_END] for word in words]
    merges = []
    while counts := Counter(pair for pieces in spelled for pair in pairwise(pieces)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        spelled = [_merge(pieces, best) for pieces in spelled]
    return merges


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
