"""Attention in chunks equals attention at once, and holds no more scores than its limit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from components.flax_models import attention as module
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
