"""One row of a text encoder's token table, read without loading the table and without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from components.common.errors import BaseModelError
from components.common.tensors import STORED_AS, as_float32

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
KEYS = ("text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight")
"""Where CLIP text encoders keep the table: transformers before 5.6, and from there on."""


def read_token_row(text_encoder: Path, token_id: int) -> np.ndarray:
    """The row of `token_id`, float32 [d], from the safetensors weights in the folder `text_encoder`.

    Raises:
        BaseModelError: when the folder has no such weights or the table no such row.
    """
    file, key = _find_table(text_encoder)
    entry, data_start = _header_entry(file, key)
    shape, stored_as = entry["shape"], STORED_AS.get(entry["dtype"])
    if stored_as is None or len(shape) != 2:
        raise BaseModelError(
            f"{file}: {key} has dtype {entry['dtype']} and shape {shape}, expected a table of {', '.join(STORED_AS)}"
        )
    if not 0 <= token_id < shape[0]:
        raise BaseModelError(
            f"{file}: the token table has {shape[0]} rows, expected one for token {token_id}: "
            "tokenizer and text encoder are not of the same model"
        )
    dtype = np.dtype(stored_as)
    start = data_start + entry["data_offsets"][0] + token_id * shape[1] * dtype.itemsize
    row = np.fromfile(file, dtype=dtype, count=shape[1], offset=start)
    row = as_float32(row, entry["dtype"])
    if not np.isfinite(row).all():
        raise BaseModelError(f"{file}: row {token_id} of {key} is not finite: choose another base model")
    return row


def _find_table(text_encoder: Path) -> tuple[Path, str]:
    index = text_encoder / INDEX
    file_of = _weight_map(index) if index.is_file() else dict.fromkeys(_keys(text_encoder / WEIGHTS), WEIGHTS)
    for key in KEYS:
        if key in file_of and key in _keys(text_encoder / file_of[key]):
            return text_encoder / file_of[key], key
    raise BaseModelError(
        f"found no token table in {text_encoder}, expected {' or '.join(KEYS)}: is it a CLIP text encoder?"
    )


def _weight_map(index: Path) -> dict[str, str]:
    """The file of each tensor of sharded weights."""
    try:
        return {str(key): str(name) for key, name in json.loads(index.read_bytes())["weight_map"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BaseModelError(f"{index} is no index of weights ({error!r}): import the base model again") from error


def _keys(file: Path) -> list[str]:
    """The names of a safetensors file's tensors; opening it checks that the header fits the file."""
    if not file.is_file():
        there = sorted(path.name for path in file.parent.glob("*")) if file.parent.is_dir() else []
        raise BaseModelError(
            f"found no {file.name} in {file.parent}, only {', '.join(there) or 'nothing'}: "
            "a base model needs safetensors weights"
        )
    try:
        with safetensors.safe_open(file, framework="numpy") as opened:
            return list(opened.keys())
    except (OSError, safetensors.SafetensorError) as error:
        raise BaseModelError(f"{file} is no safetensors file ({error}): import the base model again") from error


def _header_entry(file: Path, key: str) -> tuple[dict[str, Any], int]:
    """What the header says of one tensor, and where in the file the tensors begin."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return json.loads(stream.read(length))[key], 8 + length
