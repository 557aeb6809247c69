"""Tensors of safetensors files: what a file's header says of them, and floating-point ones as float32."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.common.errors import ArtifactError
from components.common.foreign_json import parse_json

STORED_AS = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2"}
"""How numpy reads each floating-point type of safetensors that weights are in; `as_float32` makes numbers of it."""

_BITS = {
    **{"F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16},
    **{"U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8},
    **{"F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}
"""The types of safetensors (`Dtype` of the library), in bits a number."""
_LONGEST_HEADER = 100 * 2**20  # the limit of the safetensors library


class StoredTensor(NamedTuple):
    """Where a tensor lies: its type in safetensors, its shape, and the bytes `start` to `end` of the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    def read(self, first: int = 0, count: int | None = None) -> np.ndarray:
        """Numbers of a tensor of floating-point type, flat as `STORED_AS` reads them: `count` from `first` on, or all.

        Other tensors of the file are not read.
        """
        dtype = np.dtype(STORED_AS[self.dtype])
        count = self.size if count is None else count
        return np.fromfile(self.file, dtype, count=count, offset=self.start + first * dtype.itemsize)


def read_header(file: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors of a safetensors file by key, as they lie, and the facts of its header; no tensor is read.

    Layout: 8 bytes with the header's length (little endian), the header (JSON), the tensors one after another.

    Raises:
        ValueError: when it is no safetensors file, is cut off, or its tensors do not fill it one after another; the
            message is to stand after the file's name.
    """
    try:
        with file.open("rb") as stream:
            size, length = os.fstat(stream.fileno()).st_size, int.from_bytes(stream.read(8), "little")
            if size < 8 or not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                raise ValueError(
                    f"is no safetensors file: {size} bytes, of which the header should be {length}: it is cut off or "
                    "of another format"
                )
            text = stream.read(length)
    except OSError as error:
        raise ValueError(f"is no safetensors file ({error.strerror})") from error
    try:
        header = parse_json(text)
        if not isinstance(header, dict):
            raise ValueError(f"it is a {type(header).__name__}, expected an object")
        facts = header.pop("__metadata__", None) or {}
        if not (isinstance(facts, dict) and all(isinstance(value, str) for value in facts.values())):
            raise ValueError("its __metadata__ is no table of texts")
        tensors = {key: _stored(file, key, entry, 8 + length) for key, entry in header.items()}
    except ValueError as error:
        raise ValueError(f"has a damaged safetensors header ({error})") from error
    end = 8 + length
    for key, tensor in sorted(tensors.items(), key=lambda item: item[1][3:]):
        if tensor.start != end:
            raise ValueError(
                f"has a damaged safetensors header ({key[:80]!r} begins at byte {tensor.start}, expected {end}, "
                "where the tensor before it ends)"
            )
        end = tensor.end
    if size != end:
        raise ValueError(
            f"has {size} bytes, expected {end} by its safetensors header: it is "
            f"{'cut off' if size < end else 'followed by something else'}"
        )
    return tensors, facts


def _stored(file: Path, key: str, entry: object, data_start: int) -> StoredTensor:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [start, end]}:
            pass
        case _:
            raise ValueError(f"{key[:80]!r} has not dtype, shape and two data_offsets")
    if dtype not in _BITS:
        raise ValueError(f"{key[:80]!r} has the dtype {dtype[:80]!r}, which is none of safetensors")
    if not all(type(number) is int and 0 <= number < 2**63 for number in (*shape, start, end)):
        raise ValueError(f"{key[:80]!r} has a shape or data_offsets that are no sizes")
    bits = math.prod(shape) * _BITS[dtype]
    if (end - start) * 8 != bits:
        raise ValueError(f"{key[:80]!r} is {dtype} {shape}, which its {end - start} bytes do not hold")
    return StoredTensor(file, dtype, tuple(shape), data_start + start, data_start + end)


def as_float32(values: np.ndarray, stored_as: str) -> np.ndarray:
    """The values of a tensor of the safetensors type `stored_as`, read as `STORED_AS` says, float32."""
    if stored_as == "BF16":  # the upper half of a float32, which numpy has no type for
        return (values.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # what float32 does not hold is infinite, as in every framework
        return values.astype(np.float32)


def from_float32(values: np.ndarray, stored_as: str) -> np.ndarray:
    """The values, float32, rounded to the nearest of the safetensors type `stored_as`, as `STORED_AS` reads them."""
    if stored_as == "BF16":
        bits = np.ascontiguousarray(values, "<f4").view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")  # a tie goes to the even one
    with np.errstate(over="ignore"):
        return values.astype(STORED_AS[stored_as])


def read_float32(file: Path) -> dict[str, np.ndarray]:
    """Every tensor of a safetensors file, float32, by key in order.

    Raises:
        ArtifactError: when it is no safetensors file, or holds something else than finite floating-point numbers.
    """
    return read_float32_and_facts(file)[0]


def read_float32_and_facts(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """`read_float32`, and the facts of the header; errors as there."""
    try:
        stored, facts = read_header(file)
    except ValueError as error:
        raise ArtifactError(f"{file} {error}: make or fetch it again") from error
    tensors = {}
    for key, tensor in sorted(stored.items()):
        if tensor.dtype not in STORED_AS:
            raise ArtifactError(f"{file}: {key[:80]} has dtype {tensor.dtype}, expected one of {', '.join(STORED_AS)}")
        tensors[key] = as_float32(tensor.read(), tensor.dtype).reshape(tensor.shape)
        if not np.isfinite(tensors[key]).all():
            raise ArtifactError(f"{file}: {key[:80]} has values that are not finite: make or fetch it again")
    return tensors, facts
