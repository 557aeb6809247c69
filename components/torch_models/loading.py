"""The parts of a base model as torch modules, frozen, from a local diffusers folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedModel
from transformers.utils import logging as transformers_logging

from components.common.errors import BaseModelError, ConfigError
from components.common.families import TEXT_CLASSES, Family
from components.common.sources.checks import read_object
from components.common.sources.model_documents import scheduler_problems
from components.common.storage.retries import one_line
from components.common.tensors import StoredTensor
from components.common.training.config import check_accelerator
from components.common.weights import check_keys, is_beside, not_finite, weights_of, wrong_shape
from components.torch_models.cpu_linear import onednn_is_faster, this_processor, with_pointwise_linears

logger = logging.getLogger(__name__)

WEIGHT_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""The dtype of frozen weights by `mixed_precision`."""

TEXT_ENCODERS: dict[str, Any] = {
    part: {kind.__name__: kind for kind in (CLIPTextModel, CLIPTextModelWithProjection)}[class_name]
    for part, class_name in TEXT_CLASSES.items()
}
"""The class of each text encoder."""

_MOST_TIMES_AS_MANY = 2
"""How many times as large as its weights a model may be for memory to be taken for what is missing."""

Module = TypeVar("Module", bound=nn.Module)


def device_for(accelerator: str) -> torch.device:
    """The device that `accelerator` (`cpu` or `gpu`) names.

    Raises:
        ConfigError: when it is unknown, or a GPU is asked for and there is none: never a silent fall-back.
    """
    check_accelerator(accelerator)
    if accelerator == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            f"accelerator: gpu was asked for, but torch {torch.__version__} sees no CUDA device here: "
            "run on a GPU machine, or choose accelerator=cpu"
        )
    return torch.device("cuda")


def describe_device(device: torch.device, processes: int = 1) -> str:
    """The devices of a run for a person: `1 x NVIDIA H100`, or `1 x cpu`."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{processes} x {name}"


def load_text_encoder(
    model: Path, part: str = "text_encoder", *, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """The frozen CLIP text encoder in the model's folder `part`."""
    return _placed(load_module(TEXT_ENCODERS[part], model / part, dtype=dtype), device)


def load_text_encoders(
    model: Path, family: Family, *, dtype: torch.dtype, device: torch.device
) -> dict[str, PreTrainedModel]:
    """The frozen text encoders of a model of `family`, by their folders."""
    return {each.part: load_text_encoder(model, each.part, dtype=dtype, device=device) for each in family.text_encoders}


def load_unet(model: Path, *, dtype: torch.dtype, device: torch.device) -> UNet2DConditionModel:
    """The frozen UNet in the model's folder `unet`."""
    return _placed(load_module(UNet2DConditionModel, model / "unet", dtype=dtype), device)


def load_vae(model: Path, *, device: torch.device) -> AutoencoderKL:
    """The frozen VAE in the model's folder `vae`, in float32: it runs once a picture, and SDXL's overflows in fp16."""
    return _placed(load_module(AutoencoderKL, model / "vae", dtype=torch.float32), device)


def load_noise_scheduler(model: Path) -> DDPMScheduler:
    """The training noise scheduler with the betas and the prediction type of the model's folder `scheduler`.

    Raises:
        BaseModelError: when the folder's schedule cannot be right, or nothing can be trained by it.
    """
    check_scheduler(model)
    try:
        return DDPMScheduler.from_pretrained(model, subfolder="scheduler", local_files_only=True)
    except Exception as error:  # a constructor, given fields of somebody else
        raise BaseModelError(f"{model / 'scheduler'} cannot be loaded ({one_line(error)}): import it again") from error


def check_scheduler(model: Path) -> None:
    """Raises `BaseModelError` unless the noise schedule in the model's folder `scheduler` can be right."""
    file = model / "scheduler" / "scheduler_config.json"
    if problems := scheduler_problems(read_object(file), str(file)):
        raise BaseModelError(*problems)


def load_module(kind: type[Module], folder: Path, *, dtype: torch.dtype, **constructor: Any) -> Module:
    """The frozen model of class `kind` in a folder of its own, on the CPU: all of its weights, and no others.

    diffusers and transformers fill what is missing with random numbers and go on; here nothing is filled. From here on
    they draw no progress bars and report no weights: in a pod's log these are torn lines.

    Args:
        kind: the class.
        folder: with config.json and the weights.
        dtype: of the weights in memory.
        constructor: what the class is told beside its configuration.

    Raises:
        BaseModelError: when config.json is of another model or cannot be right, and by the names of tensors when some
            are missing, unexpected, of another shape, or not finite in `dtype`.
    """
    name = kind.__name__
    stored = weights_of(folder, name)
    _silence_libraries()
    of_transformers = issubclass(kind, PreTrainedModel)
    options: dict[str, Any] = {"dtype" if of_transformers else "torch_dtype": dtype}
    try:
        _check_amount(_skeleton(kind, folder), stored, folder)
        module, found = kind.from_pretrained(  # type: ignore[attr-defined]
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, by name
            **options,
            **constructor,
        )
    except BaseModelError:
        raise
    except Exception as error:  # constructors, given fields of somebody else, raise whatever they run into
        raise BaseModelError(f"{folder} cannot be loaded ({one_line(error)}): import the base model again") from error
    unexpected = {key for key in found["unexpected_keys"] if not is_beside(key, name)}
    check_keys(missing=found["missing_keys"], unexpected=unexpected, folder=folder)
    for key, shape, expected in sorted(found["mismatched_keys"]):
        raise wrong_shape(key, shape, expected, folder)
    for key, parameter in module.named_parameters():
        # 0.25 s for 1e9 numbers in float32, a tenth of what isfinite takes; NaN is smallest and largest.
        if parameter.numel() and not all(torch.isfinite(end) for end in torch.aminmax(parameter)):
            raise not_finite(key, str(parameter.dtype).removeprefix("torch."), folder)
    logger.info("loaded %s: %.1f M parameters, %s", folder.name, _parameters(module) / 1e6, dtype)
    return module.requires_grad_(False).eval()


def _skeleton(kind: type[Module], folder: Path) -> Module:
    """The model that config.json describes, without memory for its weights."""
    with torch.device("meta"):
        if issubclass(kind, PreTrainedModel):
            config = kind.config_class.from_pretrained(folder, local_files_only=True)  # type: ignore[attr-defined]
            return kind(config)
        return kind.from_config(kind.load_config(folder, local_files_only=True))  # type: ignore[attr-defined]


def _check_amount(skeleton: nn.Module, stored: Mapping[str, StoredTensor], folder: Path) -> None:
    """Refuses what is far larger than its weights, before memory is taken for it; the rest is told after loading.

    Only then: names of earlier releases are known to the libraries alone.
    """
    if _parameters(skeleton) <= _MOST_TIMES_AS_MANY * sum(tensor.size for tensor in stored.values()):
        return
    missing = []
    for key, value in skeleton.state_dict().items():
        tensor = stored.get(key) or stored.get(f"text_model.{key}")
        if tensor is None:
            missing.append(key)
        elif tensor.shape != tuple(value.shape):
            raise wrong_shape(key, tensor.shape, value.shape, folder)
    check_keys(missing=missing, unexpected=(), folder=folder)


def _silence_libraries() -> None:
    diffusers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def _placed(module: Module, device: torch.device) -> Module:
    in_fp32_on_cpu = device.type == "cpu" and next(module.parameters()).dtype == torch.float32
    if in_fp32_on_cpu and onednn_is_faster(this_processor()):
        with_pointwise_linears(module)
    return module.to(device)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
