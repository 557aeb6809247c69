"""Pictures drawn by a Stable Diffusion pipeline: one seed, one picture, whatever else is in the batch."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel

from components.common.artifacts import Rows, read_learned_embeds, row_widths
from components.common.drawing import BATCH_SIZE, picture_bytes, progress_line
from components.common.errors import BaseModelError, ConfigError, TokenError
from components.common.families import TOKENIZERS, check_word_fits, family_of
from components.common.prompts import placeholder_tokens
from components.common.sources.checks import read_object
from components.common.sources.model_documents import pipeline_problems
from components.common.storage.retries import one_line
from components.common.tokenizer import limit_to_text_encoder
from components.common.vocabulary import load_tokenizer
from components.torch_models.loading import TEXT_ENCODERS, check_scheduler, load_module
from components.torch_models.samplers import sampler_for

logger = logging.getLogger(__name__)

Pipeline = Any
"""One of `_PIPELINES`. The lazy imports of diffusers show type checkers a stand-in without its methods."""

_PIPELINES: dict[str, Any] = {kind.__name__: kind for kind in (StableDiffusionPipeline, StableDiffusionXLPipeline)}
_MODULES: dict[str, Any] = {**TEXT_ENCODERS, "unet": UNet2DConditionModel, "vae": AutoencoderKL}
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How pictures are drawn.

    Attributes:
        num_inference_steps: denoising steps for each picture.
        guidance_scale: weight of classifier-free guidance (arXiv 2207.12598); 1 or less turns it off.
        height, width: pixels; None takes the size that the UNet was trained for.
        batch_size: pictures denoised at once; it changes nothing but the last digits of the arithmetic.
        clip_skip: how many of the text encoder's last layers prompts go without; the negative prompt has all.
    """

    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    height: int | None = None
    width: int | None = None
    batch_size: int = BATCH_SIZE
    clip_skip: int = 0

    def __post_init__(self) -> None:
        """Raises `ConfigError` on a value that cannot be right."""
        for name in ("num_inference_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected 1 or more")
        if self.guidance_scale < 0:
            raise ConfigError(f"guidance_scale: found {self.guidance_scale}, expected 0 or more")
        if (self.height is None) != (self.width is None):
            raise ConfigError(f"found height {self.height} and width {self.width}, expected both or neither")


def drawing_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of a precision (`drawing.PRECISIONS`); `auto`: float32 on CPUs, float16 on GPUs."""
    return _DTYPES[precision] if precision != "auto" else torch.float32 if device.type == "cpu" else torch.float16


def load_pipeline(model: Path, *, device: torch.device, dtype: torch.dtype, sampler: str = "auto") -> Pipeline:
    """The pipeline of a local diffusers folder, with the scheduler that the folder names.

    There is no safety checker, nothing is fetched from a network, and no code that the folder brings is run.

    Args:
        model: the folder.
        device: where it draws.
        dtype: of its weights.
        sampler: one of `drawing.SAMPLERS`, instead of the scheduler that the folder names.

    Raises:
        BaseModelError: when the folder lacks a part or a part cannot be loaded, as of `load_module`.
    """
    if not (model / "model_index.json").is_file():
        raise BaseModelError(
            f"{model} has no model_index.json, expected a diffusers folder: import the base model again"
        )
    index = read_object(model / "model_index.json")
    if problems := pipeline_problems(index):
        raise BaseModelError(*problems)
    check_scheduler(model)
    # By its parts, not by the class it was saved as: one for drawing after a picture has the same parts.
    family = family_of(index, read_object(model / "unet" / "config.json"))
    parts: dict[str, Any] = {
        part: load_module(_MODULES[part], model / part, dtype=dtype)
        for part in (*(each.part for each in family.text_encoders), "unet", "vae")
    }
    parts |= {
        each.tokenizer: limit_to_text_encoder(load_tokenizer(model / each.tokenizer), model / each.part)
        for each in family.text_encoders
    }
    absent: dict[str, Any] = {part: None for part in ("safety_checker", "feature_extractor") if part in index}
    if "requires_safety_checker" in index:
        absent["requires_safety_checker"] = False
    try:
        pipeline: Pipeline = _PIPELINES[family.pipeline].from_pretrained(
            model,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            **parts,
            **absent,
        )
    except Exception as error:  # constructors, given fields of somebody else, raise whatever they run into
        raise BaseModelError(f"{model} cannot be loaded ({one_line(error)}): import the base model again") from error
    if not hasattr(pipeline.text_encoder, "text_model"):
        # Where diffusers 0.42 looks for the final norm with clip_skip; transformers 5.6 has it in the encoder itself.
        object.__setattr__(pipeline.text_encoder, "text_model", pipeline.text_encoder)
    pipeline.vae.enable_slicing()  # picture by picture: one of 1024 pixels takes gigabytes in fp32
    pipeline.scheduler = sampler_for(pipeline.scheduler, sampler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def load_concept(pipeline: Pipeline, file: Path) -> tuple[str, ...]:
    """The placeholder's tokens, after loading a learned-embedding file as users do: `load_textual_inversion`.

    In a prompt stands the placeholder alone, the first token, also when there are several: the pipeline
    itself replaces it by all of them. The tokens are in lower case, as CLIP's tokenizer reads every prompt: of others
    the pipeline would find the first alone.

    Raises:
        TokenError: when the placeholder is in the vocabulary already.
        BaseModelError: when the rows are for another family, or of another width than the text encoders.
    """
    header, rows = read_learned_embeds(file)
    token = header["placeholder_token"].lower()
    _check_rows(pipeline, token, rows, file)
    if len(rows) == 1:
        pipeline.load_textual_inversion(str(file.parent), weight_name=file.name, token=token, local_files_only=True)
    else:
        for encoder, values in rows.items():
            pipeline.load_textual_inversion(
                torch.from_numpy(values),
                token=token,
                tokenizer=getattr(pipeline, TOKENIZERS[encoder]),
                text_encoder=getattr(pipeline, encoder),
            )
    return placeholder_tokens(token, len(next(iter(rows.values()))))


def write_rows(pipeline: Pipeline, tokens: Sequence[str], rows: Rows) -> None:
    """Puts other rows, float32 [n, d] by text encoder, under tokens that `load_concept` gave."""
    for encoder, values in rows.items():
        ids = getattr(pipeline, TOKENIZERS[encoder]).convert_tokens_to_ids(list(tokens))
        weight = getattr(pipeline, encoder).get_input_embeddings().weight
        with torch.no_grad():
            weight[ids] = torch.from_numpy(np.ascontiguousarray(values)).to(weight)


def sample(
    pipeline: Pipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    config: SamplingConfig,
    *,
    negative_prompt: str = "",
    label: str = "sampling",
) -> list[np.ndarray]:
    """One picture, uint8 [H, W, 3], for each prompt and its seed.

    The starting noise of a picture comes from its own generator on the host, so it is the same in every batch
    and on every device. A picture whose pixels are not finite is black.

    Args:
        pipeline: from `load_pipeline`.
        prompts: the prompts, with the placeholder alone for a concept of several vectors.
        seeds: one for each prompt.
        config: how to draw.
        negative_prompt: what guidance leads away from; it may hold a learned placeholder. Empty: what the pipeline
            takes then, an empty prompt or zeros (`force_zeros_for_empty_prompt`).
        label: what the progress lines in the log begin with; empty for none.
    """
    pictures: list[np.ndarray] = []
    started = time.monotonic()
    pairs = list(zip(prompts, seeds, strict=True))
    for start in range(0, len(pairs), config.batch_size):
        batch = pairs[start : start + config.batch_size]
        output = pipeline(
            prompt=[prompt.lower() for prompt, _ in batch],
            negative_prompt=[negative_prompt.lower()] * len(batch) if negative_prompt else None,
            generator=[torch.Generator("cpu").manual_seed(seed) for _, seed in batch],
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            height=config.height,
            width=config.width,
            clip_skip=config.clip_skip or None,
            output_type="np",
        )
        pictures += [picture_bytes(picture) for picture in output.images]
        if label:
            logger.info("%s", progress_line(label, len(pictures), len(pairs), time.monotonic() - started))
    return pictures


def _check_rows(pipeline: Pipeline, token: str, rows: Rows, file: Path) -> None:
    encoders = {name: part for name, part in pipeline.components.items() if name in TOKENIZERS and part is not None}
    check_word_fits(
        str(file),
        row_widths(rows),
        {name: part.get_input_embeddings().weight.shape[1] for name, part in encoders.items()},
    )
    if any(token in getattr(pipeline, TOKENIZERS[name]).get_vocab() for name in encoders):
        raise TokenError(f"the placeholder {token!r} is in the tokenizer's vocabulary already: choose another one")
