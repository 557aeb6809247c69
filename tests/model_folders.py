"""Base models of a few kilobytes that have every file of a real one: for tests that move files and load"
" nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

WEIGHTS = {
    "text_encoder": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}
CLASSES = {
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def make_diffusion_folder(folder: Path, *, variants: Sequence[str] = ("",), second_encoder: bool = False) -> Path:
    """A diffusers pipeline with weights of each variant, and the things beside it that no step needs."""
    weights = WEIGHTS | ({"text_encoder_2": "model"} if second_encoder else {})
    tokenizers = ["tokenizer", "tokenizer_2"] if second_encoder else ["tokenizer"]
    name = "StableDiffusionXLPipeline" if second_encoder else "StableDiffusionPipeline"
    index: dict[str, object] = {"_class_name": name, "safety_checker": [None, None]}
    for part, stem in weights.items():
        index[part] = CLASSES[part]
        write_json(folder / part / "config.json", {"part": part})
        for variant in variants:
            write_weights(folder / part / f"{stem}{'.' if variant else ''}{variant}.safetensors", seed=variant + part)
    for part in tokenizers:
        index[part] = ["transformers", "CLIPTokenizer"]
        write_tokenizer(folder / part)
    index["scheduler"] = ["diffusers", "DDIMScheduler"]
    write_json(folder / "scheduler" / "scheduler_config.json", {"num_train_timesteps": 1000})
    write_json(folder / "model_index.json", index)
    for unneeded in (
        "README.md",
        "v1-5-pruned.ckpt",
        "v1-5-pruned.safetensors",
        "pictures/cat.png",
        "safety_checker/model.safetensors",
        "feature_extractor/preprocessor_config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_flax_model.msgpack",
        "text_encoder/model.onnx",
    ):
        (folder / unneeded).parent.mkdir(parents=True, exist_ok=True)
        (folder / unneeded).write_bytes(b"not needed")
    return folder


def make_clip_folder(folder: Path) -> Path:
    """A CLIPModel with tokenizer and preprocessor, as transformers saves them, and weights that no step"
    " needs."""
    write_json(folder / "config.json", {"model_type": "clip"})
    write_json(folder / "preprocessor_config.json", {"do_resize": True})
    write_tokenizer(folder)
    write_weights(folder / "model.safetensors", seed="clip")
    (folder / "pytorch_model.bin").write_bytes(b"not needed")
    return folder


def write_tokenizer(folder: Path) -> None:
    write_json(folder / "tokenizer_config.json", {"model_max_length": 77})
    write_json(folder / "vocab.json", {"a</w>": 0})
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")


def write_weights(path: Path, *, seed: str) -> None:
    """A safetensors file whose content depends on `seed`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(list(seed.encode()))
    save_file({"weight": generator.normal(size=(8, 16)).astype(np.float32)}, path)


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
