"""Base models as far as their tokenizers and token tables, in a model store of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from components.common.artifact_folder import sha256_of_file
from components.common.base_model import ModelFile, ModelReference, blob_key, write_reference
from components.common.prompts import OBJECT_TEMPLATES, STYLE_TEMPLATES

KEY = "text_model.embeddings.token_embedding.weight"


def make_small_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that takes 77 tokens, in which every word of the templates, `toy` and `cat` are one token."""
    words = {word for template in (*OBJECT_TEMPLATES, *STYLE_TEMPLATES) for word in template[:-3].split()}
    alphabet = [chr(code) for code in range(33, 127)]
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(sorted(words | {"toy", "cat"}), trainer)
    learned = json.loads(learner.to_str())["model"]
    pieces = [*learned["vocab"], *(f"{letter}</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocabulary, merges=[tuple(pair) for pair in learned["merges"]], model_max_length=77)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small tokenizer as a folder."""
    folder = tmp_path_factory.mktemp("tokenizer")
    make_small_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def entries(tokenizer_folder: Path) -> int:
    """How many tokens the tokenizer has: the id that the first new one gets."""
    return len(CLIPTokenizer.from_pretrained(tokenizer_folder))


@pytest.fixture(scope="session")
def table(entries: int) -> np.ndarray:
    """The token table of a text encoder, float32 [entries, 8]."""
    return np.random.default_rng(0).standard_normal((entries, 8)).astype(np.float32)


def write_text_encoder(folder: Path, table: np.ndarray, *, key: str = KEY, positions: int = 77) -> None:
    """A text encoder's folder with a token table among other weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"a.first": np.ones(3, np.float32), key: table, "z.last": np.ones((2, 2), np.float32)}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": positions}))


@pytest.fixture
def model_folder(tokenizer_folder: Path, table: np.ndarray, tmp_path: Path) -> Path:
    """A model's folder with one text encoder and more that this step has no use for."""
    folder = tmp_path / "model"
    shutil.copytree(tokenizer_folder, folder / "tokenizer")
    write_text_encoder(folder / "text_encoder", table)
    (folder / "unet").mkdir()
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"gigabytes")
    (folder / "model_index.json").write_text("{}")
    return folder


@pytest.fixture
def refer_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Puts a model's folder into a store and gives the folder of the reference to it."""
    monkeypatch.setenv("TEXTUAL_INVERSION_CACHE", str(tmp_path / "cache"))

    def refer(folder: Path) -> Path:
        store, files = tmp_path / "store", {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            file = ModelFile(sha256=sha256_of_file(path), size=path.stat().st_size)
            files[path.relative_to(folder).as_posix()] = file
            blob = store / blob_key(file.sha256)
            blob.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, blob)
        reference = ModelReference(
            source=str(folder),
            repository=folder.as_uri(),
            revision="0" * 40,
            kind="diffusion",
            variant="",
            store=str(store),
            files=files,
        )
        write_reference(reference, tmp_path / "reference")
        return tmp_path / "reference"

    return refer
