"""The pictures of an evaluation, drawn by PyTorch or by JAX."""
