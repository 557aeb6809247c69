"""Which files of a source make up a base model, and what is said when some are missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from components.common.base_model import MODEL_KINDS
from components.common.errors import BaseModelError, ConfigError

_DIFFUSERS_WEIGHTS = "diffusion_pytorch_model"
_TRANSFORMERS_WEIGHTS = "model"
_PICKLED = (".bin", ".ckpt", ".pt", ".pth")
_TOKENIZER_WORDS = ({"tokenizer.json"}, {"vocab.json", "merges.txt"})
"""A tokenizer has one of these sets of files."""

_CONVERT = (
    "convert it once, on a machine where that does no harm, with"
    " DiffusionPipeline.from_pretrained(MODEL, use_safetensors=False).save_pretrained(FOLDER)"
    " (CLIPModel for a clip model), and import FOLDER"
)

ReadJson = Callable[[str], Any]


def select_files(
    source: str, names: Collection[str], *, kind: str, variant: str, read_json: ReadJson
) -> dict[str, str]:
    """The files to import: path in the model's folder to path in the source, which has the variant in it.

    Args:
        source: the address, for messages.
        names: every path in the source.
        kind: `diffusion` or `clip`.
        variant: such as `fp16`; empty for the plain weights.
        read_json: the content of a JSON file of the source.

    Raises:
        ConfigError: if there is no such kind, or the variant cannot be one.
        BaseModelError: if parts are missing; the message names all of them.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]*", variant):
        raise ConfigError(f"found variant {variant!r}, expected a word such as fp16, or nothing for plain weights")
    selection = _Selection(source, set(names), variant, read_json)
    match kind:
        case "diffusion":
            selection.take_diffusion()
        case "clip":
            selection.take_clip()
        case _:
            raise ConfigError(f"found kind {kind!r}, expected one of {', '.join(MODEL_KINDS)}")
    if selection.problems:
        raise BaseModelError(f"{source} cannot be imported: {'; '.join(selection.problems)}")
    return selection.files


class _Selection:
    def __init__(self, source: str, names: set[str], variant: str, read_json: ReadJson) -> None:
        self.files: dict[str, str] = {}
        self.problems: list[str] = []
        self._source = source
        self._names = names
        self._variant = variant
        self._read_json = read_json

    def take_diffusion(self) -> None:
        if "model_index.json" not in self._names:
            self.problems.append(self._no_model_index())
            return
        self._take("model_index.json")
        parts = _parts_of(self._read_json("model_index.json"))
        second = ["tokenizer_2", "text_encoder_2"] if {"tokenizer_2", "text_encoder_2"} & parts.keys() else []
        for part in ["tokenizer", "text_encoder", "unet", "vae", "scheduler", *second]:
            if part not in parts:
                self.problems.append(f"model_index.json names no {part}; a Stable Diffusion model has one")
            elif part.startswith("tokenizer"):
                self._take_tokenizer(f"{part}/")
            elif part == "scheduler":
                self._take("scheduler/scheduler_config.json")
            else:
                self._take(f"{part}/config.json")
                stem = _TRANSFORMERS_WEIGHTS if part.startswith("text_encoder") else _DIFFUSERS_WEIGHTS
                self._take_weights(f"{part}/", stem)

    def take_clip(self) -> None:
        self._take("config.json")
        self._take("preprocessor_config.json")
        self._take_tokenizer("")
        self._take_weights("", _TRANSFORMERS_WEIGHTS)

    def _take(self, name: str) -> None:
        if name in self._names:
            self.files[name] = name
        else:
            self.problems.append(f"{name} is missing")

    def _take_tokenizer(self, folder: str) -> None:
        self._take(f"{folder}tokenizer_config.json")
        here = {name[len(folder) :] for name in self._names if name.startswith(folder)}
        if not any(words <= here for words in _TOKENIZER_WORDS):
            self.problems.append(f"{folder}tokenizer.json, or vocab.json and merges.txt beside it, is missing")
        documents = {name for name in here if re.fullmatch(r"[^/]+\.(json|txt)", name)}
        known = {"tokenizer.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"}
        for name in sorted(documents if folder else documents & known):
            self.files[folder + name] = folder + name

    def _take_weights(self, folder: str, stem: str) -> None:
        dot = f".{self._variant}" if self._variant else ""
        whole = f"{folder}{stem}{dot}.safetensors"
        # transformers and diffusers write the first form, earlier releases of diffusers wrote the second.
        indices = [
            f"{folder}{stem}.safetensors.index{dot}.json",
            f"{folder}{stem}.safetensors{dot}.index.json",
        ]
        index = next((name for name in indices if name in self._names), None)
        if whole in self._names:
            self.files[f"{folder}{stem}.safetensors"] = whole
        elif index is not None:
            self.files[f"{folder}{stem}.safetensors.index.json"] = index
            for shard in sorted(set(_shards(self._read_json(index), index))):
                self._take(folder + shard)
        else:
            self.problems.append(self._no_weights(folder, stem, whole))

    def _no_weights(self, folder: str, stem: str, wanted: str) -> str:
        pattern = re.compile(rf"{re.escape(folder + stem)}(\.(?P<variant>[A-Za-z0-9_-]+?))?(-\d+-of-\d+)?\.safetensors")
        found = {match["variant"] or "plain" for name in self._names if (match := pattern.fullmatch(name))}
        if found:
            return f"{wanted} is missing, while {folder or 'the folder'} has weights: {', '.join(sorted(found))}"
        pickled = sorted(
            name
            for name in self._names
            if name.startswith(folder) and "/" not in name[len(folder) :] and name.endswith(_PICKLED)
        )
        if pickled:
            return f"{wanted} is missing and {pickled[0]} is pickled, which can run code: {_CONVERT}"
        return f"{wanted} is missing"

    def _no_model_index(self) -> str:
        if "config.json" in self._names:
            return "model_index.json is missing: a CLIP model is imported with kind clip"
        single = sorted(n for n in self._names if "/" not in n and n.endswith((".safetensors", ".ckpt")))
        if single:
            return (
                f"model_index.json is missing, and {single[0]} looks like a single-file checkpoint: convert"
                " it with diffusers' StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)"
                " and import FOLDER"
            )
        return "model_index.json is missing: is it the folder of a diffusers pipeline?"


def _parts_of(index: Any) -> Mapping[str, Any]:
    """The parts that a model_index.json names; `[null, null]` stands for an absent one."""
    if not isinstance(index, dict):
        raise BaseModelError(f"model_index.json holds a {type(index).__name__}, expected an object")
    return {name: value for name, value in index.items() if isinstance(value, list) and value and value[0]}


def _shards(index: Any, name: str) -> Collection[str]:
    try:
        return {str(shard) for shard in index["weight_map"].values()}
    except (AttributeError, KeyError, TypeError) as error:
        raise BaseModelError(f"{name} has no weight_map, which tells the files that hold the weights") from error
