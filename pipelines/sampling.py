"""Pictures from published concepts: what `textual-inversion sample` draws."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.common.artifacts import LEARNED_EMBEDS, read_clip_skip, read_learned_embeds, row_widths
from components.common.base_model import cache_folder, materialize
from components.common.drawing import (
    BATCH_SIZE,
    BATCH_SIZE_MEANING,
    PRECISION_MEANING,
    PRECISIONS,
    SAMPLER_MEANING,
    SAMPLERS,
    is_blank,
)
from components.common.errors import BaseModelError, ConfigError, InputError, TokenError
from components.common.families import (
    check_clip_skip,
    check_word_fits,
    conditioning_layers,
    text_config,
    text_encoders_of,
)
from components.common.learned_files import PICKLED, fetch_learned_embeds
from components.common.prompts import placeholder_tokens
from components.common.registry import registry
from components.common.sources.checks import read_configs, read_object
from components.common.sources.model_documents import config_problems, pipeline_problems
from components.import_base_model.importing import import_base_model
from components.publish.config import PublishConfig

logger = logging.getLogger(__name__)

_VERSION = re.compile(r"(?P<registry>.+)/(?P<concept>[^/@]+)/versions/(?P<which>\d+)/?")
_NAMED = re.compile(r"(?P<registry>.+)/(?P<concept>[^/@]+?)(@(?P<which>[^/@]+))?/?")
_PICKLED_EMBEDS = "learned_embeds.bin"
_PLACEHOLDER_LIKE = re.compile(r"<[^<>\s,]+>")

CONCEPT_HELP = (
    "a learned concept, several times for several: a .safetensors file, a version's address in a registry "
    "(.../cat-toy/versions/3), or a concept with a version or alias (.../cat-toy@champion, .../cat-toy@3); "
    f"without one, @{PublishConfig.registry_alias}"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Concept:
    """A learned concept on this machine.

    Attributes:
        placeholder_token: what stands in a prompt.
        file: its learned-embedding file.
        base_model: where the model that it was learned on came from; empty when that is not known.
    """

    placeholder_token: str
    file: Path
    base_model: str


def fetch_concept(address: str, folder: Path) -> Concept:
    """The concept at `address` (see `CONCEPT_HELP`), downloaded below `folder` if need be, and checked.

    Raises:
        InputError, ArtifactError, StorageError: when there is no such concept, or it is damaged.
    """
    if (Path(address) / LEARNED_EMBEDS).is_file() and not (Path(address) / "manifest.json").is_file():
        address = str(Path(address) / LEARNED_EMBEDS)
    elif (Path(address) / _PICKLED_EMBEDS).is_file():
        address = str(Path(address) / _PICKLED_EMBEDS)
    if address.lower().endswith((".safetensors", *PICKLED)):
        return _concept_of_file(address, folder)
    found = _VERSION.fullmatch(address) or _NAMED.fullmatch(address)
    if found is None:
        raise InputError(f"found the concept {address!r}, expected {CONCEPT_HELP}")
    entry = registry.resolve(found["registry"], found["concept"], found["which"] or PublishConfig.registry_alias)
    logger.info("%s is version %d of %s", entry.facts.placeholder_token, entry.version, entry.concept)
    registry.fetch(entry, folder / "version")
    return Concept(
        placeholder_token=entry.facts.placeholder_token,
        file=folder / "version" / LEARNED_EMBEDS,
        base_model=_learned_on(entry.facts.lineage),
    )


def _learned_on(lineage: Mapping[str, Any]) -> str:
    source = str(lineage.get("base_model", ""))
    if source.startswith("hf://"):
        return f"{source.partition('@')[0]}@{lineage['base_model_revision']}"
    return source


def _concept_of_file(address: str, folder: Path) -> Concept:
    file = fetch_learned_embeds(address, folder)
    token = read_learned_embeds(file)[0]["placeholder_token"]
    try:
        placeholder_tokens(token, 1)
    except ConfigError as error:
        raise TokenError(
            f"{address} is for {token!r}, which no prompt can name ({error}): where the file's name is the word, "
            "rename the file"
        ) from error
    return Concept(placeholder_token=token, file=file, base_model="")


def base_model_folder(source: str) -> Path:
    """The diffusers folder of a base model: a local one as it is, any other imported into this machine's cache.

    Raises:
        BaseModelError: when it lacks a part, cannot be fetched or is of another kind.
    """
    folder = Path(os.path.expanduser(source))
    if (index := folder / "model_index.json").is_file():
        if problems := pipeline_problems(read_object(index)):
            raise BaseModelError(*(f"{folder}: {problem}" for problem in problems))
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        return materialize(import_base_model(source, str(cache_folder() / "store"), Path(scratch) / "reference"))


def check_prompts(prompts: Sequence[str], concepts: Sequence[Concept]) -> None:
    """Checks that prompts and concepts fit: a picture would show something else than was asked for.

    Args:
        prompts: all prompts, the negative one among them.
        concepts: all concepts.

    Raises:
        TokenError: when a prompt names a placeholder that no concept has, a concept is named by no prompt, or two
            concepts have one placeholder.
    """
    known = [concept.placeholder_token for concept in concepts]
    if len(set(known)) != len(known):
        raise TokenError(f"found several concepts with one placeholder ({', '.join(known)}): give each one once")
    for prompt in prompts:
        for token in _PLACEHOLDER_LIKE.findall(prompt):
            if token not in known:
                raise TokenError(
                    f"found {token} in {prompt!r}, expected one of {', '.join(known)}: "
                    "correct the prompt, or give its concept by --concept"
                )
    for token in known:
        if not any(token.lower() in prompt.lower() for prompt in prompts):
            raise TokenError(
                f"found no {token} in {', '.join(repr(prompt) for prompt in prompts if prompt)}: its concept would "
                f"change nothing; write {token} in a --prompt or in --negative-prompt, or leave the concept out"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """What to draw: `count` pictures for each prompt, the n-th with seed + n."""

    prompts: tuple[str, ...]
    negative_prompt: str
    count: int
    seed: int
    num_inference_steps: int
    guidance_scale: float
    accelerator: str
    sampler: str = SAMPLERS[0]
    sampling_precision: str = PRECISIONS[0]
    sampling_batch_size: int = BATCH_SIZE

    def __post_init__(self) -> None:
        """Raises `ConfigError` on a value that cannot be right."""
        for name in ("count", "sampling_batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected 1 or more")
        if self.seed < 0:
            raise ConfigError(f"seed: found {self.seed}, expected 0 or more")


def add_sample_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `textual-inversion sample`."""
    parser.add_argument("--concept", action="append", required=True, metavar="ADDRESS", help=CONCEPT_HELP)
    parser.add_argument("--prompt", action="append", required=True, help="what to draw; several times for several")
    parser.add_argument("--negative-prompt", default="", help="what guidance leads away from; may hold a placeholder")
    parser.add_argument("--count", type=int, default=4, help="pictures for each prompt (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first picture of a prompt (default: 0)")
    parser.add_argument("--num-inference-steps", type=int, default=50, help="denoising steps (default: %(default)s)")
    parser.add_argument("--guidance-scale", type=float, default=7.5, help="weight of guidance (default: %(default)s)")
    parser.add_argument("--sampler", choices=SAMPLERS, default=SAMPLERS[0], help=f"{SAMPLER_MEANING} (default: auto)")
    parser.add_argument(
        "--sampling-precision", choices=PRECISIONS, default=PRECISIONS[0], help=f"{PRECISION_MEANING} (default: auto)"
    )
    parser.add_argument(
        "--sampling-batch-size", type=int, default=BATCH_SIZE, help=f"{BATCH_SIZE_MEANING} (default: %(default)s)"
    )
    parser.add_argument(
        "--base-model",
        default="",
        metavar="ADDRESS",
        help="folder, hf://, gs:// or s3:// (default: what it was learned on)",
    )
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="gpu", help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/samples"), help="folder (default: %(default)s)")


def request_from(arguments: argparse.Namespace) -> SampleRequest:
    """What the parsed flags of `add_sample_flags` ask for.

    Raises:
        ConfigError: on a value that cannot be right.
    """
    values = {field.name: getattr(arguments, field.name, None) for field in dataclasses.fields(SampleRequest)}
    return SampleRequest(**{**values, "prompts": tuple(arguments.prompt)})  # type: ignore[arg-type]


def draw(request: SampleRequest, addresses: Sequence[str], base_model: str, out: Path) -> list[Path]:
    """The files of the pictures, one PNG each, and `grid.png` with all of them, in `out`.

    Args:
        request: what to draw.
        addresses: the concepts.
        base_model: a folder or address; empty takes the one that the first concept was learned on.
        out: a folder, made if need be.

    Raises:
        InputError, ArtifactError, StorageError: when a concept or the base model cannot be used.
    """
    with _fetched(addresses) as concepts:
        check_prompts([*request.prompts, request.negative_prompt], concepts)
        source = base_model or concepts[0].base_model
        if not source:
            raise ConfigError(f"{addresses[0]} does not say what it was learned on: give the model by --base-model")
        model = base_model_folder(source)
        _check_words_fit(concepts, model)
        pictures = _sample(request, concepts, model)
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{index:04d}.png" for index in range(len(pictures))]
    for file, pixels in zip(files, pictures, strict=True):
        Image.fromarray(pixels).save(file)
    grid(pictures, columns=request.count).save(out / "grid.png")
    return [*files, out / "grid.png"]


@contextlib.contextmanager
def _fetched(addresses: Sequence[str]) -> Iterator[list[Concept]]:
    with tempfile.TemporaryDirectory() as scratch:
        yield [fetch_concept(address, Path(scratch) / str(i)) for i, address in enumerate(addresses)]


def _check_words_fit(concepts: Sequence[Concept], model: Path) -> None:
    encoders = text_encoders_of([folder.name for folder in model.iterdir()])
    configs = read_configs(model, (each.part for each in encoders))
    for each in encoders:
        if problems := config_problems(configs[each.part], f"{model}/{each.part}/config.json", each.class_name):
            raise BaseModelError(*problems)
    of_model = {part: text_config(config).get("hidden_size") or 0 for part, config in configs.items()}
    layers = conditioning_layers(encoders, configs)
    for concept in concepts:
        _, rows = read_learned_embeds(concept.file)
        check_word_fits(concept.placeholder_token, row_widths(rows), of_model)
        try:
            check_clip_skip(read_clip_skip(concept.file), layers)
        except ConfigError as error:
            raise InputError(f"{concept.placeholder_token}: {error}: use the base model of the word") from error


def _sample(request: SampleRequest, concepts: Sequence[Concept], model: Path) -> list[np.ndarray]:
    import torch

    from components.torch_models.loading import device_for
    from components.torch_models.sampling import drawing_dtype

    device = device_for(request.accelerator)
    dtype = drawing_dtype(request.sampling_precision, device)
    pictures = _drawn_in(request, concepts, model, device, dtype)
    blank = sum(is_blank(picture) for picture in pictures)
    if not blank or dtype == torch.float32:
        return pictures
    logger.warning("%d of %d pictures are blank in %s: all are drawn once more, in fp32", blank, len(pictures), dtype)
    return _drawn_in(request, concepts, model, device, torch.float32)


def _drawn_in(
    request: SampleRequest, concepts: Sequence[Concept], model: Path, device: Any, dtype: Any
) -> list[np.ndarray]:
    from components.torch_models.sampling import SamplingConfig, load_concept, load_pipeline, sample

    pipeline: Any = load_pipeline(model, device=device, dtype=dtype, sampler=request.sampler)
    clip_skips = {read_clip_skip(concept.file) for concept in concepts}
    if len(clip_skips) > 1:
        raise InputError(
            f"found concepts that were learned with clip_skip {', '.join(map(str, sorted(clip_skips)))}, expected the "
            "same for all: draw with each on its own"
        )
    for concept in concepts:
        load_concept(pipeline, concept.file)
    shots = [prompt for prompt in request.prompts for _ in range(request.count)]
    return sample(
        pipeline,
        shots,
        [request.seed + index % request.count for index in range(len(shots))],
        SamplingConfig(
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            batch_size=request.sampling_batch_size,
            clip_skip=max(clip_skips),
        ),
        negative_prompt=request.negative_prompt,
    )


def grid(pictures: Sequence[np.ndarray], *, columns: int) -> Image.Image:
    """All pictures (uint8 [H, W, 3], one size) in one, row by row."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for index, pixels in enumerate(pictures):
        sheet.paste(Image.fromarray(pixels), ((index % columns) * width, (index // columns) * height))
    return sheet
