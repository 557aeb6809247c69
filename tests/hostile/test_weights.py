"""Weights that are not all there, of another model, not finite, or none: refused by name by every loader."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import save
from safetensors.torch import load_file, save_file

from components.common.artifacts import ImageSet, InitialEmbedding, LatentSet, LearnedEmbedding, Snapshot
from components.common.errors import ArtifactError, BaseModelError, TextualInversionError
from components.common.sources.checks import check_safetensors
from components.common.tensors import read_float32
from components.encode_latents.latents import encode_latents
from components.flax_models import loading as flax_loading
from components.import_base_model.importing import import_base_model
from components.init_embedding.token_table import read_token_row
from components.torch_models import loading as torch_loading
from components.torch_models.clip_scorer import ClipScorer
from components.torch_models.sampling import load_pipeline
from tests import flax_runs as runs
from tests.common.test_artifacts import image_set, initial_embedding, latent_set, learned_embedding
from tests.tiny_models import make_tiny_clip

CPU = torch.device("cpu")
SPRITES = Path(__file__).parents[2] / "examples" / "sprites"
Tensors = dict[str, torch.Tensor]
Load = Callable[[Path], object]

LOADERS: dict[str, tuple[str, Load]] = {
    "text encoder by torch": (
        "text_encoder",
        lambda model: torch_loading.load_text_encoder(model, dtype=torch.float32, device=CPU),
    ),
    "UNet by torch": ("unet", lambda model: torch_loading.load_unet(model, dtype=torch.float32, device=CPU)),
    "VAE by torch": ("vae", lambda model: torch_loading.load_vae(model, device=CPU)),
    "text encoder by flax": (
        "text_encoder",
        lambda model: flax_loading.load_text_encoders(model, runs.SD1, dtype=jnp.float32),
    ),
    "UNet by flax": ("unet", lambda model: flax_loading.load_unet(model, dtype=jnp.float32)),
    "VAE by flax": ("vae", lambda model: flax_loading.load_vae(model)),
    "scorer": ("clip", lambda model: ClipScorer(model / "clip", device=CPU)),
    "pipeline": ("vae", lambda model: load_pipeline(model, device=CPU, dtype=torch.float32)),
}
"""The part that each loader reads, and how."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few kilobytes, but for its table of tokens, with a scorer in the folder `clip`."""
    folder = runs.make_micro_model(tmp_path_factory.mktemp("models") / "micro")
    make_tiny_clip(folder / "clip")
    return folder


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(original, tmp_path / "model"))


def weights_file(folder: Path) -> Path:
    (file,) = folder.glob("*.safetensors")
    return file


def change(folder: Path, damage: Callable[[Tensors], Any]) -> None:
    file = weights_file(folder)
    tensors = load_file(file)
    damage(tensors)
    save_file(tensors, file)


def victim(tensors: Tensors) -> str:
    """A matrix or kernel in the middle, with room to be damaged."""
    return sorted(key for key, value in tensors.items() if value.ndim > 1 and min(value.shape[:2]) > 2)[-2]


def refused(call: Callable[[], object], *told: str, error: type[TextualInversionError] = BaseModelError) -> None:
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 2000
    for words in told:
        assert words in message, message


def lose(tensors: Tensors) -> None:
    del tensors[victim(tensors)]


def lose_the_end(tensors: Tensors) -> None:
    for key in sorted(tensors)[len(tensors) // 2 :]:
        del tensors[key]


def reshape(tensors: Tensors) -> None:
    key = victim(tensors)
    tensors[key] = tensors[key][:2].clone()


def flatten(tensors: Tensors) -> None:
    key = victim(tensors)
    tensors[key] = tensors[key].flatten()


def quantise(tensors: Tensors) -> None:
    key = victim(tensors)
    tensors[key] = tensors[key].to(torch.int8)


def to_float8(tensors: Tensors) -> None:
    key = victim(tensors)
    tensors[key] = tensors[key].to(torch.float8_e4m3fn)


def put(value: float) -> Callable[[Tensors], None]:
    def damage(tensors: Tensors) -> None:
        tensors[victim(tensors)][1, 1] = value

    return damage


DAMAGES: dict[str, tuple[Callable[[Tensors], None], str]] = {
    "one is missing": (lose, "1 missing: "),
    "half are missing": (lose_the_end, " missing: "),
    "one more": (lambda tensors: tensors.update({"lora_up.weight": torch.zeros(2, 2)}), "1 unexpected: lora_up.weight"),
    "fewer rows": (reshape, " has the shape [2"),
    "fewer axes": (flatten, ", expected ["),
    "int8": (quantise, " is stored as I8, expected one of F32"),
    "float8": (to_float8, " is stored as F8_E4M3, expected one of F32"),
    "NaN": (put(float("nan")), " has values that are not finite in float32"),
    "infinity": (put(float("inf")), " has values that are not finite in float32"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("loader", LOADERS)
def test_weights_are_refused_by_the_name_of_the_tensor(model: Path, loader: str, damage: str) -> None:
    part, load = LOADERS[loader]
    harm, told = DAMAGES[damage]
    name = victim(load_file(weights_file(model / part)))
    change(model / part, harm)
    in_message = () if damage in ("one more", "half are missing") else (name.removeprefix("text_model."),)
    refused(lambda: load(model), str(model / part), told, *in_message)


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_weights_that_overflow_in_half_precision_are_named(model: Path, part: str) -> None:
    change(model / part, put(1e6))
    kind = {"text_encoder": "CLIPTextModel", "unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}[part]
    refused(
        lambda: torch_loading.load_module(getattr(torch_loading, kind), model / part, dtype=torch.float16),
        "not finite in float16",
        "wider precision",
    )


# Sharded weights.


def shard(folder: Path) -> tuple[Path, dict[str, str], list[Path]]:
    """The weights in two shards: the index, its table, and the files."""
    file = weights_file(folder)
    tensors, stem = load_file(file), file.name.partition(".")[0]
    file.unlink()
    files = [folder / f"{stem}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    table = {key: files[number % 2].name for number, key in enumerate(sorted(tensors))}
    for each in files:
        save_file({key: tensors[key] for key, name in table.items() if name == each.name}, each)
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return index, table, files


def a_file_is_absent(index: Path, table: dict[str, str], files: list[Path]) -> str:
    files[1].unlink()
    return f"found no {files[1].name}"


def a_tensor_lies_elsewhere(index: Path, table: dict[str, str], files: list[Path]) -> str:
    key = sorted(table)[0]
    table[key] = files[1].name if table[key] == files[0].name else files[0].name
    return f"do not agree on {key}"


def a_tensor_is_not_named(index: Path, table: dict[str, str], files: list[Path]) -> str:
    key = sorted(table)[0]
    del table[key]
    return f"do not agree on {key}"


def a_tensor_is_nowhere(index: Path, table: dict[str, str], files: list[Path]) -> str:
    table["ghost.weight"] = files[0].name
    return "do not agree on ghost.weight"


def a_tensor_lies_twice(index: Path, table: dict[str, str], files: list[Path]) -> str:
    key = next(key for key, name in table.items() if name == files[0].name)
    save_file({**load_file(files[1]), key: load_file(files[0])[key]}, files[1])
    return f"{key} is in {files[0].name} too"


def a_shard_is_not_named(index: Path, table: dict[str, str], files: list[Path]) -> str:
    stem = index.name.partition(".")[0]
    save_file({"more": torch.zeros(2)}, index.parent / f"{stem}-00003-of-00003.safetensors")
    return f"does not name {stem}-00003-of-00003.safetensors"


def whole_weights_lie_beside(index: Path, table: dict[str, str], files: list[Path]) -> str:
    name = index.name.replace(".index.json", "")
    shutil.copyfile(files[0], index.parent / name)
    return f"found {name}, {index.name}"


def a_name_leads_out(index: Path, table: dict[str, str], files: list[Path]) -> str:
    table[sorted(table)[0]] = "../vae/diffusion_pytorch_model.safetensors"
    return "expected a safetensors file beside it"


def a_name_is_pickled(index: Path, table: dict[str, str], files: list[Path]) -> str:
    table[sorted(table)[0]] = "pytorch_model.bin"
    return "expected a safetensors file beside it"


def a_name_is_no_text(index: Path, table: dict[str, Any], files: list[Path]) -> str:
    table[sorted(table)[0]] = ["a", 3]
    return "expected a safetensors file beside it"


def nothing_is_named(index: Path, table: dict[str, str], files: list[Path]) -> str:
    table.clear()
    return "has no weight_map"


SHARDS = (
    *(a_file_is_absent, a_tensor_lies_elsewhere, a_tensor_is_not_named, a_tensor_is_nowhere, a_tensor_lies_twice),
    *(a_shard_is_not_named, whole_weights_lie_beside, a_name_leads_out, a_name_is_pickled, a_name_is_no_text),
    nothing_is_named,
)


@pytest.mark.parametrize("damage", SHARDS, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("loader", ["text encoder by torch", "UNet by torch", "UNet by flax"])
def test_shards_that_do_not_fit_their_index_are_refused(model: Path, loader: str, damage: Callable[..., str]) -> None:
    part, load = LOADERS[loader]
    index, table, files = shard(model / part)
    told = damage(index, table, files)
    index.write_text(json.dumps({"metadata": {}, "weight_map": table}))
    refused(lambda: load(model), told)


# Headers of safetensors files.


def file_of(header: Any, data: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(dtype: Any = "F32", shape: Any = (4, 4), offsets: Any = (0, 64)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


ONCE = b'"a": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}'
WHOLE = save({"a": np.zeros((4, 4), np.float32)})
HEADERS: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"\x00" * 7,
    "length 0": bytes(8),
    "huge length": (2**64 - 1).to_bytes(8, "little") + b"{}",
    "length beyond the file": (1000).to_bytes(8, "little") + b"{}",
    "zip": b"PK\x03\x04" + bytes(400),
    "no JSON": file_of(b"{cut off"),
    "list": file_of([]),
    "deep": file_of(b"[" * 100_000),
    "no UTF-8": file_of(b'{"\xff": 1}'),
    "NaN": file_of(b'{"a": NaN}'),
    "tensor is a list": file_of({"a": []}),
    "no dtype": file_of({"a": {"shape": [16], "data_offsets": [0, 64]}}),
    "no offsets": file_of({"a": {"shape": [16], "dtype": "F32"}}),
    "unknown dtype": file_of({"a": tensor("F31")}),
    "dtype is a number": file_of({"a": tensor(32)}),
    "negative size": file_of({"a": tensor(shape=[-4, -4])}),
    "fractional size": file_of({"a": tensor(shape=[4.0, 4])}),
    "size is true": file_of({"a": tensor(shape=[True, 16])}),
    "product overflows": file_of({"a": tensor(shape=[2**62, 2**62])}),
    "product overflows to 16": file_of({"a": tensor(shape=[2**32, 2**32, 16])}),
    "size of 100 digits": file_of({"a": tensor(shape=[10**100])}),
    "three offsets": file_of({"a": tensor(offsets=[0, 32, 64])}),
    "offsets swapped": file_of({"a": tensor(offsets=[64, 0])}),
    "offset beyond": file_of({"a": tensor(shape=[32], offsets=[0, 128])}),
    "bytes that do not hold the shape": file_of({"a": tensor(shape=[15])}),
    "overlap": file_of({"a": tensor(), "b": tensor(shape=[8], offsets=[32, 64])}),
    "gap": file_of({"a": tensor(shape=[4], offsets=[0, 16]), "b": tensor(shape=[8], offsets=[32, 64])}),
    "bytes before the first": file_of({"a": tensor(shape=[8], offsets=[32, 64])}),
    "key twice": file_of(b"{%b, %b}" % (ONCE, ONCE)),
    "facts are numbers": file_of({"__metadata__": {"a": 3}, "a": tensor()}),
    "cut off": WHOLE[:-1],
    "followed by something": WHOLE + b"\x00",
}
READERS: dict[str, tuple[str, Callable[[Path], object], type[TextualInversionError]]] = {
    "import": ("unet", lambda model: check_safetensors(weights_file(model / "unet"), "the file"), BaseModelError),
    "initial rows": ("text_encoder", lambda model: read_token_row(model / "text_encoder", 0), BaseModelError),
    "torch": (*LOADERS["UNet by torch"], BaseModelError),
    "flax": (*LOADERS["VAE by flax"], BaseModelError),
    "scorer": (*LOADERS["scorer"], BaseModelError),
    "artifact": ("unet", lambda model: read_float32(weights_file(model / "unet")), ArtifactError),
}


@pytest.fixture(scope="module")
def without_weights(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, whose weights are written anew for every header."""
    return Path(shutil.copytree(original, tmp_path_factory.mktemp("headers") / "model"))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("header", HEADERS)
def test_header_that_cannot_be_right_is_refused(without_weights: Path, header: str, reader: str) -> None:
    part, read, error = READERS[reader]
    weights_file(without_weights / part).write_bytes(HEADERS[header])
    refused(lambda: read(without_weights), "safetensors", error=error)


@pytest.mark.parametrize("key", ["a\nb", "k" * 10_000, "\x1b[31m"], ids=["lines", "long", "escape"])
def test_key_that_is_no_name_is_refused(model: Path, key: str) -> None:
    change(model / "unet", lambda tensors: tensors.update({key: torch.zeros(1)}))
    for loader in ("UNet by torch", "UNet by flax"):
        refused(lambda load=LOADERS[loader][1]: load(model), "which is no name")  # type: ignore[misc]


# What real models look like.


def as_transformers_4(folder: Path) -> None:
    def rename(tensors: Tensors) -> None:
        for key in [*tensors]:
            tensors[f"text_model.{key.removeprefix('text_model.')}"] = tensors.pop(key)
        tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]

    change(folder / "text_encoder", rename)


def with_the_rest_of_clip(folder: Path) -> None:
    as_transformers_4(folder)
    rest = {
        key: value
        for key, value in load_file(weights_file(folder / "clip")).items()
        if not key.startswith("text_model.")
    }
    change(folder / "text_encoder", lambda tensors: tensors.update(rest))


def as_in_2022(folder: Path) -> None:
    def rename(tensors: Tensors) -> None:
        for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
            for key in [key for key in tensors if f".{new}." in key]:
                tensors[key.replace(f".{new}.", f".{old}.")] = tensors.pop(key)

    change(folder / "vae", rename)


def in_float16(folder: Path) -> None:
    for part in ("text_encoder", "unet", "vae", "clip"):
        change(folder / part, lambda tensors: tensors.update({key: value.half() for key, value in tensors.items()}))


def in_shards(folder: Path) -> None:
    for part in ("text_encoder", "unet", "vae", "clip"):
        shard(folder / part)


def beside_variants(folder: Path) -> None:
    for part in ("text_encoder", "unet", "vae"):
        file = weights_file(folder / part)
        shutil.copyfile(file, file.with_suffix(".fp16.safetensors"))


LAYOUTS = (as_transformers_4, with_the_rest_of_clip, as_in_2022, in_float16, in_shards, beside_variants)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_layout_of_real_models_loads(model: Path, layout: Callable[[Path], None]) -> None:
    layout(model)
    for _, load in LOADERS.values():
        load(model)
    assert read_token_row(model / "text_encoder", 3).shape == (32,)


def test_model_of_the_examples_loads() -> None:
    model = SPRITES / "base_model"
    for name, (_, load) in LOADERS.items():
        load(SPRITES if name == "scorer" else model)


# Numbers that are not finite further on.


def test_latents_that_are_not_finite_name_the_picture(model: Path, tmp_path: Path) -> None:
    change(model / "vae", lambda tensors: tensors["encoder.conv_out.weight"].fill_(3e38))
    import_base_model(str(model), str(tmp_path / "store"), tmp_path / "reference")
    images: ImageSet = image_set()
    dataclasses.replace(images, pictures=images.pictures[:1], pixels=images.pixels[:1], masks=(None,)).write(
        tmp_path / "images"
    )
    refused(
        lambda: encode_latents(
            image_set=tmp_path / "images",
            base_model=tmp_path / "reference",
            accelerator="cpu",
            output=tmp_path / "latents",
        ),
        images.pictures[0].source,
        "not finite",
    )
    assert not (tmp_path / "latents").exists()


@pytest.mark.parametrize("key", ["visual_projection.weight", "text_projection.weight"])
def test_scores_that_are_not_finite_are_refused(model: Path, key: str) -> None:
    change(model / "clip", lambda tensors: tensors[key].fill_(3e38))
    scorer = ClipScorer(model / "clip", device=CPU)
    pictures = [np.full((32, 32, 3), 200, np.uint8)]
    with np.errstate(all="ignore"):
        refused(lambda: (scorer.embed_pictures(pictures), scorer.embed_texts(["a toy"])), "1 of 1 embeddings")


def spoiled(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array.flat[1] = value
    return array


def latents_with(**fields: Any) -> LatentSet:
    latents = latent_set()
    return dataclasses.replace(latents, latents=(dataclasses.replace(latents.latents[0], **fields),))


def rows_of(array: np.ndarray) -> Mapping[str, np.ndarray]:
    return {"text_encoder": array}


ROWS = np.ones((2, 8), np.float32)
NAN_ROWS, WIDE = spoiled(ROWS, np.nan), np.ones((2, 9), np.float32)
ARRAYS: dict[str, Callable[[], Any]] = {
    "latents: NaN mean": lambda: latents_with(mean=spoiled(np.ones((4, 8, 8)), np.nan)),
    "latents: infinite std": lambda: latents_with(flipped_std=spoiled(np.ones((4, 8, 8)), np.inf)),
    "latents: another size": lambda: latents_with(std=np.ones((4, 8, 7))),
    "latents: flat": lambda: latents_with(mean=np.ones((4, 64))),
    "latents: no mean": lambda: latents_with(flipped_mean=None),
    "latents: another mask": lambda: latents_with(mask=np.ones((8, 7))),
    "latents: NaN mask": lambda: latents_with(mask=spoiled(np.ones((8, 8)), np.nan)),
    "initial rows: NaN": lambda: dataclasses.replace(initial_embedding(), rows=rows_of(NAN_ROWS)),
    "initial rows: too few": lambda: dataclasses.replace(initial_embedding(), rows=rows_of(ROWS[:1])),
    "initial rows: flat": lambda: dataclasses.replace(initial_embedding(), rows=rows_of(ROWS[0])),
    "rows: infinite": lambda: dataclasses.replace(learned_embedding(), rows=rows_of(spoiled(ROWS, -np.inf))),
    "rows: too many": lambda: dataclasses.replace(learned_embedding(), rows=rows_of(np.ones((3, 8)))),
    "rows before: NaN": lambda: dataclasses.replace(learned_embedding(), initial_rows=rows_of(NAN_ROWS)),
    "rows before: wider": lambda: dataclasses.replace(learned_embedding(), initial_rows=rows_of(WIDE)),
    "rows before: of another encoder": lambda: dataclasses.replace(
        learned_embedding(), initial_rows={"text_encoder_2": ROWS}
    ),
    "snapshot: NaN": lambda: dataclasses.replace(
        learned_embedding(), snapshots=(Snapshot(step=1, rows=rows_of(NAN_ROWS)),)
    ),
    "snapshot: wider": lambda: dataclasses.replace(
        learned_embedding(), snapshots=(Snapshot(step=1, rows=rows_of(WIDE)),)
    ),
    "losses: NaN": lambda: dataclasses.replace(learned_embedding(), losses=np.array([1.0, np.nan])),
    "losses: a table": lambda: dataclasses.replace(learned_embedding(), losses=np.ones((2, 2))),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_array_of_an_artifact_is_refused(case: str, tmp_path: Path) -> None:
    artifact: LatentSet | InitialEmbedding | LearnedEmbedding = ARRAYS[case]()
    artifact.write(tmp_path / "artifact")
    told = "numbers of ids or rows" if case == "initial rows: too few" else "safetensors"
    refused(lambda: type(artifact).read(tmp_path / "artifact"), told, error=ArtifactError)
