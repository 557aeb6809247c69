"""Compiled steps in object storage: a second start finds what the first one compiled, whatever happens to storage."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from components.common.storage import ObjectStore, open_store
from components.train.flax.compiled_steps import COMPILED, compile_or_fetch, compiler_for
from tests import flax_runs as runs

PROGRAM = """
import sys
import jax, jax.numpy as jnp
from components.common.storage import open_store
from components.train.flax.compiled_steps import compile_or_fetch

events = []
jax.monitoring.register_event_listener(lambda event, **more: events.append(event.rpartition("/")[2]))
lowered = jax.jit(lambda x: jnp.sin(x @ x).sum()).lower(jax.ShapeDtypeStruct((8, 8), jnp.float32))
compiled = compile_or_fetch(lowered, open_store(sys.argv[1]))
print(round(float(compiled(jnp.eye(8))), 3), "cache_hits" in events)
"""


def started(uri: str) -> str:
    """What a process of its own says: a result, and whether it found the function compiled."""
    environment = {**runs.subprocess_environment(), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    del environment["JAX_COMPILATION_CACHE_DIR"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, uri], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.fixture
def keep_all() -> Iterator[None]:
    """JAX keeps what it compiles however fast that was, and nowhere unless told."""
    options = ("jax_persistent_cache_min_compile_time_secs", "jax_compilation_cache_dir")
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in zip(options, (0.0, None), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def lowered(size: int = 8) -> jax.stages.Lowered:
    return jax.jit(lambda x: jnp.cos(x @ x).sum()).lower(jax.ShapeDtypeStruct((size, size), jnp.float32))


def entries(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list(f"{COMPILED}/")]


def test_second_process_finds_in_a_bucket_what_the_first_one_compiled(gcs_bucket_uri: str) -> None:
    assert started(gcs_bucket_uri) == "6.732 False"
    assert len(entries(open_store(gcs_bucket_uri))) == 1
    assert started(gcs_bucket_uri) == "6.732 True"


@pytest.mark.usefixtures("keep_all")
def test_each_program_has_a_folder_and_options_stay(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for size in (8, 16, 8):
        compiled = compile_or_fetch(lowered(size), store)
        assert compiled(jnp.zeros((size, size))) == size * size
    folders = {key.split("/")[1] for key in entries(store)}
    assert len(folders) == len(entries(store)) == 2
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.usefixtures("keep_all")
@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "as JAX wrote it", "moved"])
def test_damaged_entry_is_compiled_and_written_again(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(str(tmp_path))
    compile_or_fetch(lowered(), store)
    (key,) = entries(store)
    data = store.read(key)
    if damage == "moved":
        compile_or_fetch(lowered(16), store)
        (other,) = set(entries(store)) - {key}
        store.write(key, store.read(other))
    else:
        store.write(
            key,
            {
                "flipped": data[:-1] + bytes([data[-1] ^ 1]),
                "cut": data[:-1],
                "emptied": b"",
                "as JAX wrote it": data[32:],
            }[damage],
        )
    jax.clear_caches()
    compiled = compile_or_fetch(lowered(), store)
    assert compiled(jnp.zeros((8, 8))) == 64
    assert f"{key} is damaged, or of an earlier release: it is compiled again" in caplog.text
    caplog.clear()
    jax.clear_caches()
    assert compile_or_fetch(lowered(), store)(jnp.zeros((8, 8))) == 64
    assert caplog.text == ""


@pytest.mark.usefixtures("keep_all")
def test_storage_that_fails_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / COMPILED).write_text("a file where the folder should be")
    compiled = compile_or_fetch(lowered(), open_store(str(tmp_path)))
    assert compiled(jnp.zeros((8, 8))) == 64
    assert "the compiled step is not kept for the next start" in caplog.text


@pytest.mark.usefixtures("keep_all")
def test_chosen_folder_wins_and_cpus_keep_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "storage"))
    compiler_for("tpu", store)(lowered())
    (key,) = entries(store)
    store.delete(key)
    compiler_for("cpu", store)(lowered())
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "chosen"))
    compiler_for("tpu", store)(lowered())
    assert entries(store) == []
