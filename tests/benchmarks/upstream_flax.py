"""Runs the last Flax script of diffusers, unmodified, in the environment that still has Flax.

It needs diffusers 0.39.0 and transformers 4.57.6. `convert` makes a folder that they can load, with random weights of
the same configuration; `train` runs the script up to the end of training, where it would fetch a safety checker.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

from diffusers import FlaxAutoencoderKL, FlaxUNet2DConditionModel
from diffusers.pipelines.stable_diffusion import FlaxStableDiffusionSafetyChecker
from transformers import CLIPTextConfig, FlaxCLIPTextModel
from transformers.utils import is_torchvision_available

from tests.benchmarks.without_torchvision import stand_in_for_torchvision


def convert(model: Path, folder: Path) -> None:
    """Makes the folder from the diffusers folder `model`."""
    import jax

    for part, kind in (("unet", FlaxUNet2DConditionModel), ("vae", FlaxAutoencoderKL)):
        module = kind.from_config(kind.load_config(model, subfolder=part))
        module.save_pretrained(folder / part, params=module.init_weights(jax.random.key(0)))
    text_config = CLIPTextConfig.from_pretrained(model / "text_encoder")
    FlaxCLIPTextModel(text_config).save_pretrained(folder / "text_encoder")
    write_slow_tokenizer(model / "tokenizer", folder / "tokenizer")


def write_slow_tokenizer(source: Path, folder: Path) -> None:
    """The vocabulary and merges of a tokenizer.json as the files that transformers 4 reads."""
    folder.mkdir(parents=True)
    tokenizer = json.loads((source / "tokenizer.json").read_text())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["merges"]]
    (folder / "vocab.json").write_text(json.dumps(tokenizer["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"})
    )


def train(script: str, *arguments: str) -> None:
    """Runs the script until it asks for the safety checker, which it does when it has trained."""

    def end(*_: object, **__: object) -> None:
        raise SystemExit(0)

    FlaxStableDiffusionSafetyChecker.from_pretrained = end
    if not is_torchvision_available():
        stand_in_for_torchvision()
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        convert(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        train(*sys.argv[2:])
