"""What is checked in a file before it enters the model store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.common.errors import BaseModelError
from components.common.foreign_json import parse_json

_LONGEST_HEADER = 100 * 2**20  # the limit of the safetensors library
_LFS_POINTER = b"version https://git-lfs"


def check_file(path: Path, name: str) -> None:
    """Refuses weights that are cut off and documents that are no JSON; `name` is what messages call the file.

    Raises:
        BaseModelError: if the file is damaged.
    """
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise BaseModelError(f"{name} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder")
    if name.endswith(".safetensors"):
        check_safetensors(path, name)
    elif name.endswith(".json"):
        read_json(path, name)


def read_json(path: Path, name: str) -> Any:
    """The content of a JSON file.

    Raises:
        BaseModelError: if it is none.
    """
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise BaseModelError(f"{name} is no JSON document ({error}): the source is damaged") from error


def check_safetensors(path: Path, name: str) -> None:
    """Refuses a safetensors file whose header is damaged or whose size is not what the header tells.

    Layout: 8 bytes with the header's length (little endian), the header (JSON), the tensors one after
        another.

    Raises:
        BaseModelError: if the file is damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(_LONGEST_HEADER, size - 8):
            raise BaseModelError(
                f"{name} is no safetensors file: {size} bytes, of which the header should be {length}: it is"
                " cut off or of another format; fetch it again"
            )
        header = file.read(length)
    try:
        tensors = {key: value for key, value in parse_json(header).items() if key != "__metadata__"}
        end = max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
    except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise BaseModelError(f"{name} has a damaged safetensors header ({error}): fetch it again") from error
    expected = 8 + length + end
    if size != expected:
        raise BaseModelError(
            f"{name} has {size} bytes, expected {expected} by its safetensors header: it is cut off; fetch it again"
        )
