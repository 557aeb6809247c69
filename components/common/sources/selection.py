"""Which files of a source make up a base model, and what is said when some are missing."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from components.common.base_model import MODEL_KINDS
from components.common.errors import BaseModelError, ConfigError
from components.common.families import TOKENIZERS, text_encoders_saved_as
from components.common.sources.model_documents import (
    PARTS,
    channel_problems,
    conditioning_problems,
    config_of,
    config_problems,
    described,
    dino_problems,
    pipeline_problems,
    scheduler_problems,
)
from components.common.sources.models import single_file_advice
from components.common.weights import shards

logger = logging.getLogger(__name__)

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

VARIANT = re.compile(r"[A-Za-z0-9_-]*")
"""What the variant of a model's weight files may be called; empty for the plain ones."""

ReadJson = Callable[[str], Any]


def select_files(
    source: str, names: Collection[str], *, kind: str, variant: str, read_json: ReadJson
) -> dict[str, str]:
    """The files to import: path in the model's folder to path in the source, which has the variant in it.

    Args:
        source: the address, for messages.
        names: every path in the source.
        kind: one of `MODEL_KINDS`.
        variant: such as `fp16`; empty for the plain weights.
        read_json: the content of a JSON file of the source.

    Raises:
        ConfigError: if there is no such kind, or the variant cannot be one.
        BaseModelError: if parts are missing; the message names all of them.
    """
    if not VARIANT.fullmatch(variant):
        raise ConfigError(f"found variant {variant!r}, expected a word such as fp16, or nothing for plain weights")
    selection = _Selection(source, set(names), variant, read_json)
    match kind:
        case "diffusion":
            selection.take_diffusion()
        case "clip":
            selection.take_clip()
        case "dino":
            selection.take_dino()
        case "safety_checker":
            selection.take_safety_checker()
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
        self._weights: dict[str, str] = {}  # by folder of a part, what its weight files' names begin with

    def take_diffusion(self) -> None:
        if "model_index.json" not in self._names:
            self.problems.append(self._no_model_index())
            return
        self._take("model_index.json")
        index = config_of(self._read_json("model_index.json"), "model_index.json")
        if problems := pipeline_problems(index):
            self.problems += problems
            return
        parts = {name for name, value in index.items() if isinstance(value, list) and value and value[0]}
        encoders = text_encoders_saved_as(index["_class_name"])
        for part in [*(name for each in encoders for name in (each.tokenizer, each.part)), "unet", "vae", "scheduler"]:
            if part not in parts:
                self.problems.append(f"model_index.json names no {part}; a Stable Diffusion model has one")
            elif part in TOKENIZERS.values():
                self._take_tokenizer(f"{part}/")
            elif part == "scheduler":
                self._take("scheduler/scheduler_config.json")
                self._check("scheduler/scheduler_config.json", scheduler_problems)
            else:
                self._take(f"{part}/config.json")
                self._check(f"{part}/config.json", config_problems, PARTS[part][0])
                stem = _TRANSFORMERS_WEIGHTS if part in TOKENIZERS else _DIFFUSERS_WEIGHTS
                self._weights[f"{part}/"] = stem
        self._take_all_weights()
        if {"unet/config.json", "vae/config.json"} <= self.files.keys():
            self.problems += channel_problems(*(self._config(f"{part}/config.json") for part in ("unet", "vae")))
        if not self.problems:
            texts = [(each, self._config(f"{each.part}/config.json")) for each in encoders]
            self.problems += conditioning_problems(self._config("unet/config.json"), texts)

    def take_clip(self) -> None:
        if "model_index.json" in self._names:
            self.problems.append("model_index.json is there: a diffusion pipeline is imported with kind diffusion")
            return
        self._take("config.json")
        self._check("config.json", config_problems, "CLIPModel")
        self._take("preprocessor_config.json")
        self._take_tokenizer("")
        self._weights[""] = _TRANSFORMERS_WEIGHTS
        self._take_all_weights()

    def take_dino(self) -> None:
        self._take("config.json")
        self._check("config.json", dino_problems)
        self._take("preprocessor_config.json")
        self._weights[""] = _TRANSFORMERS_WEIGHTS
        self._take_all_weights()

    def take_safety_checker(self) -> None:
        if not any(name.startswith("safety_checker/") for name in self._names):
            self.problems.append(
                "it has no safety checker (Stable Diffusion XL models have none): leave evaluation_safety_checker off"
            )
            return
        self._take("safety_checker/config.json")
        self._check("safety_checker/config.json", config_problems, "StableDiffusionSafetyChecker")
        self._take("feature_extractor/preprocessor_config.json")
        self._weights["safety_checker/"] = _TRANSFORMERS_WEIGHTS
        self._take_all_weights()

    def _config(self, name: str) -> Mapping[str, Any]:
        return config_of(self._read_json(name), name)

    def _check(self, name: str, find_problems: Callable[..., list[str]], *arguments: str) -> None:
        if name in self.files:
            self.problems += find_problems(self._config(name), name, *arguments)

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

    def _take_all_weights(self) -> None:
        """Takes each part's weights of the variant, and the plain ones of parts without it if another part has it."""
        found = {folder: self._find_weights(folder, stem, self._variant) for folder, stem in self._weights.items()}
        for folder, stem in self._weights.items():
            plain = self._find_weights(folder, stem, "") if any(found.values()) else ""
            if not found[folder] and plain:
                logger.warning(
                    "%s has no %s weights in %s: its plain ones are taken", self._source, self._variant, folder
                )
            if chosen := found[folder] or plain:
                self._take_weights(folder, stem, chosen)
            else:
                self.problems.append(self._no_weights(folder, stem))

    def _find_weights(self, folder: str, stem: str, variant: str) -> str:
        """The file with a part's weights of a variant, whole or as an index of several; empty when there is none."""
        dot = f".{variant}" if variant else ""
        # transformers and diffusers write the first index, earlier releases of diffusers wrote the second.
        forms = [f"{dot}.safetensors", f".safetensors.index{dot}.json", f".safetensors{dot}.index.json"]
        return next((name for form in forms if (name := f"{folder}{stem}{form}") in self._names), "")

    def _take_weights(self, folder: str, stem: str, chosen: str) -> None:
        if chosen.endswith(".safetensors"):
            self.files[f"{folder}{stem}.safetensors"] = chosen
            return
        self.files[f"{folder}{stem}.safetensors.index.json"] = chosen
        try:
            files = sorted(set(shards(self._read_json(chosen)).values()))
        except ValueError as error:
            self.problems.append(f"{chosen} is no index of weights: {error}")
            return
        for shard in files:
            self._take(folder + shard)

    def _no_weights(self, folder: str, stem: str) -> str:
        wanted = f"{folder}{stem}{'.' if self._variant else ''}{self._variant}.safetensors"
        pattern = re.compile(rf"{re.escape(folder + stem)}(\.(?P<variant>[A-Za-z0-9_-]+?))?(-\d+-of-\d+)?\.safetensors")
        found = sorted({match["variant"] or "plain" for name in self._names if (match := pattern.fullmatch(name))})
        if found:
            flags = ["no --variant" if variant == "plain" else f"--variant {variant}" for variant in found]
            return (
                f"{wanted} is missing, while {folder or 'the folder'} has weights: {', '.join(found)}; import with "
                f"{' or '.join(flags)} (base_model_variant of a run)"
            )
        pickled = sorted(
            name
            for name in self._names
            if name.startswith(folder) and "/" not in name[len(folder) :] and name.endswith(_PICKLED)
        )
        if pickled:
            return f"{wanted} is missing and {pickled[0]} is pickled, which can run code: {_CONVERT}"
        return f"{wanted} is missing"

    def _no_model_index(self) -> str:
        config = self._config("config.json") if "config.json" in self._names else {}
        if config.get("model_type") == "clip":
            return "model_index.json is missing: a CLIP model is imported with kind clip"
        if what := described(self._names, config):
            return f"model_index.json is missing: the folder is {what}; give the folder of a whole diffusers pipeline"
        single = sorted(n for n in self._names if "/" not in n and n.endswith((".safetensors", ".ckpt")))
        if single:
            return f"model_index.json is missing, and {single_file_advice(single[0])}"
        inner = sorted(
            name.removesuffix("/model_index.json") for name in self._names if name.endswith("/model_index.json")
        )
        if inner:
            return f"model_index.json is missing here but there is one in {inner[0]}: give that folder"
        return "model_index.json is missing: is it the folder of a diffusers pipeline?"
