"""One row of a text encoder's token table, read without loading the table and without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from components.common.errors import BaseModelError
from components.common.tensors import STORED_AS, as_float32
from components.common.weights import stored_tensors

KEYS = ("text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight")
"""Where CLIP text encoders keep the table: transformers before 5.6, and from there on."""


def read_token_row(text_encoder: Path, token_id: int) -> np.ndarray:
    """The row of `token_id`, float32 [d], from the safetensors weights in the folder `text_encoder`.

    Raises:
        BaseModelError: when the folder has no such weights or the table no such row.
    """
    tensors = stored_tensors(text_encoder)
    key = next((key for key in KEYS if key in tensors), None)
    if key is None:
        raise BaseModelError(
            f"found no token table in {text_encoder}, expected {' or '.join(KEYS)}: is it a CLIP text encoder?"
        )
    table = tensors[key]
    if table.dtype not in STORED_AS or len(table.shape) != 2:
        raise BaseModelError(
            f"{table.file}: {key} has dtype {table.dtype} and shape {list(table.shape)}, expected a table of "
            f"{', '.join(STORED_AS)}"
        )
    rows, width = table.shape
    if not 0 <= token_id < rows:
        raise BaseModelError(
            f"{table.file}: the token table has {rows} rows, expected one for token {token_id}: "
            "tokenizer and text encoder are not of the same model"
        )
    row = as_float32(table.read(token_id * width, width), table.dtype)
    if not np.isfinite(row).all():
        raise BaseModelError(f"{table.file}: row {token_id} of {key} is not finite: choose another base model")
    return row
