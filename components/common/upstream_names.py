"""The arguments of diffusers' Textual Inversion scripts that are called otherwise here, or are not here, and why.

The scripts are `textual_inversion.py`, with its dataset, `textual_inversion_sdxl.py` and `textual_inversion_flax.py`,
started by `accelerate launch`. Most of their arguments are options here, under the same name.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

HINTS = {
    "pretrained_model_name_or_path": "it is base_model here: hf://owner/name, gs://..., s3://... or a local folder",
    "revision": "it is part of base_model here: hf://owner/name@revision",
    "variant": "it is base_model_variant here",
    "non_ema_revision": "name the revision with those weights in base_model: hf://owner/name@revision",
    "tokenizer_name": "the tokenizer is the base model's own, whose rows its text encoder has: give a base_model with "
    "that tokenizer in its folder tokenizer",
    "train_data_dir": "it is images_uri here: hf://datasets/owner/name, gs://..., s3://... or a local folder",
    "output_dir": "what is learned is published below storage_uri; what `textual-inversion run` makes goes below --out",
    "size": "it is resolution here",
    "flip_p": "it is flip_probability here",
    "set": "the pictures of images_uri are all for training: scoring_images_uri names those to score against",
    "power": "it is lr_power here",
    "validation_epochs": "it is validation_steps here",
    "no_safe_serialization": "it is also_bin here: the pickled file, which can run code, comes beside safetensors",
    "hub_token": "everybody could read a token on a form: it is the environment variable HF_TOKEN, which pods have "
    "from the secret textual-inversion-hub-token",
    "use_auth_token": "it is the environment variable HF_TOKEN here",
    "streaming": "the few pictures are encoded once, before training",
    "local_rank": "the launcher says it in the environment",
    "num_processes": "it is accelerator_count, and num_nodes for several machines, here",
    "num_machines": "it is num_nodes here",
}
"""Why there is no such option, and what to do, by the name in the scripts."""


_LONGEST_NAME = 100
"""Characters of a name that are looked at: comparing takes as long as their square."""


def no_such_option(name: str, known: Collection[str]) -> str:
    """What to tell who gave an option that is none: its hint, or the one of the known names that comes close."""
    if name in HINTS:
        return f"{name}: there is no such option: {HINTS[name]}"
    close = difflib.get_close_matches(name[:_LONGEST_NAME], known, n=1)
    return f"{name}: there is no such option" + (f"; did you mean {close[0]}?" if close else "")
