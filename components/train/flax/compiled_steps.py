"""Compiled steps kept in object storage, so that a restarted or repeated training does not compile for minutes again.

JAX can keep compiled functions in a folder. A pod's folders end with the pod, so what the folder holds of one program
is fetched from the checkpoint root before it is compiled and put there afterwards:

    {checkpoint root}/compiled/{digest of the program}/...      as JAX names and writes them

JAX reads its entries by a key over the program, its own version, the compiler's flags and the devices, so that an entry
of another machine is never taken. What is loaded runs as code: who may write below the checkpoint root must be trusted.
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
            store.download_folder(prefix, folder)
        except ObjectNotFoundError:
            logger.info("%s: not compiled before", store.uri_of(prefix))
        except StorageError as error:
            logger.warning("a step that was compiled before cannot be fetched: %s", error)
        before = _files(folder)
        compiled = _compile_in(lowered, folder)
        try:
            for path in _files(folder) - before:
                store.upload_file(path, f"{prefix}/{path.name}")
        except StorageError as error:
            logger.warning("the compiled step is not kept for the next start: %s", error)
    return compiled


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
