"""Learned-embedding files of others, wherever they are."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from pathlib import Path

from components.common.artifact_folder import sha256_of_file
from components.common.artifacts import LEARNED_EMBEDS, Rows, read_learned_embeds, row_widths
from components.common.errors import ArtifactError, InputError, ObjectNotFoundError
from components.common.families import check_word_fits
from components.common.registry.entry import RegistryEntry
from components.common.registry.registry import resolve
from components.common.storage import open_store, split_uri

PICKLED = (".pt", ".bin", ".pth", ".ckpt")
"""Suffixes of files that can run code when they are read."""

PUBLISHED = "registry:"
"""What the address of a concept of the run's own registry begins with: `registry:CONCEPT@ALIAS_OR_VERSION`."""

CHAMPION = "champion"
"""What stands for the address of the version that the alias of the concept itself points at, where there is one."""

_PUBLISHED = re.compile(rf"{PUBLISHED}(?P<concept>[^/@]+)@(?P<which>[^/@]+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExistingEmbedding:
    """What a learned-embedding file holds.

    Attributes:
        address: where it is.
        sha256: of its bytes.
        rows: float32 [n, d] by text encoder.
    """

    address: str
    sha256: str
    rows: Rows

    def check_widths(self, widths: dict[str, int]) -> None:
        """Raises `BaseModelError` unless the rows are as wide as the text encoders, by subfolder of the base model."""
        check_word_fits(f"initializer_embedding: {self.address}", row_widths(self.rows), widths)


def mistakes_of_published(address: str) -> list[str]:
    """What is wrong with an address that begins as one in the run's own registry."""
    if address.startswith(PUBLISHED) and not _PUBLISHED.fullmatch(address):
        return [f"found {address!r}, expected {PUBLISHED}CONCEPT@ALIAS_OR_VERSION, such as {PUBLISHED}cat-toy@champion"]
    return []


def read_embedding_for_run(address: str, registry_uri: str) -> ExistingEmbedding:
    """The embedding at `address`, of which an alias in the run's own registry is followed to a version's file.

    A version never changes, so the address in what is returned is of the same bytes for whoever reads it later.

    Raises:
        InputError: when there is none, or it is no such file, or damaged.
        ObjectNotFoundError: when there is no such alias or version.
        StorageError: when it cannot be read.
    """
    published = _PUBLISHED.fullmatch(address)
    if not published:
        return read_existing_embedding(address)
    try:
        entry = resolve(registry_uri, published["concept"], published["which"])
    except ArtifactError as error:
        raise InputError(str(error)) from error
    return read_published_embedding(entry)


def read_published_embedding(entry: RegistryEntry) -> ExistingEmbedding:
    """The embedding of a version.

    Raises:
        InputError: when it is damaged.
        StorageError: when it cannot be read.
    """
    existing = read_existing_embedding(f"{entry.uri}/{LEARNED_EMBEDS}")
    if LEARNED_EMBEDS not in entry.files or entry.files[LEARNED_EMBEDS].sha256 != existing.sha256:
        raise InputError(
            f"{existing.address} does not match the manifest of its version, which is damaged: publish the same "
            "embedding again, which mends it, or start from another version"
        )
    return existing


def fetch_learned_embeds(address: str, folder: Path) -> Path:
    """The file at `address`, downloaded into `folder`.

    Raises:
        InputError: when it is pickled or no address of a file.
        StorageError: when it cannot be read.
    """
    if address.lower().endswith(PICKLED):
        raise InputError(
            f"{address} is pickled, which can run code, and is not opened: convert it once with torch.load(FILE, "
            "weights_only=True) and safetensors.torch.save_file({WORD: ROWS}, 'WORD.safetensors'), and give that file"
        )
    parent, name = split_uri(address)
    open_store(parent).download_file(name, folder / name)
    return folder / name


def read_existing_embedding(address: str) -> ExistingEmbedding:
    """The embedding at `address`, a file of diffusers, AUTOMATIC1111 or ComfyUI.

    Raises:
        InputError: when there is none, or it is no such file.
        StorageError: when it cannot be read.
    """
    with tempfile.TemporaryDirectory() as scratch:
        try:
            file = fetch_learned_embeds(address, Path(scratch))
            rows = read_learned_embeds(file)[1]
        except ObjectNotFoundError as error:
            raise InputError(f"{error}: give the address of a learned embedding") from error
        except ArtifactError as error:
            raise InputError(str(error).replace(scratch, address.rpartition("/")[0])) from error
        return ExistingEmbedding(address=address, sha256=sha256_of_file(file), rows=rows)
