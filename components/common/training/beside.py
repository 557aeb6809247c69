"""What a training leaves beside its checkpoints, under `{checkpoint_root}/{training_key}`, and how it is called.

- `metrics.jsonl`: the numbers up to the newest checkpoint
- `learned_embeds-steps-500.safetensors`: the rows at a step, as diffusers loads them
- `previews/step-00000500/0.png`: pictures drawn from them
- `tensorboard/events.out.tfevents...`: TensorBoard's event files
"""

from __future__ import annotations

import re

from components.common.training import metrics

TENSORBOARD = "tensorboard"
_SHOWN = 12
"""Characters of a training's key that name its folder in a `logging_dir`."""
_OBJECT = re.compile(
    r"(?P<training>[0-9a-f]{64})/"
    rf"({re.escape(metrics.FILE)}|learned_embeds-steps-\d+\.safetensors|previews/step-\d{{8,}}/\d+\.png|"
    rf"{TENSORBOARD}/events\.out\.tfevents\.[^/]+)"
)


def metrics_key(training_key: str) -> str:
    """Where the numbers are, below the checkpoint root."""
    return f"{training_key}/{metrics.FILE}"


def snapshot_key(training_key: str, step: int) -> str:
    """Where the rows of a step are, called as the reference script calls them."""
    return f"{training_key}/learned_embeds-steps-{step}.safetensors"


def previews_key(training_key: str, step: int) -> str:
    """The folder of the pictures of a step."""
    return f"{training_key}/previews/step-{step:08d}"


def events_uri(checkpoint_root: str, training_key: str, logging_dir: str) -> str:
    """The folder, or the address in object storage, of a training's event files: in `logging_dir` if that is given."""
    if logging_dir:
        return f"{logging_dir.rstrip('/')}/{training_key[:_SHOWN]}"
    return f"{checkpoint_root.rstrip('/')}/{training_key}/{TENSORBOARD}"


def training_of(key: str) -> str | None:
    """The key of the training beside whose checkpoints an object lies that is called so; None for any other object."""
    found = _OBJECT.fullmatch(key)
    return found and found["training"]
