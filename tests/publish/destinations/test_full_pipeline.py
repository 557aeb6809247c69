from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from components.common.artifacts import read_learned_embeds
from components.common.base_model import CACHE_VARIABLE, ModelReference, find_reference
from components.common.errors import BaseModelError, DestinationError
from components.common.families import FAMILIES
from components.common.registry.entry import RegistryEntry
from components.common.registry.registry import concept_store
from components.common.registry.versions import publish_version
from components.common.storage import open_store
from components.common.storage.addresses import local_path
from components.common.tensors import as_float32
from components.common.vocabulary import load_tokenizer
from components.common.weights import token_table
from components.flax_models.loading import load_text_encoders
from components.import_base_model.importing import import_base_model
from components.publish.bundle import make_bundle
from components.publish.destinations.full_pipeline import FullPipeline
from tests.publish.conftest import write_inputs

SPRITES = Path(__file__).parents[3] / "examples" / "sprites" / "base_model"
WIDTH = json.loads((SPRITES / "text_encoder" / "config.json").read_text())["hidden_size"]
PROMPT = "a photo of a <cat-toy> on grass"


def published(
    folder: Path, base_model: Path, *, seed: int = 0, sdxl: bool = False
) -> tuple[RegistryEntry, ModelReference]:
    """A version in the registry `folder`/registry, trained on a base model that is in the store `folder`/models."""
    reference = import_base_model(str(base_model), str(folder / "models"), folder / "reference")
    inputs = write_inputs(folder / f"inputs-{seed}", reference=reference, width=WIDTH, seed=seed, sdxl=sdxl)
    bundle = make_bundle(
        "", reference=reference, learned_embedding=inputs.learned_embedding, evaluation=inputs.evaluation
    )
    return publish_version(concept_store(str(folder / "registry"), bundle.concept), bundle, "run-1"), reference


def model_in(folder: Path, dtype: torch.dtype) -> Path:
    """The base model of the tiny world with its text encoder in another dtype."""
    shutil.copytree(SPRITES, folder)
    weights = folder / "text_encoder" / "model.safetensors"
    save_file({key: value.to(dtype) for key, value in load_file(weights).items()}, weights, {"format": "pt"})
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    yield


def encoded(pipeline: StableDiffusionPipeline) -> torch.Tensor:
    return pipeline.encode_prompt(PROMPT, "cpu", 1, False)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_full_pipeline_reads_prompts_as_the_base_model_with_the_embedding_does(tmp_path: Path, dtype: torch.dtype):
    base_model = model_in(tmp_path / "base_model", dtype)
    entry, reference = published(tmp_path, base_model)
    folder = push_to(tmp_path / "full", entry, reference)
    whole = StableDiffusionPipeline.from_pretrained(folder, dtype=dtype, local_files_only=True)
    taught = StableDiffusionPipeline.from_pretrained(base_model, dtype=dtype, local_files_only=True)
    before = encoded(taught)
    taught.load_textual_inversion(open_store(entry.uri).local_file("learned_embeds.safetensors"))
    assert whole.tokenizer.tokenize(PROMPT) == taught.tokenizer.tokenize(PROMPT)
    assert torch.equal(encoded(whole), encoded(taught))
    assert not torch.equal(encoded(whole), before)


def test_full_pipeline_is_read_by_the_flax_loader(tmp_path: Path):
    entry, reference = published(tmp_path, model_in(tmp_path / "base_model", torch.float32))
    folder = push_to(tmp_path / "full", entry, reference)
    loaded = load_text_encoders(folder, FAMILIES[0], dtype="float32")["text_encoder"]
    table = np.asarray(loaded.weights["embeddings"]["token_embedding"]["embedding"][...])
    rows = load_file(open_store(entry.uri).local_file("learned_embeds.safetensors"))["<cat-toy>"].numpy()
    assert np.array_equal(table[-2:], rows)


def test_full_pipeline_of_two_text_encoders_has_the_rows_of_each(tmp_path: Path):
    base_model, widths = tmp_path / "base_model", {"text_encoder": WIDTH, "text_encoder_2": 12}
    shutil.copytree(SPRITES, base_model)
    for part in ("tokenizer", "text_encoder"):
        shutil.copytree(base_model / part, base_model / f"{part}_2")
    weights = load_file(base_model / "text_encoder" / "model.safetensors")
    narrow = {
        key: value[:, :12].contiguous() for key, value in weights.items() if key.endswith("token_embedding.weight")
    }
    save_file(narrow, base_model / "text_encoder_2" / "model.safetensors")
    index = json.loads((base_model / "model_index.json").read_text())
    index |= {"_class_name": "StableDiffusionXLPipeline"}
    index |= {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"], "tokenizer_2": index["tokenizer"]}
    (base_model / "model_index.json").write_text(json.dumps(index))
    unet = base_model / "unet" / "config.json"
    unet.write_text(json.dumps({**json.loads(unet.read_text()), "cross_attention_dim": 2 * WIDTH}))
    entry, reference = published(tmp_path, base_model, sdxl=True)
    folder = push_to(tmp_path / "full", entry, reference)
    rows = read_learned_embeds(open_store(entry.uri).local_file("learned_embeds.safetensors"))[1]
    for encoder, width in widths.items():
        _, table = token_table(folder / encoder)
        found = as_float32(table.read(), table.dtype).reshape(table.shape)[-2:]
        assert found.shape == (2, width) and np.allclose(found, rows[encoder], rtol=1e-3, atol=1e-6)
        tokenizer = load_tokenizer(folder / encoder.replace("text_encoder", "tokenizer"))
        assert tokenizer.convert_tokens_to_ids("<cat-toy>_1") == table.shape[0] - 1


def test_full_pipeline_when_pushed_again_writes_nothing(tmp_path: Path):
    entry, reference = published(tmp_path, SPRITES)
    folder = push_to(tmp_path / "full", entry, reference)
    before = written(folder)
    assert push_to(tmp_path / "full", entry, reference) == folder
    assert written(folder) == before
    assert "safety_checker" not in {path.name for path in folder.iterdir()}


def test_full_pipeline_when_it_was_broken_off_is_gone_on_with(tmp_path: Path):
    entry, reference = published(tmp_path, SPRITES)
    folder = push_to(tmp_path / "full", entry, reference)
    before = written(folder)
    for name in ("model_index.json", "unet/config.json", "text_encoder/model.safetensors"):
        (folder / name).unlink()
    push_to(tmp_path / "full", entry, reference)
    after = written(folder)
    assert after.keys() == before.keys()
    kept = "vae/diffusion_pytorch_model.safetensors"
    assert after[kept] == before[kept]


def test_full_pipeline_when_the_folder_is_of_another_version_is_left_alone(tmp_path: Path):
    entry, reference = published(tmp_path / "one", SPRITES, seed=1)
    other, _ = published(tmp_path / "two", SPRITES, seed=2)
    folder = push_to(tmp_path / "full", entry, reference)
    before = written(folder)
    with pytest.raises(DestinationError, match=r"cat-toy/1/textual_inversion\.json is of another version .*remove"):
        push_to(tmp_path / "full", other, reference)
    assert written(folder) == before


def test_base_model_is_found_by_its_digest_alone(tmp_path: Path):
    _, reference = published(tmp_path, SPRITES)
    assert find_reference(str(tmp_path / "models"), reference.digest).files == reference.files
    with pytest.raises(BaseModelError, match=r"found no base model with the digest abcabcabcabc in .*/models"):
        find_reference(str(tmp_path / "models"), "abc" * 20)


def test_rows_of_a_model_of_another_width_are_refused(tmp_path: Path):
    entry, _ = published(tmp_path, SPRITES)
    narrow = tmp_path / "narrow"
    shutil.copytree(SPRITES, narrow)
    weights = load_file(narrow / "text_encoder" / "model.safetensors")
    key = next(key for key in weights if key.endswith("token_embedding.weight"))
    weights[key] = weights[key][:, :-1].contiguous()
    save_file(weights, narrow / "text_encoder" / "model.safetensors")
    reference = import_base_model(str(narrow), str(tmp_path / "models"), tmp_path / "other")
    with pytest.raises(BaseModelError, match=rf"a token table of width {WIDTH - 1}, found a row of \[{WIDTH}\]"):
        push_to(tmp_path / "full", entry, reference)
    assert not (tmp_path / "full/cat-toy/1/model_index.json").exists()


def push_to(folder: Path, entry: RegistryEntry, reference: ModelReference) -> Path:
    return local_path(FullPipeline(str(folder), lambda _: reference).push(entry))


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """When each file was written, and as which file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}
