"""The weights of one part of a base model, read from its safetensors files without copying them first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from components.common.tensors import StoredTensor
from components.common.weights import weights_of

_DTYPES: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}


def read_weights(folder: Path, class_name: str) -> dict[str, np.ndarray]:
    """The arrays by key, mapped from the files; arguments and errors as of `weights_of`."""
    tensors = weights_of(folder, class_name)
    files = {file: np.memmap(file, np.uint8, mode="r") for file in {tensor.file for tensor in tensors.values()}}
    return {key: _array(files, tensor) for key, tensor in tensors.items()}


def _array(files: Mapping[Path, np.ndarray], tensor: StoredTensor) -> np.ndarray:
    return files[tensor.file][tensor.start : tensor.end].view(_DTYPES[tensor.dtype]).reshape(tensor.shape)
