"""Trains the placeholder rows with JAX and Flax: TPUs and GPUs, one host or many."""
