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

_NAME = "[a-z0-9][a-z0-9.-]{0,63}"
_FRONT_MATTER = re.compile(rb"\s*---\r?\n(.*?)\n---\s", re.DOTALL)
_LINE = re.compile(rf"^license:[ \t]*([\"']?)({_NAME})\1[ \t]*\r?$".encode(), re.MULTILINE)
"""As the Hub writes it; all of YAML is not read, since the card is somebody else's and may be made to be slow."""


def is_license(name: str) -> bool:
    """Whether a licence can be called so on the Hub: `creativeml-openrail-m`, `apache-2.0`, `other`."""
    return re.fullmatch(_NAME, name) is not None


def license_of(source: ModelSource) -> str:
    """The licence that a model's card names; empty where it has no card, or one that names none.

    Raises:
        StorageError: when the source does not give the card.
    """
    if CARD not in source.files or source.files[CARD].size > LARGEST_CARD:
        return ""
    with tempfile.TemporaryDirectory() as scratch:
        card = source.fetch(CARD, Path(scratch)).read_bytes()
    front_matter = _FRONT_MATTER.match(card)
    found = front_matter and _LINE.search(front_matter[1])
    return found[2].decode() if found else ""
