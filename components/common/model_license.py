"""The licence of a model, by the name that the Hugging Face Hub has for it."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.common.sources.models import ModelSource

CARD = "README.md"
LARGEST_CARD = 256 * 2**10
"""Bytes of a card that is read."""

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")


def is_license(name: str) -> bool:
    """Whether a licence can be called so on the Hub: `creativeml-openrail-m`, `apache-2.0`, `other`."""
    return _LICENSE.fullmatch(name) is not None


def license_of(source: ModelSource) -> str:
    """The licence that a model's card names; empty where it has no card, or one that names none.

    Raises:
        StorageError: when the source does not give the card.
    """
    if CARD not in source.files or source.files[CARD].size > LARGEST_CARD:
        return ""
    from huggingface_hub.repocard import metadata_load
    from yaml import YAMLError

    with tempfile.TemporaryDirectory() as scratch:
        card = source.fetch(CARD, Path(scratch))
        try:
            found = (metadata_load(card) or {}).get("license")
        except (YAMLError, ValueError, RecursionError):  # a card is for people, and no run fails because of it
            return ""
    return found if isinstance(found, str) and is_license(found) else ""
