"""A text encoder's weights with more rows in the token table, written as a stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from components.common.errors import BaseModelError
from components.common.tensors import StoredTensor, as_float32, from_float32, read_header

_ALIGNMENT = 8  # bytes that headers are padded to, as the safetensors library does
_PIECE = 16 * 2**20  # bytes that are held at once


def write_enlarged(key: str, table: StoredTensor, rows: Mapping[int, np.ndarray], path: Path) -> int:
    """How many rows the token table has in the file `path`, which is made from the one that `table` lies in.

    All other tensors are copied as they are; no more than 16 MiB are held in memory.

    Args:
        key: the table's name in the file.
        table: the table.
        rows: float32 [width], by the row that each becomes; those past the table's end follow it without a gap.
        path: the file to write.

    Raises:
        BaseModelError: when a row is of another width, lies behind a gap, or is not finite in the table's dtype.
    """
    count, width = table.shape
    size = max(count, *(number + 1 for number in rows))
    encoded = {number: _encoded(row, table, width) for number, row in rows.items()}
    if missing := set(range(count, size)) - set(rows):
        raise BaseModelError(f"{table.file}: {key} has {count} rows, expected more than {min(missing)}")
    tensors, facts = read_header(table.file)
    in_order = sorted(tensors.items(), key=lambda item: item[1].start)
    row_bytes = (table.end - table.start) // count
    with table.file.open("rb") as source, path.open("wb") as target:
        target.write(_header(in_order, facts, key, (size, width), (size - count) * row_bytes))
        for name, tensor in in_order:
            start = target.tell()
            _copy(source, target, tensor)
            if name == key:
                for number, data in sorted(encoded.items()):
                    target.seek(start + number * row_bytes)
                    target.write(data)
                target.seek(start + size * row_bytes)
    return size


def _encoded(row: np.ndarray, table: StoredTensor, width: int) -> bytes:
    values = from_float32(row, table.dtype)
    if values.shape != (width,):
        raise BaseModelError(f"{table.file} has a token table of width {width}, found a row of {list(values.shape)}")
    if not np.isfinite(as_float32(values, table.dtype)).all():
        raise BaseModelError(
            f"{table.file} holds its token table as {table.dtype}, in which a learned row is not finite: choose a base "
            "model in a wider one"
        )
    return values.tobytes()


def _header(
    tensors: list[tuple[str, StoredTensor]], facts: Mapping[str, str], key: str, shape: tuple[int, int], more: int
) -> bytes:
    content: dict[str, object] = {"__metadata__": dict(facts)} if facts else {}
    start = 0
    for name, tensor in tensors:
        end = start + tensor.end - tensor.start + (more if name == key else 0)
        of_table = {"dtype": tensor.dtype, "shape": list(shape if name == key else tensor.shape)}
        content[name] = {**of_table, "data_offsets": [start, end]}
        start = end
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _copy(source: BinaryIO, target: BinaryIO, tensor: StoredTensor) -> None:
    source.seek(tensor.start)
    left = tensor.end - tensor.start
    while left:
        left -= target.write(source.read(min(left, _PIECE)))
