"""Trains the placeholder rows with PyTorch and accelerate."""
