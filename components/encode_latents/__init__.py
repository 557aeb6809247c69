"""Encodes pictures into the VAE's posterior, once for all trainers."""
