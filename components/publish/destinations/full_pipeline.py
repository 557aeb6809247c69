"""A complete diffusers folder with the word in it, for programs that load no learned embeddings.

    textual_inversion.json   written first: which version and base model it is of
    tokenizer/...            with the placeholder's tokens added
    text_encoder/...         with their rows in the token table
    unet/..., vae/...        as the base model has them
    model_index.json         written last: the folder is whole

It is `<full_pipeline_uri>/<concept>/<version>`, or in the registry `<concept>/full-pipelines/<version>`.

File by file, through the local disk: no file is held in memory, and what an earlier attempt has written stays.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.common.artifacts import LEARNED_EMBEDS, Rows, read_learned_embeds
from components.common.base_model import ModelReference, download_file, human_size, materialize
from components.common.errors import DestinationError, InputError, PreconditionError
from components.common.families import TOKENIZERS
from components.common.registry.documents import from_document, to_document
from components.common.registry.entry import RegistryEntry
from components.common.registry.registry import store_of
from components.common.sources.checks import read_object
from components.common.storage import ObjectStore, open_store
from components.common.storage.local_files import local_errors
from components.common.vocabulary import load_tokenizer
from components.common.weights import token_table
from components.publish.destinations.destination import Destination
from components.publish.destinations.enlarged_weights import write_enlarged

logger = logging.getLogger(__name__)

MODEL_INDEX = "model_index.json"
"""Written last: a folder that has it is whole."""

_CLAIM = "textual_inversion.json"
_KIND = "full-pipeline"
_PARTS_OF_CHECKER = ("safety_checker", "feature_extractor")
"""What no step needs, so that no model store has it."""


class FullPipeline(Destination):
    """A folder for complete pipelines, on any kind of storage."""

    name = "full-pipeline"

    def __init__(self, folder_uri: str, find_base_model: Callable[[RegistryEntry], ModelReference]) -> None:
        """Takes the folder, empty for the registry, and what finds the base model that a version was trained on."""
        self._folder_uri = folder_uri.rstrip("/")
        self._find_base_model = find_base_model
        self.flags = ["--full-pipeline-uri", folder_uri] if folder_uri else []

    def plan(self, entry: RegistryEntry) -> str:
        """See `Destination.plan`."""
        base_model = entry.facts.lineage.get("base_model", "")
        return f"writes {base_model} with {' '.join(entry.facts.tokens)} in it to {self._uri(entry)}"

    def push(self, entry: RegistryEntry) -> str:
        """See `Destination.push`."""
        store, reference = open_store(self._uri(entry)), self._find_base_model(entry)
        self._claim(store, entry, reference)
        if store.exists(MODEL_INDEX):
            logger.info("the complete pipeline is there already: %s", store.uri)
            return store.uri
        with tempfile.TemporaryDirectory(prefix="full-pipeline-") as scratch, local_errors(scratch):
            changed = _changed_files(entry, reference, Path(scratch) / "changed")
            logger.info("the complete pipeline, %s, to %s", human_size(reference.size), store.uri)
            for name, file in reference.files.items():
                if name not in changed and name != MODEL_INDEX and not store.exists(name):
                    copy = Path(scratch) / "copy"
                    download_file(file, open_store(reference.store), copy)
                    store.upload_file(copy, name)
            for name in sorted(changed.keys() - {MODEL_INDEX}):
                store.upload_file(changed[name], name)
            store.upload_file(changed[MODEL_INDEX], MODEL_INDEX)
        return store.uri

    def _uri(self, entry: RegistryEntry) -> str:
        if self._folder_uri:
            return f"{self._folder_uri}/{entry.concept}/{entry.version}"
        return f"{store_of(entry).uri}/full-pipelines/{entry.version}"

    def _claim(self, store: ObjectStore, entry: RegistryEntry, reference: ModelReference) -> None:
        content = {"bundle_digest": entry.bundle_digest, "base_model_digest": reference.digest}
        try:
            store.write(_CLAIM, to_document(_KIND, content), if_absent=True)
        except PreconditionError:
            uri = store.uri_of(_CLAIM)
            if from_document(_KIND, store.read(_CLAIM), uri) != content:
                raise DestinationError(
                    f"{uri} is of another version or base model, expected {entry.concept} {entry.version} with the "
                    f"bundle {entry.bundle_digest[:12]}: remove that folder, or give another full_pipeline_uri"
                ) from None


def _changed_files(entry: RegistryEntry, reference: ModelReference, folder: Path) -> dict[str, Path]:
    """The files in which the version differs from its base model, made below `folder`, by name in the pipeline."""
    embeds = folder / LEARNED_EMBEDS
    embeds.parent.mkdir(parents=True)
    data = open_store(entry.uri).read(LEARNED_EMBEDS)
    entry.files[LEARNED_EMBEDS].check(data, f"{entry.uri}/{LEARNED_EMBEDS}")
    embeds.write_bytes(data)
    rows: Rows = read_learned_embeds(embeds)[1]
    tokenizers = {encoder: TOKENIZERS[encoder] for encoder in rows}
    if missing := {*tokenizers, *tokenizers.values()} - set(reference.subfolders):
        raise InputError(f"{reference.source} has no {', '.join(sorted(missing))}, expected it with rows for it")
    model = materialize(reference, [*tokenizers, *tokenizers.values()])
    for encoder, tokenizer in tokenizers.items():
        ids = _write_tokenizer(model / tokenizer, folder / tokenizer, entry.facts.tokens)
        _write_text_encoder(model / encoder, folder / encoder, dict(zip(ids, rows[encoder], strict=True)))
    index = read_object(model / MODEL_INDEX)
    (folder / MODEL_INDEX).write_text(_json(_without_checker(index)), encoding="utf-8")
    embeds.unlink()
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def _write_tokenizer(source: Path, target: Path, tokens: Sequence[str]) -> tuple[int, ...]:
    """The ids of the placeholder's tokens in the tokenizer of `source`, which is written to `target` with them."""
    tokenizer = load_tokenizer(source)
    if known := set(tokens) & set(tokenizer.get_vocab()):
        raise InputError(f"{source} knows {', '.join(sorted(known))} already, expected a base model without the word")
    tokenizer.add_tokens(list(tokens))
    shutil.copytree(source, target)  # vocab.json and merges.txt too, which earlier releases of transformers read
    tokenizer.save_pretrained(target)
    ids = tuple(int(each) for each in tokenizer.convert_tokens_to_ids(list(tokens)))
    (target / "added_tokens.json").write_text(_json(dict(zip(tokens, ids, strict=True))), encoding="utf-8")
    return ids


def _write_text_encoder(source: Path, target: Path, rows: Mapping[int, np.ndarray]) -> None:
    key, table = token_table(source)
    target.mkdir(parents=True)
    size = write_enlarged(key, table, rows, target / table.file.name)
    config = read_object(source / "config.json")
    (target / "config.json").write_text(_json({**config, "vocab_size": size}), encoding="utf-8")


def _without_checker(index: Mapping[str, Any]) -> dict[str, Any]:
    absent = {part: [None, None] for part in _PARTS_OF_CHECKER if part in index}
    return {**index, **absent, **({"requires_safety_checker": False} if "requires_safety_checker" in index else {})}


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
