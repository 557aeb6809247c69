"""The weights of one part of a base model, read from its safetensors files without copying them first."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from components.common.errors import BaseModelError
from components.flax_models.model_config import read_json

_DTYPES: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}
_IGNORED_TYPES = ("I64", "I32", "BOOL", "U8")
"""Types of buffers such as CLIP's `position_ids`, which are no weights."""


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """The arrays by key, mapped from the files: in one `*.safetensors`, or in shards with an index.

    Raises:
        BaseModelError: when there are none, when there is more than one candidate, or when a file is damaged.
    """
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if indexes:
        shards = read_json(indexes[0]).get("weight_map", {})
        files = [folder / name for name in sorted(set(shards.values()))]
    else:
        files = sorted(folder.glob("*.safetensors"))
        if len(files) != 1:
            raise BaseModelError(
                f"{folder} has {len(files)} safetensors files ({', '.join(file.name for file in files)}), expected "
                "one: import the base model again, safetensors only"
            )
    weights: dict[str, np.ndarray] = {}
    for file in files:
        weights |= _mapped(file)
    return weights


def _mapped(file: Path) -> dict[str, np.ndarray]:
    try:
        data = np.memmap(file, np.uint8, mode="r")
        length = int.from_bytes(data[:8].tobytes(), "little")
        header: Mapping[str, Any] = json.loads(data[8 : 8 + length].tobytes())
        return {
            key: _array(data[8 + length :], entry)
            for key, entry in header.items()
            if key != "__metadata__" and entry["dtype"] not in _IGNORED_TYPES
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BaseModelError(f"{file} cannot be read as safetensors ({error}): import the base model again") from error


def _array(data: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
    start, end = entry["data_offsets"]
    if end - start != dtype.itemsize * math.prod(shape) or end > len(data):
        raise ValueError(f"offsets {start} to {end} do not hold {entry['dtype']} {list(shape)}")
    return data[start:end].view(dtype).reshape(shape)
