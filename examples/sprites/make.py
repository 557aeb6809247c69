"""Makes the tiny world: ``python -m examples.sprites.make [--family sdxl] [--out DIR] [--scale short]``.

By default what `--family sd` names: the tokenizer first, then the autoencoder and CLIP side by side on one core each,
then the UNet with the text encoder on all, then CLIP goes on until it is a good judge of captions. The tiny Stable
Diffusion XL is trained on from these, by `--family sdxl`. Pictures, captions and tokenizer follow from `--seed` to the
byte; the weights do so on one kind of machine only, since torch rounds differently on another.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, StableDiffusionPipeline
from transformers import CLIPModel, CLIPTokenizer

from examples.sprites.clip import image_processor, train_clip
from examples.sprites.concepts import write_concepts
from examples.sprites.diffusion import train_diffusion
from examples.sprites.diffusion_xl import train_diffusion_xl
from examples.sprites.tokenizer import save_tokenizer, train_tokenizer
from examples.sprites.vae import train_vae

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is drawn and how long is trained."""

    vae_steps: int
    vae_pictures: int
    clip_steps: int
    clip_pictures: int
    scorer_steps: int
    scorer_pictures: int
    unet_steps: int
    unet_pictures: int
    xl_steps: int
    xl_pictures: int


SCALES = {
    "full": Scale(
        vae_steps=700,
        vae_pictures=4000,
        clip_steps=300,
        clip_pictures=6000,
        scorer_steps=1500,
        scorer_pictures=16000,
        unet_steps=5000,
        unet_pictures=12000,
        xl_steps=2000,
        xl_pictures=6000,
    ),
    "short": Scale(
        vae_steps=12,
        vae_pictures=64,
        clip_steps=12,
        clip_pictures=128,
        scorer_steps=12,
        scorer_pictures=128,
        unet_steps=12,
        unet_pictures=64,
        xl_steps=12,
        xl_pictures=64,
    ),
}


def make_vae(scratch: Path, scale: Scale, seed: int) -> None:
    """Trains the autoencoder and writes it to ``scratch/vae``."""
    torch.set_num_threads(1)
    vae, losses = train_vae(steps=scale.vae_steps, pictures=scale.vae_pictures, seed=seed)
    vae.save_pretrained(scratch / "vae")
    _write_losses(scratch, "vae", losses)


def make_clip(scratch: Path, scale: Scale, seed: int) -> None:
    """Trains CLIP and writes it to ``scratch/clip``."""
    torch.set_num_threads(1)
    tokenizer = CLIPTokenizer.from_pretrained(scratch / "tokenizer")
    clip, losses = train_clip(
        tokenizer,
        steps=scale.clip_steps,
        batch=96,
        pictures=scale.clip_pictures,
        hard_negatives=False,
        seed=seed + 100,
    )
    clip.save_pretrained(scratch / "clip")
    _write_losses(scratch, "clip", losses)


def make_world(out: Path, scratch: Path, *, scale_name: str, seed: int) -> None:
    """Makes ``base_model/``, ``clip/`` (both fp16) and ``concepts/`` in `out`.

    `scratch` keeps the fp32 weights and the losses.
    """
    started = time.monotonic()
    scale = SCALES[scale_name]
    scratch.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    save_tokenizer(tokenizer, scratch / "tokenizer")
    command = [sys.executable, "-m", "examples.sprites.make", "--out", str(out), "--scratch", str(scratch)]
    command += ["--scale", scale_name, "--seed", str(seed)]
    parts = {part: subprocess.Popen([*command, "--part", part]) for part in ("vae", "clip")}
    failed = [part for part, process in parts.items() if process.wait() != 0]
    if failed:
        raise SystemExit(f"training {' and '.join(failed)} failed: its traceback stands above")
    logger.info("autoencoder and CLIP took %.0f s", time.monotonic() - started)
    clip = CLIPModel.from_pretrained(scratch / "clip")
    losses = train_diffusion(
        AutoencoderKL.from_pretrained(scratch / "vae").eval(),
        clip,
        tokenizer,
        steps=scale.unet_steps,
        pictures=scale.unet_pictures,
        seed=seed + 200,
        export=lambda pipeline, step: export_pipeline(pipeline, out / "base_model", step),
    )
    _write_losses(scratch, "unet", losses)
    make_scorer(clip, tokenizer, out / "clip", scratch, scale, seed)
    write_concepts(out / "concepts")
    logger.info("everything took %.0f s", time.monotonic() - started)


def make_scorer(clip: CLIPModel, tokenizer: CLIPTokenizer, out: Path, scratch: Path, scale: Scale, seed: int) -> None:
    """Trains CLIP on, with other pictures, and writes it with its tokenizer and image processor as an fp16 folder.

    What the text encoder began as is good enough to teach the UNet the words, but not yet to tell all captions apart.
    """
    scorer, losses = train_clip(
        tokenizer,
        steps=scale.scorer_steps,
        batch=64,
        pictures=scale.scorer_pictures,
        hard_negatives=True,
        seed=seed + 300,
        begin=clip,
    )
    _write_losses(scratch, "scorer", losses)
    scorer.half().save_pretrained(out)
    save_tokenizer(tokenizer, out)
    image_processor().save_pretrained(out)


def make_xl(out: Path, scratch: Path, *, scale_name: str, seed: int) -> None:
    """Makes ``base_model_xl/`` (fp16) in `out` from the ``base_model/`` and ``clip/`` that are there.

    `scratch` keeps the losses.
    """
    scale = SCALES[scale_name]
    missing = [str(out / part) for part in ("base_model", "clip") if not (out / part).is_dir()]
    if missing:
        raise SystemExit(f"no {' and no '.join(missing)}: make them first, with --family sd")
    losses = train_diffusion_xl(
        StableDiffusionPipeline.from_pretrained(out / "base_model", dtype=torch.float32),
        CLIPModel.from_pretrained(out / "clip", dtype=torch.float32),
        (train_tokenizer(), train_tokenizer(pad_token="!")),
        steps=scale.xl_steps,
        pictures=scale.xl_pictures,
        seed=seed + 400,
        export=lambda pipeline, step: export_pipeline(pipeline, out / "base_model_xl", step),
    )
    scratch.mkdir(parents=True, exist_ok=True)
    _write_losses(scratch, "unet_xl", losses)


def export_pipeline(pipeline: DiffusionPipeline, out: Path, step: int) -> None:
    """Writes a half-precision copy of the pipeline as a diffusers folder."""
    half = copy.deepcopy(pipeline)
    for part in half.components.values():
        if isinstance(part, torch.nn.Module):
            part.half()
    half.save_pretrained(out)
    for name, part in pipeline.components.items():
        if name.startswith("tokenizer"):
            save_tokenizer(part, out / name)
    config = json.loads((out / "vae/config.json").read_text())
    config.pop("_name_or_path", None)  # diffusers notes the scratch folder that the weights were read from
    (out / "vae/config.json").write_text(json.dumps(config, indent=2) + "\n")
    logger.info("wrote %s after step %d", out, step)


def _write_losses(scratch: Path, part: str, losses: list[float]) -> None:
    (scratch / f"{part}_losses.json").write_text(json.dumps(losses))


def main(argv: list[str] | None = None) -> None:
    """Reads the command line and runs."""
    parser = argparse.ArgumentParser(description="Make the tiny world.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where everything goes (default: %(default)s)")
    parser.add_argument("--family", choices=("sd", "sdxl"), default="sd", help="sdxl begins as what sd made in --out")
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, help="keep the fp32 weights and losses here (default: nowhere)")
    parser.add_argument("--part", choices=("vae", "clip"), help="train one part only, into --scratch")
    options = parser.parse_args(argv)
    if options.part and not options.scratch:
        parser.error("--part needs --scratch")
    if options.part:
        make = {"vae": make_vae, "clip": make_clip}[options.part]
        make(options.scratch, SCALES[options.scale], options.seed)
        return
    make_family = {"sd": make_world, "sdxl": make_xl}[options.family]
    with tempfile.TemporaryDirectory() as nowhere:
        make_family(options.out, options.scratch or Path(nowhere), scale_name=options.scale, seed=options.seed)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    main()
