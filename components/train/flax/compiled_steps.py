"""Compiled steps kept in object storage, so that a restarted or repeated training does not compile for minutes again.

JAX can keep compiled functions in a folder. A pod's folders end with the pod, so what the folder holds of one program
is fetched from the checkpoint root before it is compiled and put there afterwards:

    {checkpoint root}/compiled/{digest of the program}/...      as JAX names them: a SHA-256, then what JAX wrote

JAX reads its entries by a key over the program, its own version, the compiler's flags and the devices, so that an entry
of another machine is never taken. The SHA-256 is over the object's key and the entry: JAX gets none that was damaged,
cut short or moved here from another program; such a one is compiled and written again.

No pickle is read: an entry is a compressed executable of XLA, which the device's runtime loads. But what is loaded runs
as code, and a SHA-256 that anybody can compute is no signature: who may write below the checkpoint root can run code in
the trainers. Nobody else than trainers needs to write there.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from components.common.errors import ObjectNotFoundError, StorageError
from components.common.storage import ObjectStore

logger = logging.getLogger(__name__)

_DIGEST_BYTES = hashlib.sha256().digest_size
COMPILED = "compiled"
"""The folder of compiled steps below the checkpoint root."""
_FOLDER_OPTION = "jax_compilation_cache_dir"


def compiler_for(platform: str, store: ObjectStore) -> Callable[[jax.stages.Lowered], jax.stages.Compiled]:
    """What compiles a step for devices of a platform: with the checkpoint root's store, or as JAX's options have it.

    A folder that the user chose (JAX_COMPILATION_CACHE_DIR) wins. On CPUs nothing is kept: they differ in instructions
    that compiled code may use, and compile in seconds.
    """
    if folder := getattr(jax.config, _FOLDER_OPTION):
        logger.info("compiled steps are kept in %s, as %s asks", folder, _FOLDER_OPTION.upper())
    elif platform != "cpu":
        logger.info("compiled steps are kept in %s", store.uri_of(COMPILED))
        return functools.partial(compile_or_fetch, store=store)
    return jax.stages.Lowered.compile


def compile_or_fetch(lowered: jax.stages.Lowered, store: ObjectStore) -> jax.stages.Compiled:
    """The compiled function; from `store` when it has been compiled before, else `store` has it from now on.

    Storage that fails costs a compilation and a warning. Of several processes the first one writes; all read.
    """
    prefix = f"{COMPILED}/{hashlib.sha256(lowered.as_text().encode()).hexdigest()}"
    with tempfile.TemporaryDirectory(prefix="compiled-") as scratch:
        folder = Path(scratch)
        try:
            if not _fetch(store, prefix, folder):
                logger.info("%s: not compiled before", store.uri_of(prefix))
        except StorageError as error:
            logger.warning("a step that was compiled before cannot be fetched: %s", error)
        before = _files(folder)
        compiled = _compile_in(lowered, folder)
        try:
            for path in _files(folder) - before:
                key, entry = f"{prefix}/{path.name}", path.read_bytes()
                store.write(key, _digest(key, entry) + entry)
        except StorageError as error:
            logger.warning("the compiled step is not kept for the next start: %s", error)
    return compiled


def _fetch(store: ObjectStore, prefix: str, folder: Path) -> int:
    """How many sound entries below `prefix` are in the folder now; damaged ones are passed over with a warning."""
    found = 0
    for info in store.list(f"{prefix}/"):
        try:
            data = store.read(info.key)
        except ObjectNotFoundError as error:
            logger.info("deleted meanwhile: %s", error)
            continue
        digest, entry = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if digest != _digest(info.key, entry):
            logger.warning("%s is damaged, or of an earlier release: it is compiled again", store.uri_of(info.key))
            continue
        (folder / info.key.rpartition("/")[2]).write_bytes(entry)
        found += 1
    return found


def _digest(key: str, entry: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\n" + entry).digest()


def _compile_in(lowered: jax.stages.Lowered, folder: Path) -> jax.stages.Compiled:
    """The compiled function, with `folder` for JAX to read and write compiled functions."""
    # XLA's own caches would make the folder's name a part of JAX's key.
    options = {_FOLDER_OPTION: str(folder), "jax_persistent_cache_enable_xla_caches": "none"}
    before = {name: getattr(jax.config, name) for name in options}
    _set_options(options)
    try:
        return lowered.compile()
    finally:
        _set_options(before)


def _set_options(options: Mapping[str, str | None]) -> None:
    for name, value in options.items():
        jax.config.update(name, value)
    reset_cache()  # JAX looks at them once


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.iterdir() if path.is_file()}
