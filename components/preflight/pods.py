"""What the pods of a run ask for that hold a model: by the model's size, where nobody has said."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from components.common.accelerators import PodAccelerators
from components.common.held_out_draws import SAMPLES_AT_ONCE
from components.common.images import training_image
from components.common.start_word import AUTO
from components.preflight.options import CheckedOptions
from components.train.frameworks import FRAMEWORKS

GIB = 2**30
_LARGE = GIB
"""Bytes of weights from which on a step has use for more than one processor."""

_FRAMEWORK_GIB = 2
"""What Python, PyTorch or JAX and the libraries around them take before a model is loaded."""

_SAVED = 10_000
"""Bytes for each pixel of a picture that training in fp32 keeps for the gradient: at a model's own size 5,600 were
counted with Stable Diffusion 1.x, 5,300 with 2.x, 9,800 with XL."""

_CODED = 5_200
"""Bytes for each pixel of a picture that the VAE takes in fp32: 5,200 were counted where it encodes a picture with its
mirror image, 4,200 where it decodes one."""

_DENOISED = 800
"""Bytes for each pixel of each sample that goes through the UNet in fp32 without a gradient, as was counted."""

_LAUNCHER = {"cpu": "500m", "memory": "1Gi"}
"""What a pod takes that waits for a TrainJob."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pod:
    """What one pod asks for, in Kubernetes' notation.

    Attributes:
        cpu: processors.
        memory: memory.
        accelerator: the Kubernetes resource of the accelerator.
        accelerator_count: how many of it, as text; `0` for none.
        node_selector: labels of its node.
    """

    cpu: str
    memory: str
    accelerator: str
    accelerator_count: str
    node_selector: Mapping[str, str]


def encoding_pod(options: CheckedOptions, *, model: int) -> Pod:
    """The pod that encodes pictures, and that words are measured in; `model`: bytes of the base model's weights."""
    run = options.run
    held = 2 * model + _activations(options, run.encoding_pod, max(_CODED, SAMPLES_AT_ONCE * _DENOISED))
    return _pod(run.encoding_pod, run.encoding_cpu or _cpu(model), run.encoding_memory or _memory(held))


def evaluation_pod(options: CheckedOptions, *, model: int, scorer: int) -> Pod:
    """The pod that draws and scores samples.

    Args:
        options: what a person asks for.
        model: bytes of the base model's weights.
        scorer: bytes of the weights of all that looks at samples.
    """
    run, both, at_once = options.run, model + scorer, options.evaluation.sampling_batch_size
    held = 2 * both + _activations(options, run.evaluation_pod, max(_CODED, 2 * at_once * _DENOISED))
    return _pod(run.evaluation_pod, run.evaluation_cpu or _cpu(both), run.evaluation_memory or _memory(held))


def training_pod(options: CheckedOptions, *, model: int) -> Pod:
    """Each pod that trains. Each of its GPUs has a process, which holds the model while it is loaded.

    A compiler for TPUs holds it once more. What draws pictures while it trains is a process more.
    """
    run, at_once = options.run, options.training.train_batch_size
    processes = max(1, run.training_pod.count) if FRAMEWORKS[options.framework].process_per_device else 1
    times = 4 if run.accelerator == "tpu" else 3
    drawing = _FRAMEWORK_GIB + 2 * model / GIB if options.watching.draws else 0
    held = times * model + _activations(options, run.training_pod, at_once * _SAVED)
    memory = run.memory_per_node or _memory(held, processes=processes, beside=drawing)
    return _pod(run.training_pod, run.cpu_per_node or _cpu(model, processes=processes), memory)


def training_image_and_pod(options: CheckedOptions, trains: Pod) -> tuple[str, Pod]:
    """The name of the training step's image, and what its pod asks for: to train, or to wait for those that do."""
    if options.nodes.num_nodes > 1:
        return training_image("nodes"), _pod(PodAccelerators(kind="cpu", count=0), **_LAUNCHER)
    return training_image(options.framework, options.run.accelerator), trains


def searches_for_hours(options: CheckedOptions, *, model: int) -> bool:
    """Whether a word is looked for with a large model and no accelerator; `model`: bytes of the model's weights."""
    looked_for = any(word.word.initializer_token == AUTO for word in options.words)
    return looked_for and model >= _LARGE and options.run.encoding_pod.kind == "cpu"


def outputs_of(name: str, pod: Pod) -> dict[str, Any]:
    """The pod's fields as outputs of the step, each with `name` before its own."""
    return {f"{name}_{field}": value for field, value in dataclasses.asdict(pod).items()}


def _pod(accelerators: PodAccelerators, cpu: str, memory: str) -> Pod:
    return Pod(
        cpu=cpu,
        memory=memory,
        accelerator=accelerators.kubernetes_resource,
        accelerator_count=str(accelerators.count),
        node_selector=dict(accelerators.node_selector),
    )


def _cpu(weights: int, *, processes: int = 1) -> str:
    return str(max(processes, 4 if weights >= _LARGE else 1))


def _activations(options: CheckedOptions, pod: PodAccelerators, per_pixel: int) -> int:
    """Bytes beside the weights in the pod's own memory, where no accelerator has them in its."""
    return options.pictures.resolution**2 * per_pixel if pod.kind == "cpu" else 0


def _memory(held: int, *, processes: int = 1, beside: float = 0) -> str:
    return f"{math.ceil(processes * (_FRAMEWORK_GIB + held / GIB) + beside)}Gi"
