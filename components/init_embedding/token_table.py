"""One row of a text encoder's token table, read without loading the table and without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from components.common.errors import BaseModelError
from components.common.tensors import as_float32
from components.common.weights import token_table


def read_token_row(text_encoder: Path, token_id: int) -> np.ndarray:
    """The row of `token_id`, float32 [d], from the safetensors weights in the folder `text_encoder`.

    Raises:
        BaseModelError: when the folder has no such weights or the table no such row.
    """
    key, table = token_table(text_encoder)
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
