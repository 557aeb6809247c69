"""Floating-point tensors of safetensors files as float32, whatever they are stored as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors

from components.common.errors import ArtifactError

STORED_AS = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2"}
"""How numpy reads each floating-point type of safetensors; `as_float32` makes numbers of it."""


def as_float32(values: np.ndarray, stored_as: str) -> np.ndarray:
    """The values of a tensor of the safetensors type `stored_as`, read as `STORED_AS` says, float32."""
    if stored_as == "BF16":  # the upper half of a float32, which numpy has no type for
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def read_float32(file: Path) -> dict[str, np.ndarray]:
    """Every tensor of a safetensors file, float32, by key in order.

    Raises:
        ArtifactError: when it is no safetensors file, or holds something else than floating-point numbers.
    """
    try:
        found = safetensors.deserialize(file.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise ArtifactError(f"{file} is no safetensors file ({error}): make or fetch it again") from error
    tensors = {}
    for key, tensor in sorted(found):
        if tensor["dtype"] not in STORED_AS:
            raise ArtifactError(f"{file}: {key} has dtype {tensor['dtype']}, expected one of {', '.join(STORED_AS)}")
        values = np.frombuffer(bytes(tensor["data"]), STORED_AS[tensor["dtype"]])
        tensors[key] = as_float32(values, tensor["dtype"]).reshape(tensor["shape"])
    return tensors
