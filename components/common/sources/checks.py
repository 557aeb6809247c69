"""What is checked in a file before it enters the model store."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components.common.errors import BaseModelError
from components.common.foreign_json import parse_json
from components.common.sources.model_documents import config_of
from components.common.tensors import read_header

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


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model on this machine.

    Raises:
        BaseModelError: if it is missing, no JSON, or something else.
    """
    try:
        return dict(config_of(read_json(path, str(path)), str(path)))
    except OSError as error:
        raise BaseModelError(f"{path} cannot be read ({error.strerror}): import the model again") from error


def read_configs(model: Path, parts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The config.json of each of the parts of a model on this machine, by part; errors as of `read_object`."""
    return {part: read_object(model / part / "config.json") for part in parts}


def check_safetensors(path: Path, name: str) -> None:
    """Refuses a safetensors file whose header is damaged or whose size is not what the header tells.

    Raises:
        BaseModelError: if the file is damaged.
    """
    try:
        read_header(path)
    except ValueError as error:
        raise BaseModelError(f"{name} {error}: fetch it again") from error
