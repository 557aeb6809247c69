"""The prompts of the paper, and what a placeholder token becomes in a prompt."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from components.common.errors import ConfigError
from components.common.families import ROWS_KEYS

OBJECT_TEMPLATES = (
    "a photo of a {}",
    "a rendering of a {}",
    "a cropped photo of the {}",
    "the photo of a {}",
    "a photo of a clean {}",
    "a photo of a dirty {}",
    "a dark photo of the {}",
    "a photo of my {}",
    "a photo of the cool {}",
    "a close-up photo of a {}",
    "a bright photo of the {}",
    "a cropped photo of a {}",
    "a photo of the {}",
    "a good photo of the {}",
    "a photo of one {}",
    "a close-up photo of the {}",
    "a rendition of the {}",
    "a photo of the clean {}",
    "a rendition of a {}",
    "a photo of a nice {}",
    "a good photo of a {}",
    "a photo of the nice {}",
    "a photo of the small {}",
    "a photo of the weird {}",
    "a photo of the large {}",
    "a photo of a cool {}",
    "a photo of a small {}",
)
"""The neutral contexts for an object: arXiv 2208.01618, supplementary "training prompt templates" (after CLIP's)."""

STYLE_TEMPLATES = (
    "a painting in the style of {}",
    "a rendering in the style of {}",
    "a cropped painting in the style of {}",
    "the painting in the style of {}",
    "a clean painting in the style of {}",
    "a dirty painting in the style of {}",
    "a dark painting in the style of {}",
    "a picture in the style of {}",
    "a cool painting in the style of {}",
    "a close-up painting in the style of {}",
    "a bright painting in the style of {}",
    "a cropped painting in the style of {}",
    "a good painting in the style of {}",
    "a close-up painting in the style of {}",
    "a rendition in the style of {}",
    "a nice painting in the style of {}",
    "a small painting in the style of {}",
    "a weird painting in the style of {}",
    "a large painting in the style of {}",
)
"""The same for a style. Two of them stand twice, as in the paper's list, and so are drawn twice as often."""

TEMPLATES = {"object": OBJECT_TEMPLATES, "style": STYLE_TEMPLATES}

_PLACEHOLDER = re.compile(r"[^\s,]+")
_BRACKETED = re.compile(r"<(?P<name>\w(?:[\w.-]*\w)?)>")
_SUFFIX = "-concept"
_ORDINARY = re.compile(rf"([^\W_]+|_+)({_SUFFIX})*")
_LONGEST_NAME = 100  # as a registry allows
_LONGEST_NAME_BYTES = 200  # file systems allow 255, and suffixes follow
_LONGEST_READABLE_BYTES = 60
_DIGITS = 8


def templates_for(learnable_property: str) -> tuple[str, ...]:
    """The paper's templates for `object` or `style`.

    Raises:
        ConfigError: for any other property.
    """
    if learnable_property not in TEMPLATES:
        raise ConfigError(f"learnable_property: found {learnable_property!r}, expected one of {', '.join(TEMPLATES)}")
    return TEMPLATES[learnable_property]


def placeholder_tokens(placeholder_token: str, num_vectors: int) -> tuple[str, ...]:
    """The tokens of a placeholder of several vectors: `<x>`, `<x>_1`, ..., `<x>_{num_vectors - 1}`.

    Raises:
        ConfigError: when `placeholder_token` is empty, holds white space or commas or is a key of learned-embedding
            files, or `num_vectors` is not positive.
    """
    if not _PLACEHOLDER.fullmatch(placeholder_token):
        raise ConfigError(
            f"placeholder_token: found {placeholder_token!r}, expected one word without spaces or commas, "
            "such as <cat-toy>"
        )
    if placeholder_token in (keys := {key for file_keys in ROWS_KEYS for key in file_keys}):
        raise ConfigError(
            f"placeholder_token: found {placeholder_token!r}, expected none of {', '.join(sorted(keys))}, by which a "
            f"file names its text encoders: choose another word, such as <{placeholder_token}>"
        )
    if num_vectors < 1:
        raise ConfigError(f"num_vectors: found {num_vectors}, expected 1 or more")
    return (placeholder_token, *(f"{placeholder_token}_{index}" for index in range(1, num_vectors)))


def concept_name(placeholder_token: str) -> str:
    """The placeholder as a folder's name: letters, digits, `-`, `_` and `.`, at most 100 characters.

    `<cat-toy>` is `cat-toy`. A placeholder that is no such name within angle brackets keeps what can be read of it,
    with the beginning of its SHA-256, so that no two placeholders share a name: `<🐱>` is `cat-face-` and 8 digits.
    """
    inner = _BRACKETED.fullmatch(placeholder_token)
    if inner and len(inner["name"]) <= _LONGEST_NAME and len(inner["name"].encode()) <= _LONGEST_NAME_BYTES:
        return inner["name"]
    readable = re.sub(r"[^\w.]+", "-", "".join(map(_readable, placeholder_token))).strip("-.")
    readable = readable.encode()[:_LONGEST_READABLE_BYTES].decode(errors="ignore").strip("-.")
    digest = hashlib.sha256(placeholder_token.encode()).hexdigest()[:_DIGITS]
    return f"{readable or 'concept'}-{digest}"


def trigger_word(placeholder_token: str) -> str:
    """The name of the file to install in AUTOMATIC1111 and ComfyUI, which is the word to write in a prompt there.

    It is `concept_name`, but never a word of letters and digits, or underscores, alone: those programs would put the
    concept wherever a prompt uses that word. So `<star>` is `star-concept` (and `<star-concept>` is
    `star-concept-concept`).
    """
    name = concept_name(placeholder_token)
    return f"{name}{_SUFFIX}" if _ORDINARY.fullmatch(name) else name


def _readable(character: str) -> str:
    if character.isascii() or not unicodedata.category(character).startswith("S"):
        return character
    return f"-{unicodedata.name(character, '').lower().replace(' ', '-')}-"
