"""The weights in a folder of a model: in one safetensors file, or in shards with an index, by their headers alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from components.common.errors import BaseModelError
from components.common.sources.checks import read_object
from components.common.sources.model_documents import config_problems, numbers_in
from components.common.tensors import STORED_AS, StoredTensor, read_header

_STEMS = ("model", "diffusion_pytorch_model")
"""What the files are called: of transformers, and of diffusers."""
_SHARD = re.compile(r"[^/\\]+\.safetensors")
_BUFFER = re.compile(r"((text|vision)_model\.){0,2}embeddings\.position_ids")
_BESIDE_TEXT = re.compile(r"vision_model\..*|visual_projection\..*|logit_scale")
"""What a whole CLIP model has beside its text encoder."""
TOKEN_TABLES = ("text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight")
"""Where CLIP text encoders keep the token table: transformers before 5.6, and from there on."""

_SHOWN = 5
_LONGEST_KEY = 256


def weights_of(folder: Path, class_name: str) -> dict[str, StoredTensor]:
    """The tensors that make up a model, by key, as they lie in its folder; none of them is read.

    Args:
        folder: with config.json and the weights.
        class_name: the class of diffusers or transformers that they are to be loaded as.

    Raises:
        BaseModelError: when config.json is no such model's, a file is missing or damaged, a tensor is not of floating
            point, or there are fewer numbers than config.json speaks of.
    """
    config = read_object(folder / "config.json")
    if problems := config_problems(config, str(folder / "config.json"), class_name):
        raise BaseModelError(*problems)
    tensors = {key: tensor for key, tensor in stored_tensors(folder).items() if not is_beside(key, class_name)}
    for key, tensor in tensors.items():
        if tensor.dtype not in STORED_AS:
            raise BaseModelError(
                f"{tensor.file}: {key} is stored as {tensor.dtype}, expected one of {', '.join(STORED_AS)}: quantised "
                "weights can be neither trained on nor compared with; choose others"
            )
    _check_sizes(config, tensors, folder)
    return tensors


def is_beside(key: str, class_name: str) -> bool:
    """Whether a tensor may lie among the weights of a `class_name` without being one of them."""
    if _BUFFER.fullmatch(key):
        return True
    if class_name == "ViTModel":
        return key.startswith("pooler.")
    is_text_encoder = class_name.startswith("CLIPTextModel")
    projects = class_name == "CLIPTextModelWithProjection"
    is_projection = key == "text_projection.weight" and not projects
    return is_text_encoder and (is_projection or _BESIDE_TEXT.fullmatch(key) is not None)


def check_keys(missing: Collection[str], unexpected: Collection[str], folder: Path) -> None:
    """Raises `BaseModelError`, which names tensors, unless nothing is missing or unexpected in a folder's weights."""
    wrong = [
        f"{len(keys)} {what}: {', '.join(sorted(keys)[:_SHOWN])}{' ...' if len(keys) > _SHOWN else ''}"
        for what, keys in (("missing", missing), ("unexpected", unexpected))
        if keys
    ]
    if wrong:
        raise BaseModelError(
            f"the weights in {folder} do not fit its config.json, {'; '.join(wrong)}: import the model again"
        )


def wrong_shape(key: str, found: Iterable[int], expected: Iterable[int], folder: Path) -> BaseModelError:
    """What to raise for a tensor of another shape than the configuration tells."""
    return BaseModelError(
        f"{folder}: {key} has the shape {list(found)}, expected {list(expected)} as config.json has it: import the "
        "model again"
    )


def not_finite(key: str, dtype: str, folder: Path) -> BaseModelError:
    """What to raise for a tensor that has NaN or infinity when it is held in a dtype."""
    narrower = "" if dtype == "float32" else ", or a wider precision (mixed_precision no or bf16)"
    return BaseModelError(
        f"{folder}: {key} has values that are not finite in {dtype}, expected finite weights: choose another base model"
        f"{narrower}"
    )


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor in the weights of a folder, by key; errors as of `weights_of`."""
    whole = [file for stem in _STEMS if (file := folder / f"{stem}.safetensors").is_file()]
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if not whole and not indexes:
        there = sorted(path.name for path in folder.glob("*"))
        raise BaseModelError(
            f"found no {' or '.join(f'{stem}.safetensors' for stem in _STEMS)} in {folder}, only "
            f"{', '.join(there[:20]) or 'nothing'}: a base model needs safetensors weights"
        )
    if len(whole) + len(indexes) > 1:
        several = ", ".join(file.name for file in (*whole, *indexes))
        raise BaseModelError(f"found {several} in {folder}, expected one of them: import the model again")
    if whole:
        return _header(whole[0])
    named = _named_by(indexes[0])
    tensors: dict[str, StoredTensor] = {}
    for name in sorted(set(named.values())):
        header = _header(folder / name)
        if twice := sorted(tensors.keys() & header.keys()):
            raise BaseModelError(
                f"{folder / name}: {twice[0]} is in {tensors[twice[0]].file.name} too: import it again"
            )
        tensors |= header
    elsewhere = sorted(key for key in named.keys() | tensors.keys() if not _lies_in(key, named, tensors))
    if elsewhere:
        raise BaseModelError(
            f"{indexes[0]} and the files that it names do not agree on {', '.join(elsewhere[:_SHOWN])}: import the "
            "model again"
        )
    stem = indexes[0].name.partition(".")[0]
    left = {file.name for file in folder.glob(f"{stem}-*-of-*.safetensors")} - set(named.values())
    if left:
        raise BaseModelError(f"{indexes[0]} does not name {', '.join(sorted(left)[:_SHOWN])}: import the model again")
    return tensors


def token_table(text_encoder: Path) -> tuple[str, StoredTensor]:
    """The token table in the weights of the folder `text_encoder`, as it lies there, after its key.

    Raises:
        BaseModelError: when there are no such weights, or no table [rows, width] of floating point in them.
    """
    tensors = stored_tensors(text_encoder)
    key = next((key for key in TOKEN_TABLES if key in tensors), None)
    if key is None:
        raise BaseModelError(
            f"found no token table in {text_encoder}, expected {' or '.join(TOKEN_TABLES)}: is it a CLIP text encoder?"
        )
    table = tensors[key]
    if table.dtype not in STORED_AS or len(table.shape) != 2:
        raise BaseModelError(
            f"{table.file}: {key} has dtype {table.dtype} and shape {list(table.shape)}, expected a table of "
            f"{', '.join(STORED_AS)}"
        )
    return key, table


def shards(index: Any) -> dict[str, str]:
    """The file of each tensor, by an index of sharded weights. Raises `ValueError` when it is none."""
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not (isinstance(weight_map, dict) and weight_map):
        raise ValueError("it has no weight_map, which tells the files that hold the weights")
    for name in weight_map.values():
        if not (isinstance(name, str) and _SHARD.fullmatch(name)):
            raise ValueError(f"found {str(name)[:80]!r} in weight_map, expected a safetensors file beside it")
    return weight_map


def _named_by(index: Path) -> dict[str, str]:
    try:
        return shards(read_object(index))
    except ValueError as error:
        raise BaseModelError(f"{index} is no index of weights ({error}): import the model again") from error


def _lies_in(key: str, named: Mapping[str, str], tensors: Mapping[str, StoredTensor]) -> bool:
    return key in named and key in tensors and tensors[key].file.name == named[key]


def _header(file: Path) -> dict[str, StoredTensor]:
    if not file.is_file():
        raise BaseModelError(f"found no {file.name} in {file.parent}, which the index names: import the model again")
    try:
        tensors = read_header(file)[0]
    except ValueError as error:
        raise BaseModelError(f"{file} {error}: import the model again") from error
    for key in tensors:
        if not key.isprintable() or len(key) > _LONGEST_KEY:
            raise BaseModelError(f"{file} has a tensor {key[:80]!r}, which is no name: choose another model")
    return tensors


def _check_sizes(config: Mapping[str, Any], tensors: Mapping[str, StoredTensor], folder: Path) -> None:
    """Refuses what would be built for minutes, or not fit into memory, before its shapes are compared."""
    numbers = sum(tensor.size for tensor in tensors.values())
    for field, value in config.items():
        inner = value.items() if isinstance(value, dict) else [(field, value)]
        for name, each in inner:
            most = len(tensors) if "layers" in name else numbers
            if name in ("sample_size", "image_size") or max(numbers_in(each), default=0) <= most:
                continue
            raise BaseModelError(
                f"{folder / 'config.json'}: found {name} {str(each)[:80]}, while the weights have {numbers} numbers "
                f"in {len(tensors)} tensors: config.json is of another model; import the model again"
            )
