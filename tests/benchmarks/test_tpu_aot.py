"""The operations that the table of steps compiled for TPUs names are those of the products and convolutions."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tests.benchmarks.tpu_aot import flops


def test_products_in_a_loop_count_as_often_as_it_runs() -> None:
    def loss(x: jax.Array, layers: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda carry, layer: (jnp.tanh(carry @ layer), None), x, layers)[0].sum()

    traced = jax.jit(jax.grad(loss)).trace(jnp.zeros((4, 8)), jnp.zeros((3, 8, 8)))
    forward = 3 * 2 * 4 * 8 * 8
    assert flops(traced.jaxpr.jaxpr) == 2 * forward  # and once more for the gradient


def test_convolution_counts_its_kernel_at_every_place() -> None:
    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    traced = jax.jit(convolve).trace(jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 4, 6)))
    assert flops(traced.jaxpr.jaxpr) == 2 * (8 * 8 * 6) * (3 * 3 * 4)
