"""Attention in chunks equals attention at once, and holds no more scores than its limit."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from components.flax_models import attention as module
from components.flax_models.devices import DATA, mesh_for
from tests import flax_runs as runs

del runs  # imported for its settings of XLA


def test_chunks_equal_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value, cotangent = jax.random.normal(jax.random.key(0), (4, 2, 24, 3, 8))

    def loss(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return (module.attention(query, key, value) * cotangent).sum()

    both = jax.value_and_grad(loss, argnums=(0, 1, 2))
    whole = both(query, key, value)
    monkeypatch.setattr(module, "SCORES_LIMIT_BYTES", 4 * 2 * 3 * 24 * 7)
    assert module.chunk_length(query.shape, 24) == 6
    assert "scan" in str(jax.make_jaxpr(loss)(query, key, value))
    for ours, wanted in zip(jax.tree.leaves(both(query, key, value)), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-5)


def test_stable_diffusion_at_512_pixels_is_cut() -> None:
    assert module.chunk_length((1, 4096, 8, 40), 4096) == 512
    assert module.chunk_length((1, 1024, 8, 80), 1024) == 1024
    assert module.chunk_length((4, 4096, 8, 40), 77) == 4096
    assert module.chunk_length((10_000, 7, 8, 40), 4096) == 1


def test_causal_attention_sees_no_later_token() -> None:
    query, key, value = jax.random.normal(jax.random.key(0), (3, 1, 5, 1, 4))
    before = module.attention(query, key, value, causal=True)
    after = module.attention(query, key, value.at[:, 3].add(jnp.ones(4)), causal=True)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert np.abs(before[:, 3:] - after[:, 3:]).min() > 0.01


@pytest.mark.parametrize(
    ("backend", "dtype", "query_shape", "keys", "causal", "expected"),
    [
        ("gpu 9.0", jnp.bfloat16, (4, 4096, 8, 40), 4096, False, "cudnn"),
        ("gpu 8.0", jnp.float16, (4, 4096, 8, 80), 77, False, "cudnn"),
        ("gpu 12.0", jnp.bfloat16, (4, 77, 12, 64), 77, True, "cudnn"),
        ("gpu 9.0", jnp.bfloat16, (4, 256, 8, 128), 256, False, "cudnn"),
        ("gpu 9.0", jnp.bfloat16, (4, 64, 8, 160), 64, False, "whole"),  # too many features
        ("gpu 9.0", jnp.bfloat16, (4, 64, 8, 20), 64, False, "whole"),  # no multiple of 8
        ("gpu 9.0", jnp.float32, (4, 64, 8, 40), 64, False, "whole"),
        ("gpu 9.0", jnp.float32, (4, 4096, 8, 40), 4096, False, "chunks"),
        ("gpu 7.5", jnp.float16, (4, 4096, 8, 40), 4096, False, "chunks"),  # before Ampere
        ("gpu gfx90a", jnp.bfloat16, (4, 4096, 8, 40), 4096, False, "chunks"),  # no cuDNN
        ("tpu", jnp.bfloat16, (4, 4096, 8, 40), 4096, False, "chunks"),
        ("tpu", jnp.bfloat16, (4, 4096, 8, 40), 77, False, "whole"),
        ("tpu", jnp.bfloat16, (4, 77, 12, 64), 77, True, "whole"),
        ("cpu", jnp.bfloat16, (1, 1024, 8, 40), 1024, False, "whole"),
        ("cpu", jnp.float32, (10_000, 77, 12, 64), 77, True, "whole"),  # never cut
    ],
)
def test_attention_is_chosen_by_backend_dtype_and_shape(
    backend: str, dtype: Any, query_shape: tuple[int, ...], keys: int, causal: bool, expected: str
) -> None:
    for given in (dtype, jnp.dtype(dtype)):
        assert module.kind_of_attention(backend, given, query_shape, keys, causal=causal) == expected


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)])
@pytest.mark.parametrize(("queries", "keys", "causal"), [(24, 7, False), (12, 12, True)])
def test_arguments_of_jax_attention_mean_the_same(
    queries: int, keys: int, causal: bool, dtype: Any, tolerance: float
) -> None:
    random = [jax.random.normal(jax.random.key(n), (2, length, 3, 8)) for n, length in enumerate((queries, keys, keys))]
    query, key, value = (3 * each.astype(dtype) for each in random)
    cotangent = jax.random.normal(jax.random.key(3), query.shape)

    def both_ways(function: Any, **more: Any) -> list[np.ndarray]:
        result, back = jax.vjp(lambda *given: function(*given, causal=causal, **more), query, key, value)
        return [np.asarray(each, np.float32) for each in (result, *back(cotangent.astype(dtype)))]

    for theirs, own in zip(both_ways(module.by_jax, implementation="xla"), both_ways(module.attention), strict=True):
        np.testing.assert_allclose(theirs, own, atol=tolerance * np.abs(own).max())


def test_backend_is_that_of_the_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "another")
    found = []

    def note(x: jax.Array) -> jax.Array:
        found.append(module._backend())
        return x

    mesh = mesh_for("cpu")
    jax.jit(jax.shard_map(note, mesh=mesh, in_specs=P(DATA), out_specs=P(DATA))).lower(jnp.zeros(mesh.size))
    assert found == ["cpu"] and module._backend() == "another"
