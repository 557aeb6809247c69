"""Layers in a loop give what they give one after the other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from components.flax_models.layers import Linear, Stack

WIDTH, DEPTH = 4, 3


class Bent(nnx.Module):
    """A layer that is not linear."""

    def __init__(self) -> None:
        self.linear = Linear(WIDTH, WIDTH, jnp.float32)

    def __call__(self, x: jax.Array, *context: jax.Array) -> jax.Array:
        return jnp.sin(self.linear(x) + sum(context))


def stack(*, remat: bool = False) -> Stack:
    """Layers with random weights, each with its own."""
    made = Stack(Bent, DEPTH, remat=remat)
    keys = iter(jax.random.split(jax.random.key(0), 2))
    definition, weights = nnx.split(made)
    return nnx.merge(definition, jax.tree.map(lambda each: jax.random.normal(next(keys), each.shape), weights))


def one_by_one(layers: Stack, x: jax.Array, *context: jax.Array, count: int = DEPTH) -> jax.Array:
    definition, weights = nnx.split(layers.each)
    for number in range(count):
        layer = nnx.merge(definition, jax.tree.map(lambda each, at=number: each[at], weights))
        x = layer(x, *context)
    return x


INPUT, CONTEXT = jnp.arange(8.0).reshape(2, WIDTH) / 8, jnp.ones((2, WIDTH))


def assert_alike(found: jax.Array, expected: jax.Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("remat", [False, True])
def test_output_and_gradient_are_those_of_the_layers_one_by_one(remat: bool) -> None:
    layers = stack(remat=remat)
    assert_alike(layers(INPUT, CONTEXT), one_by_one(layers, INPUT, CONTEXT))
    found = jax.grad(lambda x: layers(x, CONTEXT).sum())(INPUT)
    assert_alike(found, jax.grad(lambda x: one_by_one(layers, x, CONTEXT).sum())(INPUT))


@pytest.mark.parametrize("count", range(DEPTH + 1))
def test_what_the_first_layers_give_is_kept(count: int) -> None:
    layers = stack()
    last, kept = layers.keeping(INPUT, count)
    assert_alike(last, one_by_one(layers, INPUT))
    assert_alike(kept, one_by_one(layers, INPUT, count=count))
